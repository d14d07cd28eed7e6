"""The layout of a checkpoint in int8, which `minisbert.convert` writes and `minisbert.load` reads.

It is the original's folder, but for two files:

- ``config.json`` has one more key, ``minisbert_quantization``, with the version of the layout: see `MARKER`.
- ``model.int8.safetensors`` has the weights, and there is no ``model.safetensors``: so no other program takes these
  integers for weights. Tensors have the names that transformers gives them, without the model's prefix. A matrix
  (O, K) of the layers, as ``NAME``, is of I8, from -127 to 127, and beside it ``NAME_scale`` (O,) is of F32. These are
  what `kernels.reference.narrow.integers_of_weight` makes of it, so that the matrix is ``rotate(NAME * NAME_scale)``.
  The word table (V, E) is not rotated, but its scales are (V, ceil(E / 128)): number j of row i is ``NAME[i, j] *
  NAME_scale[i, j // 128]``. All other tensors are the original's, as F32.
"""

from __future__ import annotations

from mmap import mmap
from pathlib import Path
from typing import Any

import numpy as np

from minisbert.arrays import SCALED, Int8Rows
from minisbert.checkpoint.jsonfile import JsonFile, is_there, read_json
from minisbert.checkpoint.repository import QUANTIZATION, module_folders
from minisbert.checkpoint.stored import Entry, tensor
from minisbert.errors import CheckpointError, UnsupportedCheckpointError, shown

__all__ = ["MARKER", "SCALE", "holds_int8", "int8_rows", "is_int8", "is_marked", "shape_of_scales"]

MARKER: dict[str, Any] = {"version": 1, "dtype": "int8", "block": SCALED}
SCALE = "_scale"  # what the name of a matrix's scales ends with, and their role


def holds_int8(folder: Path) -> bool:
    """Whether the transformer of a checkpoint is in int8."""
    modules = folder / "modules.json"
    entries = module_folders(modules) if is_there(modules) else ()
    prefix = next((prefix for kind, prefix in entries if kind == "Transformer"), "")
    return is_marked(read_json(folder / prefix / "config.json"))


def is_marked(config: JsonFile) -> bool:
    """Whether a transformer's ``config.json`` says that weights are int8; those of another version are refused."""
    marker = config.values.get(QUANTIZATION)
    if marker is not None and marker != MARKER:
        raise UnsupportedCheckpointError(
            f"{config.path}: {QUANTIZATION} is {shown(marker)}; this version of minisbert reads {MARKER}. Convert the "
            "original checkpoint once more, or install the version of minisbert that wrote this one"
        )
    return marker is not None


def is_int8(role: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is one that the layout has in int8: a matrix of the layers, or the word table."""
    names = ("layers.", "embeddings.word", "embeddings.projection.")
    return len(shape) == 2 and role.startswith(names) and not role.endswith(SCALE)


def shape_of_scales(role: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of the scales of a matrix, or of the word table."""
    return (shape[0], -(-shape[1] // SCALED)) if role == "embeddings.word" else shape[:1]


def int8_rows(content: mmap, numbers: Entry, scales: Entry) -> Int8Rows:
    """Return a matrix as it lies in its file, checked to be one that `minisbert.convert` could have written."""
    for entry, dtype in ((numbers, "I8"), (scales, "F32")):
        if entry.dtype != dtype:
            raise _damaged(
                entry, f"has dtype {entry.dtype}; expected {dtype}, as {QUANTIZATION} in config.json has it"
            )
    integers = np.ndarray(numbers.shape, np.int8, content, numbers.start)
    if integers.min(initial=0) < -127:
        raise _damaged(numbers, "holds -128; expected integers from -127 to 127")
    factors = tensor(content, scales)
    if factors.min(initial=0) < 0:
        raise _damaged(scales, "holds a negative number; expected scales")
    return Int8Rows(integers, factors.astype(np.float32, copy=False))


def _damaged(entry: Entry, what: str) -> CheckpointError:
    return CheckpointError(
        f"{entry.path}: the tensor {entry.name!r} {what}; copy the checkpoint again, or convert the original once more"
    )
