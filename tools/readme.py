"""Replace what stands between two markers of a Markdown file, such as the README's tables."""

from __future__ import annotations

from pathlib import Path

__all__ = ["README", "rewrite", "with_block"]

README = Path(__file__).resolve().parents[1] / "README.md"


def with_block(text: str, name: str, block: str) -> str:
    """Return a text with what stands between the two markers of that name replaced.

    Raises
    ------
    ValueError
        If the markers are not there, once each and in order.
    """
    start, end = f"<!-- {name}: start -->", f"<!-- {name}: end -->"
    if text.count(start) != 1 or text.count(end) != 1 or text.index(start) > text.index(end):
        raise ValueError(f"expected the lines {start} and {end}, once each and in this order")
    before, rest = text.split(start)
    _, after = rest.split(end)
    return f"{before}{start}\n\n{block.strip()}\n\n{end}{after}"


def rewrite(path: Path, name: str, block: str) -> None:
    """Replace the block of that name in a file.

    Raises
    ------
    ValueError
        If the markers are not there: the message names the file.
    """
    try:
        whole = with_block(path.read_text(encoding="utf-8"), name, block)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    path.write_text(whole, encoding="utf-8")
