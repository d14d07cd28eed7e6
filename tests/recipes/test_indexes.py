"""Recipes for indexes and databases of vectors: what they find is what NumPy finds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minisbert
from tests.recipes.conftest import K, Rows, best, recipe, share

pytestmark = pytest.mark.filterwarnings("default")  # the packages' own

Encoder = minisbert.SentenceEncoder
COSINE_TOLERANCE = 1e-6  # float32 sums of 384 products, in whatever order


def test_faiss(encoder: Encoder, texts: list[str], queries: list[str], cosines: Rows) -> None:
    faiss_index = recipe("faiss_index", "faiss")
    found = faiss_index.search(encoder, faiss_index.build(encoder, texts), queries, K)
    np.testing.assert_array_equal(found, best(cosines))


def test_faiss_of_bits(encoder: Encoder, texts: list[str], queries: list[str], vectors: Rows) -> None:
    faiss_index = recipe("faiss_index", "faiss")
    distances, rows = faiss_index.search_binary(encoder, faiss_index.build_binary(encoder, texts), queries, K)
    signs = encoder.encode(queries)[:, np.newaxis] > 0
    expected = (signs != (vectors > 0)).sum(axis=-1)  # (Q, S)
    np.testing.assert_array_equal(distances, np.sort(expected, axis=1)[:, :K])
    np.testing.assert_array_equal(distances, np.take_along_axis(expected, rows, axis=1))


def test_hnswlib(
    encoder: Encoder, texts: list[str], queries: list[str], cosines: Rows, tmp_path: Path
) -> None:
    hnswlib_index = recipe("hnswlib_index", "hnswlib")
    path = str(tmp_path / "index")
    hnswlib_index.build(encoder, texts, path)
    assert share(hnswlib_index.search(encoder, path, queries, K), best(cosines)) > 0.99


def test_usearch(encoder: Encoder, queries: list[str], vectors: Rows, cosines: Rows) -> None:
    usearch_index = recipe("usearch_index", "usearch")
    index = usearch_index.build(encoder, vectors)
    found = np.array([usearch_index.search(encoder, index, vectors, query, K) for query in queries])
    ordered = np.take_along_axis(cosines, found, axis=1)
    assert (np.diff(ordered, axis=1) <= COSINE_TOLERANCE).all()
    assert share(found, best(cosines)) > 0.98


def test_qdrant(
    encoder: Encoder, texts: list[str], queries: list[str], cosines: Rows, tmp_path: Path
) -> None:
    qdrant_local = recipe("qdrant_local", "qdrant_client")
    kinds = ["even" if row % 2 == 0 else "odd" for row in range(len(texts))]
    client = qdrant_local.QdrantClient(path=str(tmp_path))
    qdrant_local.build(client, encoder, texts, kinds)
    odd = np.where(np.arange(len(texts)) % 2, cosines, -np.inf)
    for query, scores in zip(queries, odd, strict=True):
        points = qdrant_local.search(client, encoder, query, "odd", K)
        assert [point.id for point in points] == best(scores).tolist()
        assert [point.payload["text"] for point in points] == [texts[row] for row in best(scores)]
        found = [point.score for point in points]
        np.testing.assert_allclose(found, scores[best(scores)], atol=COSINE_TOLERANCE)
    client.close()


def test_sqlite_vec(
    encoder: Encoder, texts: list[str], queries: list[str], cosines: Rows, tmp_path: Path
) -> None:
    recipe_ = recipe("sqlite_vec_table", "sqlite_vec")
    connection = recipe_.connect(str(tmp_path / "texts.db"))
    recipe_.create(connection, encoder, texts)
    for first in range(0, len(texts), 100):  # in several calls, which use the same ranges
        recipe_.add(connection, encoder, texts[first : first + 100])
    connection.commit()
    connection.close()
    connection = recipe_.connect(str(tmp_path / "texts.db"))
    (limit,) = connection.execute("SELECT lim FROM ranges").fetchone()
    ranges = np.repeat([[-limit], [limit]], 384, axis=1)
    stored = encoder.encode(texts, precision="int8", ranges=ranges).astype(np.int64)
    asked = encoder.encode(queries, precision="int8", ranges=ranges).astype(np.int64)
    expected = np.sqrt(((asked[:, np.newaxis] - stored) ** 2).sum(axis=-1))
    found = [recipe_.search(connection, encoder, query, K) for query in queries]
    connection.close()
    np.testing.assert_allclose(
        [[distance for _, distance in rows] for rows in found], np.sort(expected, axis=1)[:, :K], rtol=1e-6
    )
    rows = np.array([[texts.index(text) for text, _ in rows] for rows in found])
    assert share(rows, best(cosines)) > 0.95


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a PostgreSQL with pgvector."""
    pgserver: Any = pytest.importorskip("pgserver", reason="a PostgreSQL with pgvector is optional")
    with pgserver.get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="stop") as server:
        yield server.get_uri()


def test_pgvector(
    encoder: Encoder, texts: list[str], queries: list[str], vectors: Rows, cosines: Rows, postgres: str
) -> None:
    pgvector_table = recipe("pgvector_table", "psycopg")
    import psycopg

    with psycopg.connect(postgres) as connection:
        pgvector_table.create(connection, encoder, texts)
        stored = connection.execute("SELECT text, embedding::text FROM texts ORDER BY id").fetchall()
        assert [text for text, _ in stored] == texts
        np.testing.assert_array_equal(
            [np.fromstring(row[1:-1], np.float32, sep=",") for _, row in stored], vectors
        )
        for query, scores in zip(queries, cosines, strict=True):
            found = pgvector_table.search(connection, encoder, query, K)
            assert [text for text, _ in found] == [texts[row] for row in best(scores)]
            np.testing.assert_allclose(
                [score for _, score in found], scores[best(scores)], atol=COSINE_TOLERANCE
            )
