"""``minisbert convert``: `minisbert.convert` on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path

from minisbert.cli.report import progress, tell
from minisbert.convert import convert_checkpoint

__all__ = ["convert"]


def convert(arguments: argparse.Namespace) -> None:
    """Write a checkpoint in fewer bits, and say how large it is."""
    with progress("Converting", None, arguments.quiet, "tensors") as update:
        folder = convert_checkpoint(arguments.path, arguments.output, dtype=arguments.dtype, progress=update)
    if not arguments.quiet:
        tell(f"{folder}: {_weights_bytes(folder) / 1e6:,.1f} MB of weights in {arguments.dtype}")


def _weights_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.safetensors"))
