"""Chroma: a collection that a new process opens by itself, with the right model or none."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("chromadb")

import chromadb

import minisbert
from minisbert.adapters.chroma import MinisbertEmbeddingFunction
from tests.conftest import DATA, edit_json
from tests.support.stores import QUERIES, TOP, corpus, exact_search, in_new_process

TINY_BERT = DATA / "tiny-bert"


def open_client(folder: str) -> chromadb.ClientAPI:
    return chromadb.PersistentClient(folder, chromadb.Settings(anonymized_telemetry=False))


def fill(folder: str, model: str) -> int:
    collection = open_client(folder).create_collection(
        "texts", embedding_function=MinisbertEmbeddingFunction(model)
    )
    texts = corpus()
    collection.add(ids=[str(i) for i in range(len(texts))], documents=texts)
    return collection.count()


def ask(folder: str) -> list[list[int]]:
    found = open_client(folder).get_collection("texts").query(query_texts=QUERIES, n_results=TOP)
    return [[int(i) for i in ids] for ids in found["ids"]]


def refusal(folder: str) -> str:
    """What is said when the collection is asked."""
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


def test_its_vectors_are_the_encoders() -> None:
    prompts = {"query": "find: ", "document": "text: "}
    function = MinisbertEmbeddingFunction(TINY_BERT, prompts=prompts, truncate_dim=9)
    encoder = minisbert.load(TINY_BERT)
    encoder.prompts, encoder.truncate_dim = prompts, 9
    np.testing.assert_array_equal(function(["a", "b"]), encoder.encode_document(["a", "b"]))
    np.testing.assert_array_equal(function.embed_query(["a"]), encoder.encode_query(["a"]))
    assert MinisbertEmbeddingFunction(TINY_BERT, dtype="float64")(["a"])[0].dtype == np.float32


def test_its_configuration_is_its_settings() -> None:
    function = MinisbertEmbeddingFunction(TINY_BERT, truncate_dim=9)
    config = function.get_config()
    assert config == {"model": str(TINY_BERT), "truncate_dim": 9, "fingerprint": config["fingerprint"]}
    assert function.build_from_config(config).spec.truncate_dim == 9
    function.validate_config(config)
    with pytest.raises(minisbert.EncodeTypeError, match="has no setting 'devise'"):
        function.validate_config({"model": "a", "devise": "cuda"})
    with pytest.raises(minisbert.EncodeTypeError, match="has no setting 'devise'"):
        MinisbertEmbeddingFunction(TINY_BERT, devise="cuda")
    assert not function.is_legacy()


@pytest.mark.parametrize(
    ("similarity", "space"), [("cosine", "cosine"), ("dot", "ip"), ("euclidean", "l2"), ("manhattan", "l2")]
)
def test_the_distance_is_the_checkpoints(similarity: str, space: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(TINY_BERT, folder)
    edit_json(folder / "config_sentence_transformers.json", similarity_fn_name=similarity)
    assert MinisbertEmbeddingFunction(folder).default_space() == space
