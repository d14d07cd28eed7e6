"""A column of texts to one of vectors, in Arrow: the part that Ray, Spark and Dask have in common."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="pyarrow is optional")

import pyarrow as pa

import minisbert
from minisbert.adapters.arrow import column_embedder
from minisbert.adapters.spec import EncoderSpec
from tests.conftest import DATA, FEW

TINY = DATA / "tiny-bert"


def vectors_of(column: Any) -> np.ndarray[Any, Any]:
    return np.stack([row.values.to_numpy() for row in column])


@pytest.mark.parametrize(
    "make",
    [
        pa.array,
        lambda texts: pa.array(texts, pa.large_string()),
        lambda texts: pa.array(texts).dictionary_encode(),
        lambda texts: pa.chunked_array([texts[:2], [], texts[2:]]),
    ],
    ids=["strings", "large strings", "dictionary", "chunks"],
)
def test_vectors_are_appended(bert: minisbert.SentenceEncoder, make: Any) -> None:
    table = pa.table({"id": range(len(FEW)), "text": make(FEW)})
    embedder = column_embedder(TINY, "text", "vector")
    found = embedder(table)
    assert found.schema.field("vector").type == pa.list_(pa.float32(), 75)
    assert found.drop_columns("vector") == table
    np.testing.assert_array_equal(vectors_of(found["vector"]), bert.encode(FEW))
    assert (
        embedder(table.combine_chunks().to_batches()[0]).column("vector") == found["vector"].combine_chunks()
    )
    assert embedder(table.slice(0, 0)).schema == found.schema


NULLS = pa.DictionaryArray.from_arrays([0, 1], pa.array(["a", None]))
LATIN = pa.StringArray.from_buffers(2, pa.array([0, 1, 2], pa.int32()).buffers()[1], pa.py_buffer(b"a\xe9"))


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            {"text": ["a", None]},
            r"column 'text', row 1 of the batch \({'id': 8}\): is null; expected a string",
        ),
        ({"text": [None, None]}, r"row 0 of the batch \({'id': 7}\): is null"),
        ({"text": NULLS}, r"row 1 of the batch \({'id': 8}\): is null"),
        ({"text": LATIN}, r"column 'text', row 1 of the batch \({'id': 8}\): is not UTF-8"),
        ({"text": [1, 2]}, "column 'text' is int64; expected strings"),
        ({"text": [["a"], ["b"]]}, "column 'text' is list<.*>; expected strings"),
        ({"texts": ["a", "b"]}, r"column 'text' is there 0 times; expected it once, in \['id', 'texts'\]"),
        ({"text": ["a", "b"], "vector": [1, 2]}, "column 'vector' is there already; name another"),
    ],
)
def test_bad_columns_are_named(columns: dict[str, Any], message: str) -> None:
    embedder = column_embedder(TINY, "text", "vector")
    with pytest.raises(minisbert.MinisbertError, match=message):
        embedder(pa.table({"id": [7, 8], **columns}))


def test_other_columns_may_share_a_name(bert: minisbert.SentenceEncoder) -> None:
    table = pa.Table.from_arrays([pa.array(FEW)] * 3, names=["other", "text", "other"])
    found = column_embedder(TINY, "text", "vector")(table)
    assert found.column_names == ["other", "text", "other", "vector"]
    np.testing.assert_array_equal(vectors_of(found["vector"]), bert.encode(FEW))


def test_rows_are_counted_through_batches() -> None:
    embedder = column_embedder(TINY, "text", "vector")
    with pytest.raises(minisbert.EncodeTypeError, match=r"row 1025 of partition 3 \({}\)"):
        embedder(pa.table({"text": ["a", None]}), 1024, "partition 3")


def test_other_files_on_a_worker_are_refused(copy_of: Any) -> None:
    folder: Path = copy_of("tiny-bert")
    sent = pickle.dumps(column_embedder(folder, "text", "vector"))
    pickle.loads(sent)(pa.table({"text": FEW}))
    weights = folder / "model.safetensors"
    other = bytearray(weights.read_bytes())
    other[-1] ^= 1
    weights.with_suffix(".new").write_bytes(other)
    weights.with_suffix(".new").replace(weights)
    with pytest.raises(minisbert.CheckpointError, match="is not the checkpoint that was meant"):
        pickle.loads(sent)(pa.table({"text": FEW}))


def test_a_relative_folder_is_sent_as_an_absolute_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(DATA)
    embedder = column_embedder(EncoderSpec("tiny-bert", truncate_dim=5, num_threads=1), "text", "vector")
    monkeypatch.chdir(tmp_path)
    table = pickle.loads(pickle.dumps(embedder))(pa.table({"text": FEW}))
    assert table.schema.field("vector").type.list_size == 5


def test_a_missing_checkpoint_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(minisbert.CheckpointNotFoundError, match="nowhere"):
        column_embedder(tmp_path / "nowhere", "text", "vector")
    with pytest.raises(minisbert.EncodeTypeError, match="model is SentenceEncoder"):
        column_embedder(minisbert.load(TINY), "text", "vector")
