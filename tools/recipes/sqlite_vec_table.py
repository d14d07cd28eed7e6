"""sqlite-vec: a table of vectors in SQLite, in a quarter of the bytes, in int8.

    pip install sqlite-vec      (and pysqlite3-binary, where Python's own SQLite was built to take no extensions)
    python tools/recipes/sqlite_vec_table.py [MODEL]

int8 vectors of different calls can be compared only if all calls use the same ranges: so these are made of typical
texts once, and kept beside the table. They are the same for each component; so the distance of int8 vectors is that of
the vectors, times a constant. SQLite takes vectors as bytes.
"""

import sqlite3
import sys

import numpy as np
import sqlite_vec

import minisbert

if not hasattr(sqlite3.Connection, "enable_load_extension"):
    import pysqlite3 as sqlite3

TEXTS = ["a quick brown fox", "the stock market fell", "a lazy dog sleeps", "shares and bonds lost value"]


def connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    connection.enable_load_extension(True)
    sqlite_vec.load(connection)
    return connection


def create(connection: sqlite3.Connection, encoder: minisbert.SentenceEncoder, typical: list[str]) -> None:
    """Make the tables, for vectors of which none should be much longer than the typical ones."""
    limit = float(np.abs(encoder.encode(typical)).max())
    connection.execute("CREATE TABLE ranges (lim REAL)")
    connection.execute("INSERT INTO ranges VALUES (?)", [limit])
    size = encoder.get_embedding_dimension()
    connection.execute(f"CREATE VIRTUAL TABLE texts USING vec0(vector int8[{size}], +text TEXT)")


def vectors_of(connection: sqlite3.Connection, encoder, texts: list[str]) -> list[bytes]:
    (limit,) = connection.execute("SELECT lim FROM ranges").fetchone()
    ranges = np.repeat([[-limit], [limit]], encoder.get_embedding_dimension(), axis=1)  # (2, D)
    return [vector.tobytes() for vector in encoder.encode(texts, precision="int8", ranges=ranges)]


def add(connection: sqlite3.Connection, encoder: minisbert.SentenceEncoder, texts: list[str]) -> None:
    rows = zip(vectors_of(connection, encoder, texts), texts, strict=True)
    connection.executemany("INSERT INTO texts (vector, text) VALUES (vec_int8(?), ?)", rows)


def search(connection: sqlite3.Connection, encoder, query: str, k: int) -> list[tuple[str, float]]:
    """Return the k nearest texts, with their distances."""
    (vector,) = vectors_of(connection, encoder, [query])
    select = "SELECT text, distance FROM texts WHERE vector MATCH vec_int8(?) AND k = ? ORDER BY distance"
    return connection.execute(select, [vector, k]).fetchall()


if __name__ == "__main__":
    encoder = minisbert.load(*(sys.argv[1:] or ["sentence-transformers/all-MiniLM-L6-v2"]))
    connection = connect(":memory:")
    create(connection, encoder, TEXTS)
    add(connection, encoder, TEXTS)
    for text, distance in search(connection, encoder, "finance", k=2):
        print(f"{distance:.1f}  {text}")
