"""Recipes for tables: the vectors of each row are those of its text, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import minisbert
from tests.conftest import DATA, FEW
from tests.recipes.conftest import K, Rows, best, recipe

pytestmark = pytest.mark.filterwarnings("default")  # the packages' own

Encoder = minisbert.SentenceEncoder


def with_gaps(texts: list[str]) -> list[str | None]:
    """Put a missing text after every seventh one."""
    return [value for i, text in enumerate(texts) for value in ([text, None] if i % 7 == 6 else [text])]


def test_pandas(
    encoder: Encoder, texts: list[str], queries: list[str], vectors: Rows, cosines: Rows, tmp_path: Path
) -> None:
    pandas_column = recipe("pandas_column", "pandas", "pyarrow")
    import pandas as pd

    gaps = with_gaps(texts)
    frame = pd.DataFrame({"text": gaps}, index=[f"row {i}" for i in range(len(gaps))])
    found = pandas_column.with_vectors(encoder, frame)
    assert found.index.tolist() == [f"row {i}" for i, text in enumerate(gaps) if text]
    np.testing.assert_array_equal(pandas_column.vectors_of(found), vectors)
    found.to_parquet(tmp_path / "frame.parquet")
    read = pd.read_parquet(tmp_path / "frame.parquet", dtype_backend="pyarrow")
    np.testing.assert_array_equal(pandas_column.vectors_of(read), vectors)
    top = pandas_column.most_similar(encoder, found, queries[3], K)
    assert top["text"].tolist() == [texts[row] for row in best(cosines[3])]


def test_polars(
    encoder: Encoder, texts: list[str], queries: list[str], vectors: Rows, cosines: Rows, tmp_path: Path
) -> None:
    polars_column = recipe("polars_column", "polars")
    import polars as pl

    found = polars_column.with_vectors(encoder, pl.DataFrame({"text": with_gaps(texts)}))
    assert found.schema["embedding"] == pl.Array(pl.Float32, 384)
    found.write_parquet(tmp_path / "frame.parquet")
    for frame in (found, pl.read_parquet(tmp_path / "frame.parquet")):
        assert frame["text"].to_list() == texts
        np.testing.assert_array_equal(frame["embedding"].to_numpy(), vectors)
    top = polars_column.most_similar(encoder, found, queries[3], K)
    assert top["text"].to_list() == [texts[row] for row in best(cosines[3])]


def test_daft(encoder: Encoder, texts: list[str], vectors: Rows, tmp_path: Path) -> None:
    daft_column = recipe("daft_column", "daft", "pyarrow")
    import daft

    daft.from_pydict({"id": list(range(400)), "text": (with_gaps(texts) * 2)[:400]}).write_parquet(
        str(tmp_path)
    )
    found = daft_column.with_vectors(encoder, daft.read_parquet(str(tmp_path))).sort("id").to_arrow()
    expected = dict(zip(texts, vectors, strict=True))
    assert found["embedding"].null_count == 0
    assert found["text"].to_pylist() == [text for text in (with_gaps(texts) * 2)[:400] if text]
    rows = [np.float32(row) for row in found["embedding"].to_pylist()]
    np.testing.assert_array_equal(rows, [expected[text] for text in found["text"].to_pylist()])


def test_duckdb(encoder: Encoder, texts: list[str], queries: list[str], vectors: Rows, cosines: Rows) -> None:
    duckdb_sql = recipe("duckdb_sql", "duckdb", "pyarrow")
    connection = duckdb_sql.connect(encoder)
    connection.execute(
        "CREATE TABLE texts AS SELECT t AS text, embed(t) AS embedding FROM unnest($1) AS x(t)",
        [with_gaps(texts)],
    )
    found = dict(connection.execute("SELECT text, embedding FROM texts").fetchall())
    assert found.pop(None) is None
    np.testing.assert_array_equal([np.float32(found[text]) for text in texts], vectors)
    for query, scores in zip(queries, cosines, strict=True):
        rows = duckdb_sql.search(connection, query, K)
        assert [text for text, _ in rows] == [texts[row] for row in best(scores)]
        np.testing.assert_allclose([score for _, score in rows], scores[best(scores)], atol=1e-6)
    connection.close()


def test_pyarrow(encoder: Encoder, texts: list[str], vectors: Rows, tmp_path: Path) -> None:
    pyarrow_parquet = recipe("pyarrow_parquet", "pyarrow")
    import pyarrow as pa
    import pyarrow.parquet as pq

    source, target = tmp_path / "texts.parquet", tmp_path / "vectors.parquet"
    table = pa.table({"id": range(len(texts)), "text": texts})
    pq.write_table(table, source, row_group_size=70)
    pyarrow_parquet.embed_file(encoder.path, source, target)
    found = pq.read_table(target)
    assert found.drop_columns("embedding") == table
    np.testing.assert_array_equal(np.stack(found["embedding"].to_numpy()), vectors)


def test_pyarrow_leaves_nothing_half_written(tmp_path: Path) -> None:
    pyarrow_parquet = recipe("pyarrow_parquet", "pyarrow")
    import pyarrow as pa
    import pyarrow.parquet as pq

    source, target = tmp_path / "texts.parquet", tmp_path / "vectors.parquet"
    pq.write_table(pa.table({"text": [*FEW, None]}), source)
    with pytest.raises(minisbert.EncodeTypeError, match=r"column 'text', row 6 of .*texts.parquet .*is null"):
        pyarrow_parquet.embed_file(DATA / "tiny-bert", source, target)
    assert [path.name for path in tmp_path.iterdir()] == ["texts.parquet"]


def test_datasets(copy_of: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets_map = recipe("datasets_map", "datasets")
    from datasets import Dataset

    Dataset.from_dict({"text": FEW}).to_parquet(tmp_path / "texts.parquet")
    dataset = Dataset.from_parquet(str(tmp_path / "texts.parquet"), cache_dir=str(tmp_path / "cache"))
    folder = copy_of("tiny-bert")

    def computed() -> tuple[Any, Rows, int]:
        """Return the table, the vectors as they should be, and how often `encode` was called for the table."""
        calls = []
        encoder = minisbert.load(folder)
        expected = encoder.encode(FEW)
        with monkeypatch.context() as patch:
            encode = Encoder.encode
            patch.setattr(Encoder, "encode", lambda *a, **k: calls.append(1) or encode(*a, **k))
            return datasets_map.with_vectors(encoder, dataset), expected, len(calls)

    table, old, calls = computed()
    assert (str(table.features["embedding"]), calls) == ("List(Value('float32'), length=75)", 1)
    np.testing.assert_array_equal(table.with_format("numpy")["embedding"][:], old)
    assert computed()[2] == 0  # out of the cache
    save_file({name: 2 * x for name, x in load_file(folder / "model.safetensors").items()}, folder / "new")
    (folder / "new").replace(folder / "model.safetensors")
    table, new, calls = computed()
    assert calls == 1
    assert (new != old).any()
    np.testing.assert_array_equal(table.with_format("numpy")["embedding"][:], new)
