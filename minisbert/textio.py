"""Texts in, vectors out, a chunk at a time: the readers, writers and tables of the ``minisbert`` command.

A reader yields ``(line number, text)`` and holds one record. A writer appends chunks to a temporary file that
takes the place of the target at the very end, so the target never holds half a result.
"""

from __future__ import annotations

import codecs
import csv
import importlib
import importlib.util
import json
import os
import secrets
import shutil
import sys
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from numpy.lib import format as numpy_format
from numpy.typing import NDArray

from minisbert.errors import MinisbertError

Vectors = NDArray[Any]
Append = Callable[[Sequence[str], Vectors], None]

FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv"}
NOT_LINES = {".json", ".tsv", ".parquet", ".npy"}  # each of their lines is not one text
CHUNK_TEXTS = 1024
CHUNK_CHARACTERS = 250_000
MAX_CSV_FIELD = 1 << 28  # characters; an unclosed quote must not swallow a whole file into memory


class TextFileError(MinisbertError, ValueError):
    """A text file cannot be read, or a file of vectors cannot be written, as asked."""


class Record(NamedTuple):
    """One text, and the line of the file (from 1) on which its record begins."""

    line: int
    text: str


class Source(NamedTuple):
    """An open input and how to read it; ``end`` is its length in bytes, 0 if not known."""

    name: str
    handle: BinaryIO
    format: str
    field: str
    end: int

    def place(self, line: int) -> str:
        """Say in words where a line is."""
        return f"{self.name}, line {line}"


# --- reading -------------------------------------------------------------------------------------------------


@contextmanager
def open_source(path: str, format: str | None, field: str | None) -> Iterator[Source]:
    """Open ``path`` (``-`` is standard input); the format follows the suffix unless one is given."""
    suffix = Path(path).suffix.lower()
    if format is None and suffix in NOT_LINES:
        raise TextFileError(f"{path}: a {suffix} file is not one text a line; choose with --format")
    chosen = format or FORMATS.get(suffix, "text")
    if field is not None and chosen == "text":
        raise TextFileError(f"{path}: --field {field} needs --format jsonl or csv, this is read as text")
    with _open_binary(path) as handle:
        name = "standard input" if path == "-" else path
        yield Source(name, handle, chosen, field or "text", _end(handle))


@contextmanager
def _open_binary(path: str) -> Iterator[BinaryIO]:
    if path == "-":
        yield sys.stdin.buffer  # not ours to close
    else:
        with open(path, "rb") as handle:
            yield handle


def _end(handle: BinaryIO) -> int:
    if not handle.seekable():
        return 0
    start = handle.tell()
    end = handle.seek(0, os.SEEK_END)
    handle.seek(start)
    return end


def read_records(source: Source) -> Iterator[Record]:
    """Yield the records of ``source``; a bad one raises `TextFileError` with the file and the line."""
    lines = _decode_lines(source)
    if source.format == "text":
        return _text_records(lines)
    return (_csv_records if source.format == "csv" else _jsonl_records)(source, lines)


def chunks(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Group records by number and by total length, so that memory stays bounded either way."""
    chunk: list[Record] = []
    characters = 0
    for record in records:
        chunk.append(record)
        characters += len(record.text)
        if len(chunk) >= CHUNK_TEXTS or characters >= CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk


def _decode_lines(source: Source) -> Iterator[str]:
    r"""Yield the lines with their ends. Bytes, because text mode would also split on a lone ``\r``."""
    for number, raw in enumerate(source.handle, 1):
        line = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
        try:
            decoded = line.decode()
        except UnicodeDecodeError as error:
            found = f"byte 0x{line[error.start]:02x} at position {error.start} of the line"
            raise _bad(source, number, f"not UTF-8 ({found}); save the file as UTF-8") from error
        if decoded:  # empty only if the file is a byte order mark and nothing else
            yield decoded


def _text_records(lines: Iterator[str]) -> Iterator[Record]:
    for number, line in enumerate(lines, 1):
        yield Record(number, line[:-2] if line.endswith("\r\n") else line.removesuffix("\n"))


def _jsonl_records(source: Source, lines: Iterator[str]) -> Iterator[Record]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield Record(number, _jsonl_text(source, number, line))


def _jsonl_text(source: Source, number: int, line: str) -> str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _bad(source, number, f"not JSON ({error})") from error
    if not isinstance(row, dict):
        raise _bad(source, number, f"expected a JSON object, found {type(row).__name__}")
    if source.field not in row:
        raise _bad(source, number, f"no field {source.field!r}; found {_listed(row)}; choose with --field")
    text = row[source.field]
    if not isinstance(text, str):
        raise _bad(source, number, f"field {source.field!r} must be a string, found {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        found = f"half of a surrogate pair ({text[error.start]!r})"
        raise _bad(source, number, f"field {source.field!r} holds {found}, which is no character") from error
    return text


def _csv_records(source: Source, lines: Iterator[str]) -> Iterator[Record]:
    rows = _csv_rows(source, lines)
    header_line, header = next(rows, (0, [source.field]))
    if header.count(source.field) != 1:
        count = "no column" if source.field not in header else "more than one column"
        raise _bad(
            source, header_line, f"{count} {source.field!r}; found {_listed(header)}; choose with --field"
        )
    column = header.index(source.field)
    for number, row in rows:
        if len(row) != len(header):
            raise _bad(source, number, f"fields: {len(row)}, and in the header: {len(header)}; quote commas")
        yield Record(number, row[column])


def _csv_rows(source: Source, lines: Iterator[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield each row that is not blank, with the line on which it begins (a quoted field can span lines)."""
    csv.field_size_limit(MAX_CSV_FIELD)
    reader = csv.reader(lines, strict=True)
    start = 1
    try:
        for row in reader:
            if row:
                yield start, row
            start = reader.line_num + 1
    except csv.Error as error:
        raise _bad(source, start, f"not CSV ({error})") from error


def _listed(names: Iterable[str]) -> str:
    listed = ", ".join(map(repr, names)) or "none"
    return listed if len(listed) <= 200 else listed[:200] + "…"


def _bad(source: Source, line: int, problem: str) -> TextFileError:
    return TextFileError(f"{source.place(line)}: {problem}")


# --- writing -------------------------------------------------------------------------------------------------


def check_output(path: str, source: str) -> None:
    """Refuse, before any work is done, a target that could not be written at the end of it."""
    suffix = Path(path).suffix.lower()
    if path == "-":
        return
    if suffix not in WRITERS:
        raise TextFileError(
            f"{path}: the output must end in {', '.join(WRITERS)}, or be - for JSONL on standard output"
        )
    if suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise TextFileError(f"{path}: Parquet needs pyarrow; run: pip install 'minisbert[parquet]'")
    if not Path(path).parent.is_dir():
        raise TextFileError(f"{path}: there is no folder {Path(path).parent}; make it first")
    if os.path.exists(path) and not os.path.isfile(path):
        raise TextFileError(f"{path}: exists and is not a regular file")
    if source != "-" and os.path.exists(path) and os.path.samefile(path, source):
        raise TextFileError(f"{path}: is the input; name another file for the output")


@contextmanager
def open_output(path: str, empty: Vectors) -> Iterator[Append]:
    """Open ``path`` (``-`` is JSONL on standard output) for vectors of the dtype and width of ``empty``, (0, D)."""
    if path == "-":
        with _jsonl_writer(sys.stdout.buffer, empty) as append:
            yield append
        return
    writer = WRITERS[Path(path).suffix.lower()]
    target = Path(os.path.realpath(path))  # a symbolic link stays one
    with _replacing(target) as handle, writer(handle, empty) as append:
        yield append


@contextmanager
def _replacing(target: Path) -> Iterator[BinaryIO]:
    """Write to a temporary file beside ``target``, which takes its place only if all went well."""
    temporary = target.with_name(f".minisbert-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


npy: Any = numpy_format  # without a type: older stubs leave these functions out


@contextmanager
def _npy_writer(handle: BinaryIO, empty: Vectors) -> Iterator[Append]:
    """Write a header, then the rows, then the header once more with the number of rows."""
    rows = 0

    def write_header() -> None:
        header = npy.header_data_from_array_1_0(empty) | {"shape": (rows, *empty.shape[1:])}
        handle.seek(0)
        npy.write_array_header_1_0(handle, header)

    def append(texts: Sequence[str], vectors: Vectors) -> None:
        nonlocal rows
        handle.write(vectors.tobytes())
        rows += len(vectors)

    write_header()
    yield append
    write_header()  # NumPy leaves room in it for the number of rows to grow


@contextmanager
def _jsonl_writer(handle: BinaryIO, empty: Vectors) -> Iterator[Append]:
    """Write one object a line. Nine significant digits tell any two float32 values apart."""
    number = "%.9g" if empty.dtype.kind == "f" else "%d"
    embedding = "[" + ", ".join([number] * empty.shape[1]) + "]"

    def append(texts: Sequence[str], vectors: Vectors) -> None:
        for text, row in zip(texts, vectors.tolist(), strict=True):
            quoted = json.dumps(text, ensure_ascii=False)
            handle.write(f'{{"text": {quoted}, "embedding": {embedding % tuple(row)}}}\n'.encode())
        handle.flush()  # whoever reads the pipe sees each chunk at once

    yield append


@contextmanager
def _parquet_writer(handle: BinaryIO, empty: Vectors) -> Iterator[Append]:
    """Write the columns text and embedding (a fixed-size list), one row group a chunk."""
    pa: Any = importlib.import_module("pyarrow")
    parquet: Any = importlib.import_module("pyarrow.parquet")
    width = empty.shape[1]
    embedding = pa.list_(pa.from_numpy_dtype(empty.dtype), width)
    schema = pa.schema([("text", pa.string()), ("embedding", embedding)])

    def append(texts: Sequence[str], vectors: Vectors) -> None:
        lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), width)
        writer.write_table(pa.table([pa.array(texts, pa.string()), lists], schema=schema))

    with parquet.ParquetWriter(handle, schema) as writer:
        yield append


WRITERS: dict[str, Callable[[BinaryIO, Vectors], AbstractContextManager[Append]]] = {
    ".npy": _npy_writer,
    ".jsonl": _jsonl_writer,
    ".parquet": _parquet_writer,
}


# --- the terminal --------------------------------------------------------------------------------------------


def similarity_table(texts: Sequence[str], scores: Sequence[Sequence[float]]) -> Iterator[str]:
    """Yield the lines of a square table of scores, with the text of each row at its end."""
    cells = [[f"{score:.4f}" for score in row] for row in scores]
    width = max(len(cell) for row in cells for cell in row) + 2
    first = len(str(len(texts)))
    yield " " * first + "".join(f"{number:>{width}}" for number in range(1, len(texts) + 1))
    for number, (row, text) in enumerate(zip(cells, texts, strict=True), 1):
        line = f"{number:>{first}}" + "".join(f"{cell:>{width}}" for cell in row) + "  "
        yield line + _shorten(text, len(line))


def search_table(ranked: Sequence[tuple[float, Record]]) -> Iterator[str]:
    """Yield the lines of a table of scores and texts, best first."""
    rows = [("rank", "score", "line", "text")]
    rows += [(str(i), f"{score:.4f}", str(r.line), r.text) for i, (score, r) in enumerate(ranked, 1)]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for *numbers, text in rows:
        line = "".join(f"{cell:>{width}}  " for cell, width in zip(numbers, widths, strict=True))
        yield line + _shorten(text, len(line))


def _shorten(text: str, start: int) -> str:
    """Fit a text between column ``start`` and the edge, without characters that would steer the terminal."""
    room = max(20, shutil.get_terminal_size().columns - start)
    shown, columns = "", 0
    for character in " ".join(text.split()):
        if unicodedata.category(character) not in ("Cc", "Cf"):
            columns += 2 if unicodedata.east_asian_width(character) in "WF" else 1
            if columns >= room:
                return shown + "…"
            shown += character
    return shown
