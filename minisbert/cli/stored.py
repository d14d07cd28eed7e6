"""Files in which there are vectors beside texts: Parquet, JSONL, or .npy and a file of texts, read block by block."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as numpy_format
from numpy.typing import NDArray

from minisbert.cli import textio
from minisbert.cli.columns import EMBEDDING, TEXT
from minisbert.cli.models import open_input
from minisbert.cli.parquetfile import open_parquet, other_types, reading_parquet
from minisbert.cli.settings import KEY, Settings
from minisbert.cli.streams import TextFileError, naming
from minisbert.cli.textio import Record, Source
from minisbert.cli.where import matches, no_column, select
from minisbert.cli.writers import Vectors

__all__ = ["Block", "Corpus", "block_of", "open_corpus", "without_vector"]

BLOCK = 4096  # rows of Parquet that are in memory together
FLOATS = {"halffloat": "float16", "float": "float32", "double": "float64"}  # what Arrow and NumPy call them


class Block(NamedTuple):
    """Some rows that have a text: the lines they are on, their vectors (S, D), and what finds the record of one."""

    lines: NDArray[np.int64]
    vectors: Vectors
    record: Callable[[int], Record]


class Corpus(NamedTuple):
    """What is searched, and how to read its vectors; where there are none it has `texts`, which are to be encoded.

    `source` has the texts in any case, but for Parquet.
    """

    name: str
    source: Source | None
    texts: Source | None = None
    empty: Vectors = np.empty((0, 0), np.float32)  # (0, D), of the dtype of the vectors
    settings: Settings | None = None  # with which they were made, if the file says so
    columns: Sequence[str] = ()  # what is kept beside them
    blocks: Callable[[], Iterator[Block]] = lambda: iter(())


@contextmanager
def open_corpus(arguments: argparse.Namespace) -> Iterator[Corpus]:
    """Open what is to be searched, and find out whether it has vectors."""
    if arguments.input.lower().endswith(".parquet"):
        with open_parquet(arguments.input) as file:
            yield _parquet(file, arguments)
        return
    with open_input(arguments) as source:
        if arguments.vectors is not None:
            yield _npy(source, arguments.vectors)
        elif (first := _first(source)) is not None and isinstance(first.fields.get(EMBEDDING), list):
            yield _jsonl(source, first)
        else:
            yield Corpus(source.name, source, source)


def block_of(records: Sequence[Record], vectors: Vectors) -> Block:
    """Make a block of records, each of which has a vector; those with a blank text are left out."""
    rows = [row for row, record in enumerate(records) if _is_text(record.text)]
    lines = np.array([records[row].line for row in rows], np.int64)
    return Block(lines, vectors[rows], lambda index: records[rows[index]])


def _is_text(text: Any) -> bool:
    return isinstance(text, str) and bool(text.strip())


# --- Parquet -------------------------------------------------------------------------------------------------


def _parquet(file: Any, arguments: argparse.Namespace) -> Corpus:
    name, field, where = arguments.input, arguments.field or TEXT, arguments.where
    for option in ("vectors", "format", "separator", "encoding"):
        if getattr(arguments, option) is not None:
            raise TextFileError(f"{name}: --{option} is not for Parquet")
    schema = file.schema_arrow
    for column in (field, EMBEDDING, *(column for column, _ in where)):
        if schema.names.count(column) != 1:
            raise no_column(name, column, schema.names)
    content = (schema.metadata or {}).get(KEY)

    def blocks() -> Iterator[Block]:
        first = 1
        with reading_parquet(name):
            for batch in file.iter_batches(BLOCK):
                yield _of_batch(batch, name, field, where, first, empty)
                first += len(batch)

    empty = _empty(file, name)
    settings = None if content is None else Settings.from_json(name, content)
    others = list(other_types(schema))
    return Corpus(name, None, None, empty, settings, others, blocks)


def _empty(file: Any, name: str) -> Vectors:
    """Find the width and the dtype of the vectors of a file: of a list without a fixed size, those of the first row."""
    kind = file.schema_arrow.field(EMBEDDING).type
    dtype = _dtype_of(kind, name)
    if hasattr(kind, "list_size"):
        return np.empty((0, kind.list_size), dtype)
    with reading_parquet(name):
        for batch in file.iter_batches(BLOCK, columns=[EMBEDDING]):
            lengths = [len(vector) for vector in batch.column(0) if vector.is_valid]
            if lengths:
                return np.empty((0, lengths[0]), dtype)
    return np.empty((0, 0), dtype)


def _dtype_of(kind: Any, name: str) -> Any:
    name_of_type = str(getattr(kind, "value_type", kind))
    try:
        dtype = np.dtype(FLOATS.get(name_of_type, name_of_type))
    except TypeError:
        dtype = np.dtype(object)
    if dtype.kind not in "fiu" or not hasattr(kind, "value_type"):
        raise TextFileError(f"{name}: column {EMBEDDING!r} is {kind}; expected lists of numbers")
    return dtype


def _of_batch(batch: Any, name: str, field: str, where: Any, first: int, empty: Vectors) -> Block:
    """Take the rows of a batch that have a text and are wanted; the first of them is the row of that number."""
    texts = batch.column(field).to_pylist()
    wanted = [_is_text(text) for text in texts]
    if where:
        table = batch.select([column for column, _ in where]).to_pylist()
        wanted = [is_text and matches(row, where) for is_text, row in zip(wanted, table, strict=True)]
    rows = np.flatnonzero(wanted)
    taken = batch.take(rows)
    names = batch.schema.names
    others = [name for name in names if name not in (field, EMBEDDING) and names.count(name) == 1]

    def record(index: int) -> Record:
        [row] = taken.slice(index, 1).select([field, *others]).to_pylist()
        return Record(int(lines[index]), row.pop(field), row)

    lines = rows + first
    return Block(lines, _matrix(taken.column(EMBEDDING), name, lines, empty), record)


def _matrix(column: Any, name: str, lines: NDArray[np.int64], empty: Vectors) -> Vectors:
    """Return lists of numbers as an array, one a row."""
    values, width = column.flatten(), empty.shape[1]
    if column.null_count or values.null_count or len(values) != len(column) * width:
        for line, vector in zip(lines, column.to_pylist(), strict=True):
            numbers = [number for number in vector or () if number is not None]
            if len(numbers) != width or len(vector) != width:
                what = f"{EMBEDDING!r} has {len(numbers)} numbers; expected {width}"
                raise TextFileError(f"{name}, row {line}: {what}")
    flat = values.to_numpy(zero_copy_only=False).astype(empty.dtype, copy=False)
    return _checked(flat.reshape(len(column), width), f"{name}, row", lines)


def _checked(vectors: Vectors, where: str, numbers: NDArray[np.int64]) -> Vectors:
    """Return vectors of texts, each of which is somewhere; none may be NaN or infinite."""
    if vectors.dtype.kind == "f" and not np.isfinite(vectors).all():
        number = numbers[~np.isfinite(vectors).all(axis=1)][0]
        raise TextFileError(f"{where} {number}: its vector has NaN or infinity; encode it once more")
    return vectors


# --- JSONL ---------------------------------------------------------------------------------------------------


def _first(source: Source) -> Record | None:
    """Look at the first text of a file; a pipe, which can't be read twice, has texts only."""
    records = () if source.start is None else source.records()
    return next((record for record in records if record.text is not None), None)


def _jsonl(source: Source, first: Record) -> Corpus:
    dtype = _dtype_of_rows(source)
    empty = np.empty((0, len(first.fields[EMBEDDING])), dtype)

    def blocks() -> Iterator[Block]:
        for records in textio.chunks(source.wanted()):
            yield _of_records(source, [record for record in records if _is_text(record.text)], empty)

    field = source.asked.field or TEXT
    others = [name for name in first.fields if name not in (field, EMBEDDING)]
    return Corpus(source.name, source, None, empty, columns=others, blocks=blocks)


def _dtype_of_rows(source: Source) -> Any:
    """Tell what the numbers of the first rows are: floating-point ones, or bytes with a sign or without."""
    rows = [record.fields.get(EMBEDDING) for record in itertools.islice(source.records(), textio.CHUNK_TEXTS)]
    numbers = [number for row in rows if isinstance(row, list) for number in row]
    if not all(isinstance(number, int) for number in numbers):
        return np.float32
    return np.int8 if min(numbers, default=0) < 0 else np.uint8


def _of_records(source: Source, records: list[Record], empty: Vectors) -> Block:
    vectors = np.empty((len(records), empty.shape[1]), empty.dtype)
    for row, record in enumerate(records):
        vectors[row] = _vector(source, record, empty)
    lines = np.array([record.line for record in records], np.int64)
    return block_of(list(map(without_vector, records)), _checked(vectors, f"{source.name}, line", lines))


def without_vector(record: Record) -> Record:
    """Return a record without the field of its vector, which nobody wants to see."""
    return record._replace(fields={name: value for name, value in record.fields.items() if name != EMBEDDING})


def _vector(source: Source, record: Record, empty: Vectors) -> Vectors:
    """Read the vector of a row: so many numbers, and for bytes such as fit into one."""
    numbers = record.fields.get(EMBEDDING)
    try:
        if not isinstance(numbers, list):
            raise TypeError
        vector = np.array(numbers, np.float64).reshape(empty.shape[1])
        with np.errstate(over="ignore", invalid="ignore"):
            found = vector.astype(empty.dtype)
        if empty.dtype.kind != "f" and not np.array_equal(found, vector):
            raise ValueError
    except (TypeError, ValueError) as error:
        expected = f"{empty.shape[1]} numbers, {empty.dtype} as in the first rows"
        raise source.error(record.line, f"field {EMBEDDING!r} is no vector; expected {expected}") from error
    vectors: Vectors = found
    return vectors


# --- a file of vectors, and one of texts ---------------------------------------------------------------------


class _Numbered(NamedTuple):
    """A record, and its place among all those of a file."""

    fields: Any
    row: int
    record: Record


def _npy(source: Source, path: str) -> Corpus:
    if source.start is None:
        raise TextFileError(f"{source.name}: --vectors needs a file, as a pipe can't be read once more")
    vectors = _map(path)

    def blocks() -> Iterator[Block]:
        total = 0

        def numbered() -> Iterator[_Numbered]:
            nonlocal total
            for total, record in enumerate(source.records(), 1):
                yield _Numbered(record.fields, total - 1, record)

        wanted = select(numbered(), source.asked.where, source.name)
        while found := list(itertools.islice(wanted, textio.CHUNK_TEXTS)):
            if found[-1].row >= len(vectors):
                break
            found = [item for item in found if _is_text(item.record.text)]
            rows = np.array([item.row for item in found], np.int64)
            yield block_of([item.record for item in found], _checked(vectors[rows], f"{path}, row", rows + 1))
        for _ in wanted:
            pass
        if total != len(vectors):
            raise TextFileError(
                f"{path}: has {len(vectors):,} vectors, and {source.name} {total:,} texts; name the file of the texts "
                "that they were made of"
            )

    return Corpus(source.name, source, None, vectors[:0], blocks=blocks)


def _map(path: str) -> Vectors:
    try:
        with naming(path):
            found: Any = numpy_format.open_memmap(path, mode="r")
    except (ValueError, EOFError) as error:
        raise TextFileError(f"{path}: is no array of NumPy ({error}); expected what encode writes") from error
    if found.ndim != 2 or found.dtype.kind not in "fiu":
        raise TextFileError(f"{path}: has {found.dtype} {found.shape}; expected numbers of shape (S, D)")
    vectors: Vectors = found
    return vectors
