"""What the ``minisbert`` command says: results on standard output, all else on standard error."""

from __future__ import annotations

import codecs
import json
import shutil
import sys
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from importlib.util import find_spec
from typing import Any

from minisbert.cli.streams import STDOUT, naming
from minisbert.cli.textio import Record

__all__ = [
    "Ranked",
    "pair_objects",
    "pair_table",
    "print_json",
    "print_lines",
    "progress",
    "ranked_objects",
    "ranked_table",
    "shorten",
    "similarity_table",
    "tell",
    "to_json",
]

Ranked = Sequence[tuple[float, Record]]  # scores, best first, and what they are of

# Where readers that use str.splitlines end a line; all other such characters JSON escapes by itself.
LINE_ENDS = {character: f"\\u{ord(character):04x}" for character in "\x85\u2028\u2029"}
NUMBERS = ("rank", "score", "line")  # columns of tables whose cells are to the right
MAX_CELL = 20  # columns of a terminal that other columns of tables have at most
BAR_DELAY = 0.5  # seconds until a bar appears on a terminal
LINE_SECONDS = 30.0  # from one line about the progress to the next, where there is no bar

_bars: list[Any] = []  # those that are on the terminal now


# --- standard output -----------------------------------------------------------------------------------------


def print_lines(lines: Iterable[str]) -> None:
    """Print the lines of a result."""
    with naming(STDOUT):
        print(*lines, sep="\n")


def print_json(values: Iterable[Any], indent: int | None = None) -> None:
    """Print each value as JSON: in ASCII unless standard output has UTF-8, as no other encoding is right for JSON."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    is_utf8 = codecs.lookup(encoding).name == "utf-8"
    for value in values:
        print_lines([to_json(value, indent=indent, ensure_ascii=not is_utf8)])


def to_json(value: Any, indent: int | None = None, ensure_ascii: bool = False) -> str:
    """Write JSON that is cut into records right by whatever cuts it at the ends of lines."""
    # Parquet has dates and the like, of which JSON knows none.
    written = json.dumps(value, indent=indent, ensure_ascii=ensure_ascii, default=str)
    for character, escaped in LINE_ENDS.items():
        written = written.replace(character, escaped)
    return written


def similarity_table(texts: Sequence[str], scores: Sequence[Sequence[float]]) -> Iterator[str]:
    """Yield the lines of a square table of scores, with the text of each row at its end."""
    cells = [[f"{score:.4f}" for score in row] for row in scores]
    width = max(len(cell) for row in cells for cell in row) + 2
    first = len(str(len(texts)))
    yield " " * first + "".join(f"{number:>{width}}" for number in range(1, len(texts) + 1))
    for number, (row, text) in enumerate(zip(cells, texts, strict=True), 1):
        line = f"{number:>{first}}" + "".join(f"{cell:>{width}}" for cell in row) + "  "
        yield line + shorten(text, len(line))


def ranked_table(ranked: Ranked, show: Iterable[str] = ()) -> Iterator[str]:
    """Yield the lines of a table of scores, columns to show, and texts, best first."""
    columns = list(show)
    rows = [
        (str(rank), f"{score:.4f}", str(_line_of(record)), *_cells(record, columns), record.text or "")
        for rank, (score, record) in enumerate(ranked, 1)
    ]
    yield from _table(("rank", "score", "line", *(_fit(name, MAX_CELL) for name in columns), "text"), rows)


def pair_table(pairs: Iterable[tuple[float, Record, Record]]) -> Iterator[str]:
    """Yield the lines of a table of scores and two texts each, one below the other."""
    rows = []
    for score, *records in pairs:
        shown = (f"{score:.4f}", "")
        rows += [
            (cell, str(record.line), record.text or "") for cell, record in zip(shown, records, strict=True)
        ]
    yield from _table(("score", "line", "text"), rows)


def pair_objects(pairs: Iterable[tuple[float, Record, Record]]) -> Iterator[dict[str, Any]]:
    """Yield for each pair its score, and both rows: line, text, and all other fields."""
    for score, first, second in pairs:
        rows = (
            {"line": record.line, "text": record.text} | dict(record.fields) for record in (first, second)
        )
        yield {"score": score} | dict(zip(("first", "second"), rows, strict=True))


def _cells(record: Record, columns: Iterable[str]) -> Iterator[str]:
    """Write the values of columns, so short that there is room for more."""
    for column in columns:
        value = record.fields.get(column)
        shown = value if isinstance(value, str) else to_json(value).strip('"')  # of dates, say
        yield "" if value is None else _fit(shown, MAX_CELL)


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table: numbers are to the right, and the last column is cut at the edge."""
    rows = [heading, *rows]
    *names, _ = heading
    widths = [max(_width_of(row[column]) for row in rows) for column in range(len(names))]
    for *cells, text in rows:
        line = ""
        for name, cell, width in zip(names, cells, widths, strict=True):
            blank = " " * (width - _width_of(cell))
            line += f"{blank}{cell}  " if name in NUMBERS else f"{cell}{blank}  "
        yield line + shorten(text, _width_of(line))


def ranked_objects(ranked: Ranked) -> Iterator[dict[str, Any]]:
    """Yield for each result, best first, its rank, score, line and text, and all other fields of its row.

    Where the row is a result itself, its rank and its score become the previous ones, and its line stays.
    """
    for rank, (score, record) in enumerate(ranked, 1):
        result = {"rank": rank, "score": score, "line": _line_of(record), "text": record.text}
        others = {name: value for name, value in record.fields.items() if name not in result}
        ranking = record.fields.keys() & {"rank", "score"}
        previous = {f"previous_{name}": record.fields[name] for name in sorted(ranking)}
        yield result | others | previous


def _line_of(record: Record) -> int:
    """Return the line that people know a record by: in the original file, if the row says which that is."""
    line = record.fields.get("line")
    return line if type(line) is int else record.line


def shorten(text: str, start: int) -> str:
    """Fit a text between column ``start`` and the edge."""
    return _fit(text, max(20, shutil.get_terminal_size().columns - start))


def _fit(text: str, room: int) -> str:
    """Make a text narrower than so many columns, without characters that would steer the terminal."""
    shown, columns = "", 0
    for character in " ".join(text.split()):
        if unicodedata.category(character) not in ("Cc", "Cf"):
            columns += _width_of(character)
            if columns >= room:
                return shown + "…"
            shown += character
    return shown


def _width_of(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


# --- standard error ------------------------------------------------------------------------------------------


def tell(message: str) -> None:
    """Say something in one line on standard error; where even that can't be written to, nothing can be said."""
    with suppress(OSError):
        for bar in _bars:
            bar.clear()
        print(f"minisbert: {' '.join(message.splitlines())}", file=sys.stderr)


@contextmanager
def progress(
    what: str, total: int | None, quiet: bool, unit: str = "texts"
) -> Iterator[Callable[[int], object]]:
    """Show how many texts are done: a bar on a terminal, elsewhere a line now and then. Yield what counts them."""
    if quiet:
        yield lambda texts: None
    elif not sys.stderr.isatty() or find_spec("tqdm") is None:
        yield _line_by_line(what, total, unit)
    else:
        from tqdm import tqdm  # not needed by every command

        with tqdm(desc=what, total=total, unit=f" {unit}", leave=False, delay=BAR_DELAY, miniters=1) as bar:
            _bars.append(bar)
            try:
                yield bar.update
            finally:
                _bars.remove(bar)


def _line_by_line(what: str, total: int | None, unit: str) -> Callable[[int], None]:
    """Make a function that counts texts, and tells every `LINE_SECONDS` how many are done."""
    start = told = time.monotonic()
    done = 0

    def update(texts: int) -> None:
        nonlocal done, told
        done += texts
        now = time.monotonic()
        if now - told < LINE_SECONDS or not done:
            return
        told, rate = now, done / (now - start)
        count, left = f"{done:,}", ""
        if total is not None:
            count += f" of {total:,}"
            left = f", {timedelta(seconds=round(max(0, total - done) / rate))} left"
        tell(f"{what}: {count} {unit}, {rate:,.1f} a second{left}")

    return update
