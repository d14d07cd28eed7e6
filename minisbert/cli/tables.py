"""Rows of files for ``minisbert evaluate``: CSV, TSV or JSONL with the columns that people name in many ways.

Rows are whole: what is missing, empty or of another kind is an error that names the line.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

from minisbert.cli.streams import TextFileError, decode_lines, foreign_byte, open_binary

__all__ = ["Columns", "Row", "read_rows"]

Columns = Mapping[
    str, Sequence[str]
]  # what is wanted, and the names that it may have; of which the first is shown
SEPARATORS = ("\t", ",", ";")
MAX_SHOWN = 200  # characters of the names of columns


class Row(NamedTuple):
    """What was wanted of a row, and where it stands."""

    values: dict[str, Any]
    line: int


def read_rows(
    path: str,
    columns: Columns,
    encoding: str | None = None,
    optional: Columns | None = None,
    bare: Sequence[str] = (),
) -> Iterator[Row]:
    """Read the rows of a file: those columns that are wanted, and of optional ones those that there are.

    Parameters
    ----------
    path : str
        The file, also compressed by gzip: CSV or TSV with a header, or JSONL.
    columns, optional : mapping of str to sequence of str
        The columns, each with the names that it is known by.
    encoding : str, optional
        That of the file, where no byte-order mark says it; UTF-8 if it is not named.
    bare : sequence of str
        What is wanted of a file without a header as TREC has it, which has a second column that says nothing.

    Raises
    ------
    TextFileError
        If the file or a row can't be read as that.
    """
    with open_binary(path) as handle:
        codec, lines = decode_lines(handle, path, encoding)
        numbered = ((number, _checked(path, number, line, codec)) for number, line in enumerate(lines, 1))
        filled = ((number, line) for number, line in numbered if line.strip())
        if (first := next(filled, None)) is None:
            raise TextFileError(f"{path}: is empty; expected the columns {_listed(columns)}")
        rows = chain([first], filled)
        if first[1].lstrip().startswith("{"):
            yield from _from_json(path, rows, columns, optional or {})
        elif bare and len(fields := first[1].split()) == 4 and _is_number(fields[3]):
            yield from _from_trec(path, rows, bare)
        else:
            yield from _from_csv(path, rows, columns, optional or {})


def _checked(path: str, number: int, line: str, codec: str) -> str:
    if found := foreign_byte(line):
        raise _error(
            path, number, f"not {codec.upper()} (byte 0x{found[0]:02x}); name another with --encoding"
        )
    return line


def _from_json(
    path: str, lines: Iterator[tuple[int, str]], columns: Columns, optional: Columns
) -> Iterator[Row]:
    for number, line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _error(path, number, f"not JSON ({error})") from error
        if not isinstance(row, dict):
            raise _error(path, number, f"expected a JSON object, found {type(row).__name__}")
        names = _names(path, number, list(row), columns, optional)
        yield Row({wanted: row[name] for wanted, name in names.items()}, number)


def _from_csv(
    path: str, lines: Iterator[tuple[int, str]], columns: Columns, optional: Columns
) -> Iterator[Row]:
    (line, header), separator = _header(path, next(lines), columns)
    names = _names(path, line, header, columns, optional)
    places = {wanted: header.index(name) for wanted, name in names.items()}
    last = line  # of the lines that the reader has taken: a quoted field may span some

    def taken() -> Iterator[str]:
        nonlocal last
        for number, text in lines:
            last = number
            yield text

    # TSV is not quoted where it comes from TREC, BEIR or the STS benchmark: a quotation mark is one.
    options: Any = {"quoting": csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL, "strict": True}
    reader = csv.reader(taken(), delimiter=separator, **options)
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise _error(path, last, f"not CSV ({error})") from error
        if row is None:
            return
        if len(row) != len(header):
            raise _error(path, last, f"fields: {len(row)}, and in the header: {len(header)}")
        yield Row({wanted: row[place] for wanted, place in places.items()}, last)


def _header(path: str, first: tuple[int, str], columns: Columns) -> tuple[tuple[int, list[str]], str]:
    """Cut the header by the separator that gives the most of the columns that are wanted, or else the most."""
    line, text = first
    headers = {s: next(csv.reader([text.rstrip("\r\n")], delimiter=s)) for s in SEPARATORS}
    known = set(chain.from_iterable(columns.values()))
    best = max(SEPARATORS, key=lambda s: (len(known.intersection(headers[s])), len(headers[s])))
    return (line, headers[best]), best


def _from_trec(path: str, lines: Iterator[tuple[int, str]], wanted: Sequence[str]) -> Iterator[Row]:
    for number, line in lines:
        fields = line.split()
        if len(fields) != 4:
            raise _error(path, number, f"fields: {len(fields)}, and expected 4: query, 0, document and grade")
        yield Row(dict(zip(wanted, (fields[0], fields[2], fields[3]), strict=True)), number)


def _names(path: str, line: int, found: list[str], columns: Columns, optional: Columns) -> dict[str, str]:
    """Return which of the columns that were found is the one that is wanted."""
    names = {
        wanted: next(filter(found.count, known), None) for wanted, known in {**columns, **optional}.items()
    }
    missing = [columns[wanted] for wanted in columns if names[wanted] is None]
    if missing:
        expected = " or ".join(map(repr, missing[0]))
        raise _error(path, line, f"no column {expected}; found {_listed(found)}")
    doubled = [name for name in names.values() if name is not None and found.count(name) > 1]
    if doubled:
        raise _error(path, line, f"more than one column {doubled[0]!r}; found {_listed(found)}")
    return {wanted: name for wanted, name in names.items() if name is not None}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _error(path: str, line: int, problem: str) -> TextFileError:
    return TextFileError(f"{path}, line {line}: {problem}")


def _listed(names: Sequence[str] | Columns) -> str:
    listed = ", ".join(map(repr, names))
    return listed if len(listed) <= MAX_SHOWN else listed[:MAX_SHOWN] + "…"
