"""pandas: a column of vectors, and the rows most like a text.

    pip install pandas pyarrow
    python tools/recipes/pandas_column.py [MODEL]

A missing text is refused, so such rows are left out first; the index goes along, so rows stay where they belong.
"""

import sys

import numpy as np
import pandas as pd
import pyarrow as pa

import minisbert

TEXTS = [
    "a quick brown fox",
    "the stock market fell",
    None,
    "a lazy dog sleeps",
    "shares and bonds lost value",
]


def with_vectors(encoder: minisbert.SentenceEncoder, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that have a text, with a column of vectors: Arrow's, in one piece, and ready for Parquet."""
    frame = frame.dropna(subset=["text"])
    vectors = encoder.encode(frame["text"])  # (S, D)
    lists = pa.FixedSizeListArray.from_arrays(vectors.ravel(), vectors.shape[1])
    return frame.assign(embedding=pd.Series(pd.arrays.ArrowExtensionArray(lists), index=frame.index))


def vectors_of(frame: pd.DataFrame) -> np.ndarray:
    """Return the column as an array (S, D)."""
    return np.stack(frame["embedding"].to_numpy())


def most_similar(encoder: minisbert.SentenceEncoder, frame: pd.DataFrame, query: str, k: int) -> pd.DataFrame:
    scores = encoder.similarity(encoder.encode_query(query), vectors_of(frame))[0]
    return frame.assign(score=scores).nlargest(k, "score")


if __name__ == "__main__":
    encoder = minisbert.load(*(sys.argv[1:] or ["sentence-transformers/all-MiniLM-L6-v2"]))
    frame = with_vectors(encoder, pd.DataFrame({"text": TEXTS}))
    print(most_similar(encoder, frame, "finance", k=2)[["text", "score"]])
