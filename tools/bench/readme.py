"""Replace what stands between two markers of a Markdown file, such as the README's tables."""

from __future__ import annotations

import argparse
from pathlib import Path

__all__ = ["README", "add_option", "check", "rewrite", "with_block"]

README = Path(__file__).resolve().parents[2] / "README.md"


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


def rewrite(path: Path, name: str, block: str) -> None:
    """Replace the block of that name in a file, or raise ValueError as `with_block`."""
    path.write_text(with_block(path.read_text(encoding="utf-8"), name, block), encoding="utf-8")


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--readme [FILE]``."""
    what = "rewrite the README's tables"
    parser.add_argument("--readme", nargs="?", type=Path, const=README, metavar="FILE", help=what)


def check(parser: argparse.ArgumentParser, path: Path | None, name: str) -> None:
    """Stop if a file that is to be rewritten has no markers: that is to be known now, not in ten minutes."""
    try:
        if path is not None:
            with_block(path.read_text(encoding="utf-8"), name, "")
    except (OSError, ValueError) as error:
        parser.error(f"--readme {path}: {error}")
