"""Vectors out, a chunk at a time: the files that ``minisbert encode`` writes.

A writer appends chunks to a temporary file, which takes the place of the target at the very end, so that the target
never holds half a result. Where a text is None, a vector of NaN keeps its place; JSONL, which has no NaN, has null.
In Parquet a null would do too, but whoever makes a matrix of the lists (`flatten`) would lose the row without a word.
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as numpy_format
from numpy.typing import NDArray

from minisbert.cli.report import to_json
from minisbert.cli.streams import STDOUT, TextFileError, naming
from minisbert.unfinished import temporary_beside

__all__ = ["WRITERS", "check_output", "open_output"]

Vectors = NDArray[Any]
Append = Callable[[Sequence[str | None], Vectors], None]  # there is a vector for each text that is not None


def check_output(path: str, source: str, may_miss: bool) -> None:
    """Refuse, before any work is done, a target that could not be written at the end of it.

    `may_miss` is whether vectors that have no NaN can be missing for some texts.
    """
    suffix = Path(path).suffix.lower()
    if path == "-":
        if sys.stdout is None:
            raise TextFileError(f"{STDOUT} is closed; name a file with --output")
        return
    if suffix not in WRITERS:
        raise TextFileError(
            f"{path}: the output must end in {', '.join(WRITERS)}, or be - for JSONL on standard output"
        )
    if suffix != ".jsonl" and may_miss:
        raise TextFileError(f"{path}: bits have no NaN to stand for a bad line; choose .jsonl")
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
        with _jsonl_writer(_StandardOutput(), empty) as append:
            yield append
        return
    writer = WRITERS[Path(path).suffix.lower()]
    target = Path(os.path.realpath(path))  # a symbolic link stays one
    with _replacing(target, path) as handle, writer(handle, empty) as append:
        yield append


class _StandardOutput:
    """Standard output for UTF-8, which some notebooks have for text only."""

    def write(self, data: bytes) -> None:
        with naming(STDOUT):
            if hasattr(sys.stdout, "buffer"):
                sys.stdout.buffer.write(data)
            else:
                sys.stdout.write(data.decode())

    def flush(self) -> None:
        with naming(STDOUT):
            sys.stdout.flush()


class _NamedFile(io.FileIO):
    """A new file whose errors in writing name the one that it is to become."""

    def __init__(self, path: Path, name: str) -> None:
        with naming(name):
            super().__init__(path, "x")
        self._name = name

    def write(self, data: Any) -> int:
        with naming(self._name):
            return super().write(data)


@contextmanager
def _replacing(target: Path, name: str) -> Iterator[BinaryIO]:
    """Write to a temporary file beside ``target``, which takes its place only if all went well."""
    with temporary_beside(target) as temporary:
        with io.BufferedWriter(_NamedFile(temporary, name)) as handle:
            yield handle
            handle.flush()
            with naming(name):
                os.fsync(handle.fileno())
        with naming(name):
            if target.exists():
                shutil.copymode(target, temporary)
            os.replace(temporary, target)


npy: Any = numpy_format  # without a type: older stubs leave these functions out


@contextmanager
def _npy_writer(handle: BinaryIO, empty: Vectors) -> Iterator[Append]:
    """Write a header, then the rows, then the header once more with the number of rows."""
    rows = 0

    def write_header() -> None:
        header = npy.header_data_from_array_1_0(empty) | {"shape": (rows, *empty.shape[1:])}
        handle.seek(0)
        npy.write_array_header_1_0(handle, header)

    def append(texts: Sequence[str | None], vectors: Vectors) -> None:
        nonlocal rows
        handle.write(_spread(texts, vectors).tobytes())
        rows += len(texts)

    write_header()
    yield append
    write_header()  # NumPy leaves room in it for the number of rows to grow


def _spread(texts: Sequence[str | None], vectors: Vectors) -> Vectors:
    """Put each vector in the place of its text, with NaN where there is no text."""
    there = [text is not None for text in texts]
    if all(there):
        return vectors
    rows = np.full((len(texts), vectors.shape[1]), np.nan, vectors.dtype)
    rows[there] = vectors
    return rows


@contextmanager
def _jsonl_writer(handle: BinaryIO | _StandardOutput, empty: Vectors) -> Iterator[Append]:
    """Write one object a line. Nine significant digits tell any two float32 values apart."""
    number = "%.9g" if empty.dtype.kind == "f" else "%d"
    embedding = "[" + ", ".join([number] * empty.shape[1]) + "]"

    def append(texts: Sequence[str | None], vectors: Vectors) -> None:
        rows = iter(vectors.tolist())
        for text in texts:
            shown = "null" if text is None else embedding % tuple(next(rows))
            handle.write(f'{{"text": {to_json(text)}, "embedding": {shown}}}\n'.encode())
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

    def append(texts: Sequence[str | None], vectors: Vectors) -> None:
        lists = pa.FixedSizeListArray.from_arrays(pa.array(_spread(texts, vectors).reshape(-1)), width)
        writer.write_table(pa.table([pa.array(texts, pa.string()), lists], schema=schema))

    with parquet.ParquetWriter(handle, schema) as writer:
        yield append


WRITERS: dict[str, Callable[[Any, Vectors], AbstractContextManager[Append]]] = {
    ".npy": _npy_writer,
    ".jsonl": _jsonl_writer,
    ".parquet": _parquet_writer,
}
