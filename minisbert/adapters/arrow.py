"""From a column of texts to one of vectors, in Arrow: what the engines for many machines have in common."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from minisbert.adapters import needing
from minisbert.adapters.spec import EncoderSpec
from minisbert.checkpoint import hub
from minisbert.errors import EncodeTypeError, EncodeValueError, shown

with needing("parquet"):
    import pyarrow as pa

__all__ = ["ColumnEmbedder", "Encoder", "column_embedder"]

Encoder = str | os.PathLike[str] | EncoderSpec
STRINGS = ("string", "large_string", "string_view", "null")  # as Arrow's types write themselves
Batch = TypeVar("Batch", pa.RecordBatch, pa.Table)


@dataclass(frozen=True)
class ColumnEmbedder:
    """Appends a column of vectors: what is sent to the workers, each of which loads the encoder once.

    Parameters
    ----------
    encoder : EncoderSpec
        What computes; its number of threads is the worker's affair unless it states one.
    column, output_column : str
        The column of texts, and the one of vectors that is appended.
    """

    encoder: EncoderSpec
    column: str
    output_column: str

    def __call__(self, batch: Batch, first: int = 0, part: str = "the batch") -> Batch:
        """Return a record batch or table with the column of vectors; its rows count from `first` in a `part`."""
        names = batch.schema.names
        self.check_columns(names)
        others = batch.select([number for number, name in enumerate(names) if name != self.column])

        def place(row: int) -> str:
            return f"row {first + row} of {part} ({shown(others.slice(row, 1).to_pylist()[0])})"

        vectors = self.embed(batch.column(self.column), place)
        schema = batch.schema.append(pa.field(self.output_column, vectors.type))
        return type(batch).from_arrays([*batch.columns, vectors], schema=schema)

    def check_columns(self, names: Sequence[str]) -> None:
        """Refuse columns among which that of the texts isn't, or that of the vectors is."""
        if names.count(self.column) != 1:
            raise EncodeValueError(
                f"column {self.column!r} is there {names.count(self.column)} times; expected it once, in {shown(names)}"
            )
        if self.output_column in names:
            raise EncodeValueError(
                f"column {self.output_column!r} is there already; name another output_column, or drop that one"
            )

    def embed(self, texts: pa.Array | pa.ChunkedArray, place: Callable[[int], str]) -> pa.FixedSizeListArray:
        """Return the vectors of texts as lists of one size.

        Raises
        ------
        EncodeTypeError
            If the column is not one of strings, or a text is null; `place` tells of a row which it is.
        EncodeValueError
            If a text is not UTF-8.
        """
        vectors = self.encoder.encode(self._strings(texts, place))  # (S, D)
        return pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])

    def _strings(self, texts: pa.Array | pa.ChunkedArray, place: Callable[[int], str]) -> list[str]:
        is_dictionary = hasattr(texts.type, "index_type")
        if str(texts.type.value_type if is_dictionary else texts.type) not in STRINGS:
            raise EncodeTypeError(f"column {self.column!r} is {texts.type}; expected strings")
        try:
            found: list[Any] = texts.to_pylist()
        except UnicodeDecodeError as error:  # Arrow doesn't look at what others hand it
            row = next(row for row, text in enumerate(texts) if not _is_utf8(text))
            raise EncodeValueError(f"column {self.column!r}, {place(row)}: is not UTF-8: {error}") from error
        if None in found:
            raise EncodeTypeError(
                f"column {self.column!r}, {place(found.index(None))}: is null; expected a string: leave such rows out, "
                "or fill them"
            )
        return found


def _is_utf8(text: pa.Scalar) -> bool:
    try:
        text.as_py()
    except UnicodeDecodeError:
        return False
    return True


def column_embedder(encoder: Encoder, column: str, output_column: str) -> ColumnEmbedder:
    """Return what workers are sent.

    The checkpoint is loaded here, too: so that one that can't be is told at once, and that its path, or its name and
    commit, and the hash of its files go with it. A worker that finds other files refuses them.
    """
    spec = encoder if isinstance(encoder, EncoderSpec) else EncoderSpec.from_dict({"model": encoder})
    folder = spec.resolve().path
    name, commit = hub.name_and_commit(folder) or (str(folder), None)
    return ColumnEmbedder(replace(spec, model=name, revision=commit).pinned(), column, output_column)
