"""Daft: a column of vectors, in a pipeline on one machine, or on Ray.

    pip install daft
    python tools/recipes/daft_column.py [MODEL]

A missing text is refused, so such rows are left out first. The encoder travels to other processes as its path, or name
and commit, and a hash of its files; each has threads of its own.
"""

import sys

import daft
import pyarrow as pa
from daft import DataType, col

import minisbert

TEXTS = [
    "a quick brown fox",
    "the stock market fell",
    None,
    "a lazy dog sleeps",
    "shares and bonds lost value",
]


def with_vectors(encoder: minisbert.SentenceEncoder, frame: daft.DataFrame) -> daft.DataFrame:
    """Return the rows that have a text, with a column of vectors."""
    size = encoder.get_embedding_dimension()

    @daft.func.batch(return_dtype=DataType.embedding(DataType.float32(), size), batch_size=1024)
    def embed(texts: daft.Series) -> pa.Array:
        return pa.FixedSizeListArray.from_arrays(encoder.encode(texts.to_arrow()).ravel(), size)

    return frame.where(col("text").not_null()).with_column("embedding", embed(col("text")))


if __name__ == "__main__":
    encoder = minisbert.load(*(sys.argv[1:] or ["sentence-transformers/all-MiniLM-L6-v2"]))
    with_vectors(encoder, daft.from_pydict({"text": TEXTS})).show()
