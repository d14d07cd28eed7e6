"""Files of Parquet that are read: those that ``minisbert encode`` wrote, and others with such columns."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from minisbert.cli.columns import EMBEDDING, TEXT
from minisbert.cli.streams import TextFileError, naming
from minisbert.cli.writers import needs_pyarrow

__all__ = ["open_parquet", "other_types", "reading_parquet", "row_groups"]

# Bytes that are read of a column at once: a row group of another program's can be the whole file.
BUFFER = 1 << 20


@contextmanager
def open_parquet(path: str) -> Iterator[Any]:
    """Open a file of Parquet.

    Raises
    ------
    TextFileError
        If pyarrow is not installed, or the file is damaged or none of Parquet.
    """
    needs_pyarrow(path)
    parquet: Any = importlib.import_module("pyarrow.parquet")
    with open(path, "rb") as handle:
        with reading_parquet(path):
            file = parquet.ParquetFile(handle, buffer_size=BUFFER, pre_buffer=False)
        yield file


@contextmanager
def reading_parquet(path: str) -> Iterator[None]:
    """Have what Arrow finds wrong with a file be an error of ours, which names it."""
    pa: Any = importlib.import_module("pyarrow")
    try:
        with naming(path):
            yield
    except pa.ArrowException as error:
        raise TextFileError(f"{path}: can't be read as Parquet ({error}); write it once more") from error


def row_groups(file: Any, path: str) -> Iterator[Any]:
    """Read a file, one row group at a time."""
    with reading_parquet(path):
        for group in range(file.num_row_groups):
            yield file.read_row_group(group)


def other_types(schema: Any) -> dict[str, Any]:
    """Return the types of all columns but the text and its vector."""
    return {field.name: field.type for field in schema if field.name not in (TEXT, EMBEDDING)}
