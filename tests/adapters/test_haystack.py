"""Haystack: pipelines that a new process loads with no setting, and finds the same with."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("haystack")

from haystack import Document, Pipeline
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.document_stores.in_memory import InMemoryDocumentStore

import minisbert
from minisbert.adapters.haystack import MinisbertDocumentEmbedder, MinisbertRanker, MinisbertTextEmbedder
from tests.conftest import DATA
from tests.support.stores import QUERIES, TOP, corpus, exact_search, in_new_process

TINY_BERT = DATA / "tiny-bert"
CROSS = DATA / "cross-bert"


def fill(folder: str, model: str) -> int:
    """Store the corpus, and a pipeline that searches in it."""
    store = InMemoryDocumentStore()
    documents = [Document(id=str(i), content=text) for i, text in enumerate(corpus())]
    store.write_documents(MinisbertDocumentEmbedder(model).run(documents)["documents"])
    store.save_to_disk(f"{folder}/store.json")
    pipeline = Pipeline()
    pipeline.add_component("embedder", MinisbertTextEmbedder(model))
    Path(folder, "pipeline.yaml").write_text(pipeline.dumps(), encoding="utf-8")
    return store.count_documents()


def ask(folder: str) -> list[list[int]]:
    pipeline = Pipeline.loads(Path(folder, "pipeline.yaml").read_text(encoding="utf-8"))
    store = InMemoryDocumentStore.load_from_disk(f"{folder}/store.json")
    pipeline.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=TOP))
    pipeline.connect("embedder.embedding", "retriever.query_embedding")
    found = [pipeline.run({"embedder": {"text": query}})["retriever"]["documents"] for query in QUERIES]
    return [[int(document.id) for document in documents] for documents in found]


def test_a_new_process_finds_what_numpy_finds(minilm: Path, tmp_path: Path) -> None:
    assert in_new_process(fill, str(tmp_path), str(minilm)) == len(corpus())
    assert in_new_process(ask, str(tmp_path)) == exact_search(str(minilm))


COMPONENTS = [
    MinisbertTextEmbedder(TINY_BERT, truncate_dim=9, prompts={"query": "find: "}),
    MinisbertDocumentEmbedder(TINY_BERT, meta_fields_to_embed=["title"], embedding_separator=" | "),
    MinisbertRanker(CROSS, top_k=2, activation_fn="Identity"),
]


@pytest.mark.parametrize("made", COMPONENTS, ids=lambda made: type(made).__name__)
def test_a_pipeline_loads_it_again(made: Any) -> None:
    pipeline = Pipeline()
    pipeline.add_component("it", made)
    written = pipeline.dumps()
    assert "type: haystack_integrations.components." in written
    again = Pipeline.loads(written).get_component("it")
    assert type(again) is type(made)
    assert (again.spec, again.options) == (made.spec, made.options)


def test_vectors_are_the_encoders() -> None:
    prompts = {"query": "find: ", "document": "text: "}
    encoder = minisbert.load(TINY_BERT)
    encoder.prompts = prompts
    documents = [Document(content="a", meta={"title": "one"}), Document(content="b"), Document()]
    embedder = MinisbertDocumentEmbedder(TINY_BERT, prompts=prompts, meta_fields_to_embed=["title", "none"])
    embedder.warm_up()
    found = embedder.run(documents)["documents"]
    assert [d.embedding for d in found] == encoder.encode_document(["one\na", "b", ""]).tolist()
    assert [d.id for d in found] == [d.id for d in documents]
    assert documents[0].embedding is None
    assert embedder.run([])["documents"] == []
    found = MinisbertTextEmbedder(TINY_BERT, prompts=prompts).run("a")
    assert found["embedding"] == encoder.encode_query("a").tolist()


def test_the_ranker_has_the_cross_encoders_order() -> None:
    texts = [f"number {i}" for i in range(8)]
    documents = [Document(id=str(i), content=text, score=0.5) for i, text in enumerate(texts)]
    ranked = minisbert.load_cross_encoder(CROSS).rank("a question", texts)
    ranker = MinisbertRanker(CROSS, top_k=3)
    found = ranker.run(query="a question", documents=documents)["documents"]
    assert [int(d.id) for d in found] == [best["corpus_id"] for best in ranked[:3]]
    assert [d.score for d in found] == [best["score"] for best in ranked[:3]]
    assert len(ranker.run(query="a question", documents=documents, top_k=5)["documents"]) == 5
    assert ranker.run(query="a question", documents=[])["documents"] == []


def test_what_is_the_other_ones_input_is_refused() -> None:
    with pytest.raises(
        minisbert.EncodeTypeError, match="expected a string, and documents for a MinisbertDocument"
    ):
        MinisbertTextEmbedder(TINY_BERT).run([Document(content="a")])
    with pytest.raises(
        minisbert.EncodeTypeError, match=r"document 1 is 'text'; expected a haystack\.Document"
    ):
        MinisbertDocumentEmbedder(TINY_BERT).run([Document(content="a"), "text"])
    with pytest.raises(minisbert.EncodeTypeError, match="has no setting 'devise'"):
        MinisbertTextEmbedder(TINY_BERT, devise="cuda")


def test_pipelines_run_it_asynchronously() -> None:
    pipeline = Pipeline()
    pipeline.add_component("it", MinisbertTextEmbedder(TINY_BERT))
    found = asyncio.run(pipeline.run_async({"it": {"text": "a"}}))
    assert found["it"]["embedding"] == minisbert.load(TINY_BERT).encode("a").tolist()
