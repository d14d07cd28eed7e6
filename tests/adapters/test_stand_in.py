"""Frameworks' own classes for sentence-transformers run without it and without torch: the vectors are `encode`'s."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minisbert
from tests.conftest import DATA
from tests.support.stores import corpus, in_new_process

CROSS = str(DATA / "cross-bert")
BEFORE = "import minisbert\nminisbert.as_sentence_transformers()\n"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("torch") is not None,
    reason="torch is here, and the frameworks are to do without",
)


def same(found: Any, model: str, **options: Any) -> bool:
    """Whether these are the vectors of the first texts, bit for bit, and nobody has found a torch."""
    expected = minisbert.load(model).encode(texts(), **options)
    return np.array_equal(np.asarray(found, np.float32), expected) and "torch" not in sys.modules


def texts() -> list[str]:
    return [" ".join(text.split()) for text in corpus()[:60]]


def bertopic(model: str) -> bool:
    from bertopic import BERTopic
    from sentence_transformers import SentenceTransformer
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    steps = {"umap_model": PCA(5), "hdbscan_model": KMeans(4, n_init="auto", random_state=0)}
    for embedding_model in (model, SentenceTransformer(model)):
        topics = BERTopic(embedding_model=embedding_model, **steps)
        found, _ = topics.fit_transform(texts())
    return len(set(found)) == 4 and same(topics.embedding_model.embed(texts()), model)


def bertopic_with_a_pipeline(model: str) -> bool:
    """Which needs no stand-in."""
    from bertopic import BERTopic
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.pipeline import make_pipeline

    from minisbert.adapters.sklearn import SentenceVectorizer

    pipeline = make_pipeline(SentenceVectorizer(model))
    kmeans = KMeans(4, n_init="auto", random_state=0)
    topics = BERTopic(embedding_model=pipeline, umap_model=PCA(5), hdbscan_model=kmeans)
    found, _ = topics.fit_transform(texts())
    return len(set(found)) == 4 and same(topics.embedding_model.embed(texts()), model)


def keybert(model: str) -> bool:
    from keybert import KeyBERT

    keywords = KeyBERT(model)
    assert len(keywords.extract_keywords("A cat sits on the mat, and purrs.", top_n=2)) == 2
    return same(keywords.model.embed(texts()), model)


def chroma(model: str, folder: str) -> bool:
    import chromadb
    from chromadb.utils.embedding_functions import SentenceTransformerEmbeddingFunction

    function = SentenceTransformerEmbeddingFunction(model)
    settings = chromadb.Settings(anonymized_telemetry=False)
    collection = chromadb.PersistentClient(folder, settings).create_collection(
        "texts", embedding_function=function
    )
    collection.add(ids=[str(i) for i in range(60)], documents=texts())
    return same(function(texts()), model)


def chroma_again(folder: str) -> bool:
    """Open the collection, which names sentence-transformers' function and the model."""
    import chromadb

    settings = chromadb.Settings(anonymized_telemetry=False)
    collection = chromadb.PersistentClient(folder, settings).get_collection("texts")
    return collection.query(query_texts=[texts()[7]], n_results=1)["ids"] == [["7"]]


def langchain(model: str) -> bool:
    from langchain_huggingface import HuggingFaceEmbeddings

    options = {"normalize_embeddings": True}
    embeddings = HuggingFaceEmbeddings(model=model, model_kwargs={"device": "cpu"}, encode_kwargs=options)
    assert embeddings.embed_query(texts()[0]) == embeddings.embed_documents(texts())[0]
    return same(embeddings.embed_documents(texts()), model, **options)


def langchain_reranker(model: str) -> bool:
    from langchain_classic.retrievers.document_compressors import CrossEncoderReranker
    from langchain_community.cross_encoders import HuggingFaceCrossEncoder
    from langchain_core.documents import Document

    reranker = CrossEncoderReranker(model=HuggingFaceCrossEncoder(model_name=model), top_n=3)
    found = reranker.compress_documents([Document(text) for text in texts()[:9]], "a question")
    ranked = minisbert.load_cross_encoder(model).rank("a question", texts()[:9], top_k=3)
    return [d.page_content for d in found] == [texts()[best["corpus_id"]] for best in ranked]


def haystack(model: str) -> bool:
    from haystack import Document
    from haystack_integrations.components.embedders.sentence_transformers import (
        SentenceTransformersDocumentEmbedder,
    )

    embedder = SentenceTransformersDocumentEmbedder(model=model, progress_bar=False)
    embedder.warm_up()
    found = embedder.run([Document(content=text) for text in texts()])["documents"]
    return same([d.embedding for d in found], model)


def lancedb(model: str) -> bool:
    from lancedb.embeddings import get_registry

    function = get_registry().get("sentence-transformers").create(name=model)
    assert function.ndims() == 384
    return same(function.compute_source_embeddings(texts()), model, normalize_embeddings=True)


@pytest.mark.parametrize(
    ("framework", "packages"),
    [
        (bertopic, "bertopic"),
        (bertopic_with_a_pipeline, "bertopic"),
        (keybert, "keybert"),
        (langchain, "langchain_huggingface"),
        (haystack, "haystack_integrations.components.embedders.sentence_transformers"),
        (lancedb, "lancedb"),
    ],
)
def test_vectors_are_those_of_encode(framework: Any, packages: str, minilm: Path) -> None:
    skip_without(packages)
    before = "" if framework is bertopic_with_a_pipeline else BEFORE
    assert in_new_process(framework, str(minilm), before=before) is True


def test_chroma_opens_a_collection_that_names_it(minilm: Path, tmp_path: Path) -> None:
    skip_without("chromadb")
    assert in_new_process(chroma, str(minilm), str(tmp_path), before=BEFORE) is True
    assert in_new_process(chroma_again, str(tmp_path), before=BEFORE) is True


def test_langchains_reranker_has_the_order_of_rank() -> None:
    skip_without("langchain_classic")
    skip_without("langchain_community")
    assert in_new_process(langchain_reranker, CROSS, before=BEFORE) is True


def skip_without(package: str) -> None:
    try:
        found = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        found = None
    if found is None:
        pytest.skip(f"{package} is not installed")
