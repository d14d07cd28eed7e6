"""LangChain: embeddings for its vector stores, and a cross-encoder that reranks what these find."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from minisbert.adapters import needing
from minisbert.adapters.spec import CrossEncoderSpec, EncoderSpec

with needing("langchain"):
    from langchain_core.documents import BaseDocumentCompressor, Document
    from langchain_core.embeddings import Embeddings

    from minisbert.adapters.fields import fields_of

if TYPE_CHECKING:
    from langchain_core.callbacks import Callbacks

__all__ = ["MinisbertEmbeddings", "MinisbertReranker"]

_EncoderFields: Any = fields_of(EncoderSpec)
_CrossEncoderFields: Any = fields_of(CrossEncoderSpec)


class MinisbertEmbeddings(_EncoderFields, Embeddings):
    """Embeddings by a `minisbert.SentenceEncoder`.

    Documents get the prompt "document" of the checkpoint, if it has one, and queries "query". The asynchronous methods
    compute in a thread, as LangChain's base class has them.

    Parameters
    ----------
    model : str or os.PathLike
        A checkpoint folder, or the name of one on the Hugging Face hub.
    **settings
        See `minisbert.adapters.spec.EncoderSpec`.

    Examples
    --------
    >>> embeddings = MinisbertEmbeddings(model="sentence-transformers/all-MiniLM-L6-v2")
    >>> store = InMemoryVectorStore.from_texts(texts, embeddings)

    Some stores, such as ``langchain_chroma.Chroma``, don't note which embeddings they were filled with: pass
    these again when such a store is opened, or it takes another model without a word.
    """

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return the vectors of documents, as `minisbert.SentenceEncoder.encode_document` does."""
        vectors: list[list[float]] = self.spec.encode_document(texts).tolist()
        return vectors

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a query, as `minisbert.SentenceEncoder.encode_query` does."""
        vector: list[float] = self.spec.encode_query([text])[0].tolist()
        return vector


class MinisbertReranker(_CrossEncoderFields, BaseDocumentCompressor):
    """Keeps those documents that a `minisbert.CrossEncoder` scores highest for a query, best first.

    Their metadata has the scores, as ``"relevance_score"``.

    Parameters
    ----------
    model : str or os.PathLike
        The folder, or name, of a cross-encoder with one label.
    top_n : int
        How many documents to keep.
    **settings
        See `minisbert.adapters.spec.CrossEncoderSpec`.

    Examples
    --------
    >>> reranker = MinisbertReranker(model="cross-encoder/ms-marco-MiniLM-L6-v2", top_n=3)
    >>> reranker.compress_documents(retriever.invoke(question), question)
    """

    top_n: int = 3

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> Sequence[Document]:
        """Return the best documents, as `minisbert.CrossEncoder.rank` orders them."""
        texts = [document.page_content for document in documents]
        ranked = self.spec.resolve().rank(query, texts, top_k=self.top_n)
        return [_scored(documents[found["corpus_id"]], found["score"]) for found in ranked]


def _scored(document: Any, score: float) -> Any:
    """Return a copy of a document that has its score."""
    return document.model_copy(update={"metadata": {**document.metadata, "relevance_score": score}})
