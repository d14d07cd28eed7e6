"""LanceDB: a table that a new process opens by itself, with the right model or none, and errors that come at once."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lancedb")

import lancedb
from lancedb.pydantic import LanceModel, Vector

import minisbert
from minisbert.adapters.lancedb import MinisbertEmbeddings
from tests.conftest import DATA, edit_json
from tests.support.stores import QUERIES, TOP, corpus, exact_search, in_new_process

TINY_BERT = DATA / "tiny-bert"


def create_table(folder: str, **settings: Any) -> Any:
    function = MinisbertEmbeddings.create(**settings)

    class Row(LanceModel):
        number: int
        text: str = function.SourceField()
        vector: Vector(function.ndims()) = function.VectorField()

    return lancedb.connect(folder).create_table("texts", schema=Row)


def fill(folder: str, model: str) -> int:
    table = create_table(folder, model=model)
    table.add([{"number": i, "text": text} for i, text in enumerate(corpus())])
    return table.count_rows()


def ask(folder: str) -> list[list[int]]:
    table = lancedb.connect(folder).open_table("texts")
    found = [table.search(query).distance_type("cosine").limit(TOP).to_list() for query in QUERIES]
    return [[row["number"] for row in rows] for rows in found]


def refusal(folder: str) -> str:
    """What is said when the table is asked."""
    try:
        ask(folder)
    except minisbert.CheckpointError as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def test_a_new_process_finds_what_numpy_finds(minilm: Path, tmp_path: Path) -> None:
    assert in_new_process(fill, str(tmp_path), str(minilm)) == len(corpus())
    assert in_new_process(ask, str(tmp_path)) == exact_search(str(minilm))


def test_other_weights_than_it_was_filled_with_are_refused(tmp_path: Path) -> None:
    model, folder = tmp_path / "model", str(tmp_path / "store")
    shutil.copytree(TINY_BERT, model)
    in_new_process(fill, folder, str(model))
    assert in_new_process(refusal, folder) == "nothing"
    edit_json(model / "1_Pooling" / "config.json", pooling_mode="cls")
    assert "is not the checkpoint that was meant" in in_new_process(refusal, folder)


def test_its_vectors_are_the_encoders(tmp_path: Path) -> None:
    prompts = {"query": "find: ", "document": "text: "}
    table = create_table(str(tmp_path), model=TINY_BERT, prompts=prompts, truncate_dim=9)
    encoder = minisbert.load(TINY_BERT)
    encoder.prompts, encoder.truncate_dim = prompts, 9
    table.add([{"number": 0, "text": "a"}])
    assert table.to_pandas()["vector"][0].tolist() == encoder.encode_document("a").tolist()
    function = MinisbertEmbeddings.create(model=str(TINY_BERT), prompts=prompts, truncate_dim=9)
    assert function.compute_query_embeddings("a")[0].tolist() == encoder.encode_query("a").tolist()


def test_an_error_comes_at_once(tmp_path: Path) -> None:
    function = MinisbertEmbeddings.create(model=str(TINY_BERT))
    start = time.perf_counter()
    with pytest.raises(minisbert.EncodeTypeError, match="sentence 1 is NoneType None"):
        function.compute_source_embeddings_with_retry(["a", None])
    assert time.perf_counter() - start < 1
    with pytest.raises(ValueError, match="validation error"):
        MinisbertEmbeddings.create(model=str(TINY_BERT), devise="cuda")
