"""The texts of a file, one record at a time: lines of text, JSON objects or rows of CSV.

A line that can't be read need not end the reading: if people ask for that, it becomes a record without a text, so
that record i is always what stands in place i of the file.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, tee
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO, NamedTuple

from minisbert.cli.streams import STDIN, TextFileError, decode_lines, foreign_byte, open_binary, start_of
from minisbert.cli.where import Where, listed, select

__all__ = ["Reading", "Record", "Source", "chunks", "open_source"]

FORMATS = {".txt": "text", ".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv"}
NOT_READ = {  # suffixes of files of another kind, and what to do about them
    ".json": "choose --format jsonl if each of its lines is an object",
    ".npy": "name the file of the texts, and this one with search --vectors",
    ".parquet": "save it as CSV or JSONL",
}
SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}  # those that are looked for, and their names
CHUNK_TEXTS = 1024
CHUNK_CHARACTERS = 250_000
MAX_CSV_FIELD = 1 << 28  # characters; an unclosed quote must not swallow a whole file into memory
MAX_SHOWN = 20  # numbers of bad lines in one message
OBJECT = re.compile(r'\s*\{\s*["}]')  # how a JSON object begins

Fields = Mapping[str, Any]
NO_FIELDS: Fields = MappingProxyType({})
# The rows of a file, each with the line on which it begins, and a function that finds the text and the fields of one.
Rows = tuple[Iterator[tuple[int, Any]], Callable[[Any], tuple[str, Fields]]]


class BadLine(Exception):
    """A line of a file can't be read; the message says why, and not where."""


class Record(NamedTuple):
    """One text, or None for a line that can't be read; where it begins (from 1); and the fields of its row, if any."""

    line: int
    text: str | None
    fields: Fields = NO_FIELDS


class Reading(NamedTuple):
    """How people ask for a file to be read. What is None is found out."""

    format: str | None = None
    field: str | None = None
    separator: str | None = None
    encoding: str | None = None
    on_bad_lines: str = "error"
    where: Where = ()


@dataclass
class Source:
    """An open input: what people call it, its bytes from `start` on, and how to read them."""

    name: str
    handle: BinaryIO
    asked: Reading
    start: int | None  # None: it can't be read twice
    total: int | None = None  # how many records there are, once they have been counted
    bad_lines: list[int] = field(default_factory=list)  # of the present reading
    problem: str = ""  # what is wrong with the first of them
    doubled: set[str] = field(default_factory=set)  # columns of CSV that are there more than once

    @property
    def size(self) -> int | None:
        """How many bytes a file has; None for what can't be read twice."""
        return None if self.start is None else os.fstat(self.handle.fileno()).st_size

    def place(self, line: int) -> str:
        """Say in words where a line is."""
        return f"{self.name}, line {line}"

    def records(self) -> Iterator[Record]:
        """Read all records.

        Raises
        ------
        TextFileError
            If the input can't be read as asked; or for a bad line, unless such a line is to have no text.
        """
        self.bad_lines = []
        rows, parse = self._open()
        for line, row in rows:
            try:
                record = Record(line, *parse(row))
            except BadLine as error:
                record = self._bad(line, str(error))
            yield record

    def wanted(self) -> Iterator[Record]:
        """Read the records that are asked for: all, unless some column is to have some value."""
        return select(self.records(), self.asked.where, self.name)

    def _open(self) -> Rows:
        """Begin to read, in the format that is asked for, or else in the one that the first line looks like."""
        if self.start is not None:
            self.handle.seek(self.start)
        codec, lines = decode_lines(self.handle, self.name, self.asked.encoding)
        first = next(lines, "")
        format = self.asked.format or ("jsonl" if OBJECT.match(first) else "text")
        self._check_options(format)
        return OPENERS[format](self, chain([first] * bool(first), lines), codec)

    def _check_options(self, format: str) -> None:
        options = (
            ("--field", self.asked.field, "jsonl csv"),
            ("--separator", self.asked.separator, "csv"),
            ("--where", "=".join(self.asked.where[0]) if self.asked.where else None, "jsonl csv"),
        )
        for option, value, formats in options:
            if value is not None and format not in formats.split():
                wanted = formats.replace(" ", " or ")
                raise TextFileError(
                    f"{self.name}: {option} {value} needs --format {wanted}, this is read as {format}"
                )

    def _bad(self, line: int, problem: str) -> Record:
        if self.asked.on_bad_lines == "error":
            raise self.error(line, f"{problem}; to go on without the line, choose --on-bad-lines null")
        if not self.bad_lines:
            self.problem = problem
        self.bad_lines.append(line)
        return Record(line, None)

    def count(self, update: Callable[[int], object], look: Callable[[Record], object] | None = None) -> None:
        """Read all that is wanted to set `total`; tell `update` of each few records, and `look` of each."""
        self.total = 0
        for records in chunks(self.wanted()):
            self.total += len(records)
            update(len(records))
            if look is not None:
                for record in records:
                    look(record)

    def say_bad_lines(self) -> str:
        """Say in words which lines were bad."""
        count = len(self.bad_lines)
        numbers = [f"{self.bad_lines[0]} ({self.problem})", *map(str, self.bad_lines[1:MAX_SHOWN])]
        more = f" and {count - MAX_SHOWN:,} more" if count > MAX_SHOWN else ""
        lines = f"bad line{'s' * (count > 1)} without a vector: {', '.join(numbers)}{more}"
        return f"{self.name}: {count:,} {lines}"

    def error(self, line: int, problem: str) -> TextFileError:
        """Make the error that says what is wrong with a line."""
        return TextFileError(f"{self.place(line)}: {problem}")


@contextmanager
def open_source(path: str, asked: Reading) -> Iterator[Source]:
    """Open ``path`` (``-`` is standard input); where nothing else is asked for, the suffix tells how to read it."""
    parts = [suffix.lower() for suffix in Path(path).suffixes]
    suffix = next((part for part in reversed(parts) if part != ".gz"), "")
    format = asked.format or FORMATS.get(suffix)
    if format is None and suffix in NOT_READ:
        raise TextFileError(f"{path}: a {suffix} file is not read; {NOT_READ[suffix]}")
    if suffix == ".tsv" and format == "csv":
        asked = asked._replace(separator=asked.separator or "\t")
    with open_binary(path) as handle:
        yield Source(STDIN if path == "-" else path, handle, asked._replace(format=format), start_of(handle))


def chunks(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Group records by number and by total length, so that memory stays bounded either way."""
    chunk: list[Record] = []
    characters = 0
    for record in records:
        chunk.append(record)
        characters += len(record.text or "")
        if len(chunk) >= CHUNK_TEXTS or characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


# --- the formats ---------------------------------------------------------------------------------------------


def _open_text(source: Source, lines: Iterator[str], codec: str) -> Rows:
    def parse(line: str) -> tuple[str, Fields]:
        _check_decoded(line, codec)
        return line[:-2] if line.endswith("\r\n") else line.removesuffix("\n"), NO_FIELDS

    return enumerate(lines, 1), parse


def _open_jsonl(source: Source, lines: Iterator[str], codec: str) -> Rows:
    name = source.asked.field or "text"
    doubt = "" if source.asked.format else "; if this is plain text, choose --format text"

    def parse(line: str) -> tuple[str, Fields]:
        _check_decoded(line, codec)
        try:
            row = _decode_json(line)
        except json.JSONDecodeError as error:
            raise BadLine(f"not JSON ({error.msg}, character {error.pos + 1}){doubt}") from error
        except (ValueError, RecursionError) as error:
            raise BadLine(f"not JSON ({error}){doubt}") from error
        return _text_of(row, name), row

    return ((number, line) for number, line in enumerate(lines, 1) if line.strip()), parse


# NaN and infinity are no JSON, and all the same written by many: as pandas does, they are read as nothing.
_decode_json = json.JSONDecoder(parse_constant=lambda name: None).decode


def _text_of(row: Any, name: str) -> str:
    """Find the text in a row of JSONL."""
    if not isinstance(row, dict):
        raise BadLine(f"expected a JSON object, found {type(row).__name__}")
    if name not in row:
        raise BadLine(f"no field {name!r}; found {listed(row)}; choose with --field")
    text = row[name]
    if not isinstance(text, str):
        raise BadLine(f"field {name!r} must be a string, found {type(text).__name__}")
    if foreign_byte(text):
        raise BadLine(f"field {name!r} holds half of a surrogate pair, which is no character")
    return text


def _open_csv(source: Source, lines: Iterator[str], codec: str) -> Rows:
    separator, line, header, rows = _read_header(source, lines)
    try:
        _check_decoded(separator.join(header), codec)
    except BadLine as error:
        raise source.error(line, str(error)) from error
    column = header.index(source.asked.field or "text")
    source.doubled = {name for name in header if header.count(name) > 1}
    what = SEPARATORS.get(separator, repr(separator))

    def parse(row: list[str] | csv.Error) -> tuple[str, Fields]:
        if isinstance(row, csv.Error):
            raise BadLine(f"not CSV ({row})")
        _check_decoded(separator.join(row), codec)
        if len(row) != len(header):
            count = f"fields: {len(row)}, and in the header: {len(header)}"
            raise BadLine(f"{count}; quote those that hold {what}, or choose another --separator")
        return row[column], dict(zip(header, row, strict=True))

    return rows, parse


def _read_header(
    source: Source, lines: Iterator[str]
) -> tuple[str, int, list[str], Iterator[tuple[int, Any]]]:
    """Find out what separates the columns; return that, the header's line, the header, and the rows below it.

    It is what cuts the header such that one column has the name that is asked for. The name ends at a separator or at
    the end of the line, so that two fit only where the name is there twice, or where it is all that there is. In a
    file of one column any separator gives the same texts, and commas are those that CSV is named for.
    """
    name = source.asked.field or "text"
    candidates = [source.asked.separator] if source.asked.separator else list(SEPARATORS)
    lines, *copies = tee(lines, 1 + len(candidates))
    nothing: tuple[int, Any] = (1, [name])
    headers = {s: next(_csv_rows(copy, s), nothing) for s, copy in zip(candidates, copies, strict=True)}
    fitting = [
        s for s, (_, header) in headers.items() if isinstance(header, list) and header.count(name) == 1
    ]
    if not fitting:
        raise _no_column(source, name, headers.values())
    separator = fitting[0]
    line, header = headers[separator]
    if len(fitting) > 1 and header != [name]:
        found = " and with ".join(SEPARATORS[s] for s in fitting)
        raise source.error(
            line, f"there is a column {name!r} with {found} between columns; choose --separator"
        )
    rows = _csv_rows(lines, separator)
    next(rows, None)
    return separator, line, header, rows


def _no_column(source: Source, name: str, headers: Iterable[tuple[int, Any]]) -> TextFileError:
    """Make the error that shows the columns as the separator cuts them that gives the most."""
    line, header = max(headers, key=lambda found: len(found[1]) if isinstance(found[1], list) else 0)
    if isinstance(header, csv.Error):
        return source.error(line, f"not CSV ({header})")
    count = "more than one column" if name in header else "no column"
    return source.error(line, f"{count} {name!r}; found {listed(header)}; choose with --field or --separator")


def _csv_rows(lines: Iterator[str], separator: str) -> Iterator[tuple[int, Any]]:
    """Yield each row that is not blank, or what is wrong with it, with the line on which it begins.

    A quoted field can span lines. After an error the reader goes on with the next line.
    """
    csv.field_size_limit(MAX_CSV_FIELD)
    reader = csv.reader(lines, delimiter=separator, strict=True)
    start = 1
    row: list[str] | csv.Error | None
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            row = error
        if row is None:
            return
        if row:
            yield start, row
        start = reader.line_num + 1


OPENERS: dict[str, Callable[[Source, Iterator[str], str], Rows]] = {
    "text": _open_text,
    "jsonl": _open_jsonl,
    "csv": _open_csv,
}


def _check_decoded(line: str, codec: str) -> None:
    if found := foreign_byte(line):
        byte, before = found
        where = f"after {before!r}" if before else "at its start"
        raise BadLine(
            f"not {codec.upper()} (byte 0x{byte:02x} {where}); name another with --encoding, such as cp1252"
        )
