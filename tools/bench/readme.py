"""Replace what stands between two markers of a Markdown file, such as the tables of `tools/results/README.md`."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["README", "RESULTS", "ROOT", "add_option", "check", "rewrite", "with_block", "with_blocks"]

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
RESULTS = ROOT / "tools" / "results" / "README.md"


def with_block(text: str, name: str, block: str) -> str:
    """Return a text with what stands between the two markers of that name replaced.

    Raises
    ------
    ValueError
        If the markers are not there, once each and in order.
    """
    start, end = f"<!-- {name}: start -->", f"<!-- {name}: end -->"
    if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
        raise ValueError(
            f"expected the lines {start} and {end}, once each and in this order; put them where the tables go"
        )
    before, rest = text.split(start)
    _, after = rest.split(end)
    return f"{before}{start}\n\n{block.strip()}\n\n{end}{after}"


def with_blocks(path: Path, blocks: dict[str, str]) -> str:
    """Return a file's text with several blocks replaced, or raise ValueError that names the file."""
    text = path.read_text(encoding="utf-8")
    for name, block in blocks.items():
        try:
            text = with_block(text, name, block)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return text


def rewrite(path: Path, name: str, block: str) -> None:
    """Replace the block of that name in a file, or raise ValueError as `with_block`."""
    path.write_text(with_block(path.read_text(encoding="utf-8"), name, block), encoding="utf-8")


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--readme [FILE]``."""
    what = "rewrite the tables of tools/results/README.md, or of another file"
    parser.add_argument("--readme", nargs="?", type=Path, const=RESULTS, metavar="FILE", help=what)


def check(parser: argparse.ArgumentParser, path: Path | None, name: str) -> None:
    """Stop if a file that is to be rewritten has no markers: that is to be known now, not in ten minutes."""
    try:
        if path is not None:
            with_block(path.read_text(encoding="utf-8"), name, "")
    except (OSError, ValueError) as error:
        parser.error(f"--readme {path}: {error}")
