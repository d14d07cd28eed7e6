"""pgvector: a table of vectors in PostgreSQL, with an index.

    pip install "psycopg[binary]"
    python tools/recipes/pgvector_table.py [MODEL] [CONNECTION, such as postgresql://localhost/postgres]

Vectors go in as text, "[0.1,0.2]": nine digits, which float32 needs. `<=>` is 1 - cosine, `<#>` the negative product.
"""

import sys

import numpy as np
import psycopg

import minisbert

TEXTS = ["a quick brown fox", "the stock market fell", "a lazy dog sleeps", "shares and bonds lost value"]


def literal(vector: np.ndarray) -> str:
    return f"[{','.join(f'{x:.9g}' for x in vector.tolist())}]"


def create(connection: psycopg.Connection, encoder: minisbert.SentenceEncoder, texts: list[str]) -> None:
    """Make a table of texts and their vectors, and an index for cosines."""
    connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    connection.execute("DROP TABLE IF EXISTS texts")
    size = encoder.get_embedding_dimension()
    connection.execute(f"CREATE TABLE texts (id bigserial PRIMARY KEY, text text, embedding vector({size}))")
    with connection.cursor().copy("COPY texts (text, embedding) FROM STDIN") as copy:
        for text, vector in zip(texts, encoder.encode(texts), strict=True):
            copy.write_row((text, literal(vector)))
    connection.execute("CREATE INDEX ON texts USING hnsw (embedding vector_cosine_ops)")


def search(connection: psycopg.Connection, encoder, query: str, k: int) -> list[tuple[str, float]]:
    """Return the k most similar texts, with their cosines."""
    vector = literal(encoder.encode_query(query))
    select = (
        "SELECT text, 1 - (embedding <=> %s::vector) FROM texts ORDER BY embedding <=> %s::vector LIMIT %s"
    )
    return connection.execute(select, [vector, vector, k]).fetchall()


if __name__ == "__main__":
    encoder = minisbert.load(*(sys.argv[1:2] or ["sentence-transformers/all-MiniLM-L6-v2"]))
    with psycopg.connect(*sys.argv[2:3]) as connection:
        create(connection, encoder, TEXTS)
        for text, score in search(connection, encoder, "finance", k=2):
            print(f"{score:.3f}  {text}")
