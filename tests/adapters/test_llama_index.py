"""LlamaIndex: an index that a new process opens, real batches, a free event loop, and a reranker."""

from __future__ import annotations

import asyncio
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llama_index.core")

from llama_index.core import Settings, StorageContext, VectorStoreIndex, load_index_from_storage
from llama_index.core.schema import NodeWithScore, TextNode

import minisbert
from minisbert.adapters.llama_index import MinisbertEmbedding, MinisbertRerank
from tests.conftest import DATA
from tests.support.stores import QUERIES, TOP, corpus, exact_search, in_new_process

TINY_BERT = DATA / "tiny-bert"
CROSS = DATA / "cross-bert"


def fill(folder: str, model: str) -> int:
    """Store the corpus, and beside it what the embedding says of itself."""
    embedding = MinisbertEmbedding(model_name=model)
    nodes = [TextNode(id_=str(i), text=text) for i, text in enumerate(corpus())]
    VectorStoreIndex(nodes, embed_model=embedding).storage_context.persist(folder)
    Path(folder, "embedding.json").write_text(embedding.to_json(), encoding="utf-8")
    return len(nodes)


def ask(folder: str) -> list[list[int]]:
    Settings.embed_model = MinisbertEmbedding.from_json(
        Path(folder, "embedding.json").read_text(encoding="utf-8")
    )
    index = load_index_from_storage(StorageContext.from_defaults(persist_dir=folder))
    retriever = index.as_retriever(similarity_top_k=TOP)
    return [[int(found.node.node_id) for found in retriever.retrieve(query)] for query in QUERIES]


def test_a_new_process_finds_what_numpy_finds(minilm: Path, tmp_path: Path) -> None:
    assert in_new_process(fill, str(tmp_path), str(minilm)) == len(corpus())
    assert in_new_process(ask, str(tmp_path)) == exact_search(str(minilm))


def test_its_vectors_are_the_encoders_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = {"query": "find: ", "document": "text: "}
    embedding = MinisbertEmbedding(model_name=TINY_BERT, truncate_dim=9, prompts=prompts)
    encoder = minisbert.load(TINY_BERT)
    encoder.prompts, encoder.truncate_dim = prompts, 9
    calls = []
    encode = minisbert.SentenceEncoder.encode
    monkeypatch.setattr(
        minisbert.SentenceEncoder,
        "encode",
        lambda self, texts, **k: calls.append(texts) or encode(self, texts, **k),
    )
    texts = [f"number {i}" for i in range(100)]
    found = embedding.get_text_embedding_batch(texts)
    assert len(calls) == 1
    assert found == encoder.encode_document(texts).tolist()
    assert embedding.get_query_embedding("a") == encoder.encode_query("a").tolist()
    assert embedding.get_text_embedding("a") == encoder.encode_document("a").tolist()


def test_asynchronous_calls_leave_the_event_loop_free(monkeypatch: pytest.MonkeyPatch) -> None:
    embedding = MinisbertEmbedding(model_name=TINY_BERT)
    texts = [f"number {i}" for i in range(40)]
    expected = embedding.get_text_embedding_batch(texts)
    threads = []
    encode = minisbert.SentenceEncoder.encode

    def noted(self: Any, *args: Any, **kwargs: Any) -> Any:
        threads.append(threading.current_thread())
        return encode(self, *args, **kwargs)

    monkeypatch.setattr(minisbert.SentenceEncoder, "encode", noted)

    async def ask_all() -> list[Any]:
        return [
            await embedding.aget_text_embedding_batch(texts),
            await embedding.aget_text_embedding(texts[0]),
            await embedding.aget_query_embedding(texts[0]),
        ]

    found = asyncio.run(ask_all())
    assert found == [expected, expected[0], expected[0]]
    assert threading.main_thread() not in threads
    assert len(threads) == 3


def test_what_it_is_goes_through_dicts_and_pickles() -> None:
    for made in (
        MinisbertEmbedding(model_name=TINY_BERT, truncate_dim=9, embed_batch_size=7),
        MinisbertRerank(model=CROSS, top_n=1, activation_fn="Identity"),
    ):
        again = type(made).from_dict(made.to_dict())
        assert again.spec == made.spec
        assert again.to_dict() == made.to_dict()
        assert len(pickle.dumps(made)) < 2_000
        assert pickle.loads(pickle.dumps(made)).spec == made.spec
    assert MinisbertEmbedding(model_name=TINY_BERT).to_payload()["model_name"] == str(TINY_BERT)


@pytest.mark.parametrize("settings", [{}, {"model_name": TINY_BERT, "devise": "cuda"}, {"model_name": 3}])
def test_what_is_no_setting_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error for MinisbertEmbedding"):
        MinisbertEmbedding(**settings)


def test_the_reranker_has_the_cross_encoders_order() -> None:
    texts = [f"number {i}" for i in range(8)]
    nodes = [NodeWithScore(node=TextNode(id_=str(i), text=text), score=0.5) for i, text in enumerate(texts)]
    ranked = minisbert.load_cross_encoder(CROSS).rank("a question", texts, top_k=3)
    found = MinisbertRerank(model=CROSS, top_n=3).postprocess_nodes(nodes, query_str="a question")
    assert [int(node.node.node_id) for node in found] == [best["corpus_id"] for best in ranked]
    assert [node.score for node in found] == [best["score"] for best in ranked]
    assert {node.score for node in nodes} == {0.5}
    assert MinisbertRerank(model=CROSS).postprocess_nodes([], query_str="a question") == []
    with pytest.raises(minisbert.EncodeValueError, match="there is no query"):
        MinisbertRerank(model=CROSS).postprocess_nodes(nodes)
