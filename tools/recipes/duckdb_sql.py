"""DuckDB: `embed(text)` as a function in SQL.

    pip install duckdb pyarrow
    python tools/recipes/duckdb_sql.py [MODEL]

As an Arrow function it is called once for some 2,000 rows; as a plain Python function it would be for every row. DuckDB
leaves NULL texts out by itself, and computes what is the same for all rows once.
"""

import sys

import duckdb
import pyarrow as pa

import minisbert

TEXTS = [
    "a quick brown fox",
    "the stock market fell",
    None,
    "a lazy dog sleeps",
    "shares and bonds lost value",
]


def connect(encoder: minisbert.SentenceEncoder) -> duckdb.DuckDBPyConnection:
    """Return a connection whose SQL has `embed`."""
    size = encoder.get_embedding_dimension()

    def embed(texts: pa.ChunkedArray) -> pa.Array:
        return pa.FixedSizeListArray.from_arrays(encoder.encode(texts).ravel(), size)

    connection = duckdb.connect()
    connection.create_function("embed", embed, ["VARCHAR"], f"FLOAT[{size}]", type="arrow")
    return connection


def search(connection: duckdb.DuckDBPyConnection, query: str, k: int) -> list[tuple[str, float]]:
    """Return the k texts of the table `texts` that are most like a query, with their cosines."""
    select = """
        SELECT text, array_cosine_similarity(embedding, embed($query)) AS score
        FROM texts WHERE text IS NOT NULL ORDER BY score DESC LIMIT $k
    """
    return connection.execute(select, {"query": query, "k": k}).fetchall()


if __name__ == "__main__":
    connection = connect(minisbert.load(*(sys.argv[1:] or ["sentence-transformers/all-MiniLM-L6-v2"])))
    connection.execute(
        "CREATE TABLE texts AS SELECT t AS text, embed(t) AS embedding FROM unnest($1) AS x(t)", [TEXTS]
    )
    for text, score in search(connection, "finance", k=2):
        print(f"{score:.3f}  {text}")
