"""Polars: a column of vectors, and the rows most like a text.

    pip install polars
    python tools/recipes/polars_column.py [MODEL]

A missing text is refused, so such rows are left out first. The column is an `Array(Float32, D)`, and goes to Parquet
and back as it is.
"""

import sys

import polars as pl

import minisbert

TEXTS = [
    "a quick brown fox",
    "the stock market fell",
    None,
    "a lazy dog sleeps",
    "shares and bonds lost value",
]


def with_vectors(encoder: minisbert.SentenceEncoder, frame: pl.DataFrame) -> pl.DataFrame:
    """Return the rows that have a text, with a column of vectors."""
    frame = frame.drop_nulls("text")
    return frame.with_columns(pl.Series("embedding", encoder.encode(frame["text"])))


def most_similar(encoder: minisbert.SentenceEncoder, frame: pl.DataFrame, query: str, k: int) -> pl.DataFrame:
    scores = encoder.similarity(encoder.encode_query(query), frame["embedding"].to_numpy())[0]
    return frame.with_columns(pl.Series("score", scores)).top_k(k, by="score")


if __name__ == "__main__":
    encoder = minisbert.load(*(sys.argv[1:] or ["sentence-transformers/all-MiniLM-L6-v2"]))
    frame = with_vectors(encoder, pl.DataFrame({"text": TEXTS}))
    print(most_similar(encoder, frame, "finance", k=2).select("text", "score"))
