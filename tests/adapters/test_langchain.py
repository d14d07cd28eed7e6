"""LangChain: its own tests, the same vectors as `encode`, and documents in the order of the cross-encoder."""

from __future__ import annotations

import asyncio
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("langchain_core")

from langchain_core.documents import Document
from langchain_core.vectorstores import InMemoryVectorStore

import minisbert
from minisbert.adapters.langchain import MinisbertEmbeddings, MinisbertReranker
from tests.conftest import DATA
from tests.support.stores import QUERIES, TOP, corpus, exact_search

TINY_BERT = DATA / "tiny-bert"
CROSS = DATA / "cross-bert"


try:
    from langchain_tests.integration_tests import EmbeddingsIntegrationTests
    from langchain_tests.unit_tests import EmbeddingsUnitTests
except ImportError:
    pass
else:

    class TestUnit(EmbeddingsUnitTests):
        embeddings_class = MinisbertEmbeddings
        embedding_model_params = property(lambda self: {"model": str(TINY_BERT)})

    class TestIntegration(EmbeddingsIntegrationTests):
        embeddings_class = MinisbertEmbeddings
        embedding_model_params = property(lambda self: {"model": str(TINY_BERT)})


def test_its_vectors_are_the_encoders() -> None:
    prompts = {"query": "find: ", "document": "text: "}
    embeddings = MinisbertEmbeddings(
        model=TINY_BERT, truncate_dim=9, normalize_embeddings=True, prompts=prompts
    )
    encoder = minisbert.load(TINY_BERT)
    encoder.prompts, encoder.truncate_dim = prompts, 9
    texts = corpus()[:20]
    with pytest.warns(minisbert.TruncationWarning):
        found = embeddings.embed_documents(texts)
    with pytest.warns(minisbert.TruncationWarning):
        assert found == encoder.encode_document(texts, normalize_embeddings=True).tolist()
    assert embeddings.embed_query("a") == encoder.encode_query("a", normalize_embeddings=True).tolist()
    assert embeddings.embed_documents([]) == []
    with pytest.raises(minisbert.EncodeTypeError, match=r"sentence 0 is list \['a'\]; expected a string"):
        embeddings.embed_query(["a"])


def test_many_asynchronous_calls_at_once_are_right() -> None:
    embeddings = MinisbertEmbeddings(model=TINY_BERT)
    texts = [f"number {i}" for i in range(32)]

    async def ask() -> list[list[float]]:
        return await asyncio.gather(*map(embeddings.aembed_query, texts))

    assert asyncio.run(ask()) == embeddings.embed_documents(texts)


def test_a_pickle_is_small_and_a_setting_can_be_changed() -> None:
    embeddings = MinisbertEmbeddings(model=TINY_BERT)
    embeddings.embed_query("now it has an encoder")
    pickled = pickle.dumps(embeddings)
    assert len(pickled) < 700
    assert pickle.loads(pickled) == embeddings
    embeddings.truncate_dim = 3
    assert len(embeddings.embed_query("a")) == 3


@pytest.mark.parametrize("settings", [{}, {"model": TINY_BERT, "devise": "cuda"}, {"model": 3}])
def test_what_is_no_setting_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="validation error for MinisbertEmbeddings"):
        MinisbertEmbeddings(**settings)


def test_a_store_finds_what_numpy_finds(minilm: Path) -> None:
    texts = corpus()
    store = InMemoryVectorStore.from_texts(texts, MinisbertEmbeddings(model=minilm))
    found = [
        [texts.index(d.page_content) for d in store.similarity_search(query, k=TOP)] for query in QUERIES
    ]
    assert found == exact_search(str(minilm))


def test_the_reranker_has_the_cross_encoders_order() -> None:
    documents = [Document(text, metadata={"row": i}) for i, text in enumerate(corpus()[:8])]
    reranker = MinisbertReranker(model=CROSS, top_n=3, max_seq_length=40)
    model = minisbert.load_cross_encoder(CROSS)
    model.max_seq_length = 40
    ranked = model.rank("a question", [d.page_content for d in documents], top_k=3, truncation="silent")
    with pytest.warns(minisbert.TruncationWarning):
        found = reranker.compress_documents(documents, "a question")
    assert [d.metadata["row"] for d in found] == [best["corpus_id"] for best in ranked]
    assert [d.metadata["relevance_score"] for d in found] == [best["score"] for best in ranked]
    assert "relevance_score" not in documents[0].metadata
    assert reranker.compress_documents([], "a question") == []
    assert asyncio.run(reranker.acompress_documents(documents[:1], "a question"))[0].metadata["row"] == 0


def test_the_reranker_refuses_a_model_of_several_labels() -> None:
    reranker = MinisbertReranker(model=DATA / "cross-labels")
    with pytest.raises(minisbert.EncodeValueError, match="rank needs a cross-encoder with one label"):
        reranker.compress_documents([Document("a")], "b")


def test_scores_are_numbers_that_json_has() -> None:
    [document] = MinisbertReranker(model=CROSS).compress_documents([Document("a")], "b")
    assert type(document.metadata["relevance_score"]) is float
    assert np.isfinite(document.metadata["relevance_score"])
