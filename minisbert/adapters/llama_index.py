"""LlamaIndex: an embedding model for its indices, and a cross-encoder that reranks what these retrieve."""

from __future__ import annotations

import asyncio
from typing import Any

from minisbert.adapters import needing
from minisbert.adapters.spec import CrossEncoderSpec, EncoderSpec
from minisbert.errors import EncodeValueError

with needing("llama-index"):
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.callbacks import CBEventType, EventPayload
    from llama_index.core.postprocessor.types import BaseNodePostprocessor
    from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
    from pydantic import Field

    from minisbert.adapters.fields import fields_of

__all__ = ["MinisbertEmbedding", "MinisbertRerank"]

_EncoderFields: Any = fields_of(EncoderSpec, model="model_name")
_CrossEncoderFields: Any = fields_of(CrossEncoderSpec)


class MinisbertEmbedding(_EncoderFields, BaseEmbedding):
    """Embeddings by a `minisbert.SentenceEncoder`.

    Nodes get the prompt "document" of the checkpoint, if it has one, and queries "query". They are encoded up to
    2,048 at a time, on all threads, and asynchronous calls leave the event loop free.

    Parameters
    ----------
    model_name : str or os.PathLike
        A checkpoint folder, or the name of one on the Hugging Face hub.
    **settings
        See `minisbert.adapters.spec.EncoderSpec`, and ``BaseEmbedding`` of LlamaIndex.

    Examples
    --------
    >>> Settings.embed_model = MinisbertEmbedding(model_name="sentence-transformers/all-MiniLM-L6-v2")
    >>> Settings.node_parser = SentenceSplitter(chunk_size=250)

    Nodes have 1,024 tokens by default, and many encoders read 256 or 512: minisbert warns of what it cuts.
    """

    embed_batch_size: int = Field(default=2048, gt=0, le=2048)

    @classmethod
    def class_name(cls) -> str:
        """Return what dicts and JSON call this class."""
        return "MinisbertEmbedding"

    def _get_query_embedding(self, query: str) -> list[float]:
        vector: list[float] = self.spec.encode_query([query])[0].tolist()
        return vector

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        vectors: list[list[float]] = self.spec.encode_document(texts).tolist()
        return vectors

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return await asyncio.to_thread(self._get_text_embedding, text)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await asyncio.to_thread(self._get_text_embeddings, texts)


class MinisbertRerank(_CrossEncoderFields, BaseNodePostprocessor):
    """Keeps those nodes that a `minisbert.CrossEncoder` scores highest for a query, best first.

    Parameters
    ----------
    model : str or os.PathLike
        The folder, or name, of a cross-encoder with one label.
    top_n : int
        How many nodes to keep.
    **settings
        See `minisbert.adapters.spec.CrossEncoderSpec`.

    Examples
    --------
    >>> rerank = MinisbertRerank(model="cross-encoder/ms-marco-MiniLM-L6-v2", top_n=3)
    >>> engine = index.as_query_engine(similarity_top_k=20, node_postprocessors=[rerank])
    """

    top_n: int = 2

    @classmethod
    def class_name(cls) -> str:
        """Return what dicts and JSON call this class."""
        return "MinisbertRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise EncodeValueError("there is no query to rerank nodes for: pass query_bundle or query_str")
        payload = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: self.model,
            EventPayload.QUERY_STR: query_bundle.query_str,
            EventPayload.TOP_K: self.top_n,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            found = self._best(nodes, query_bundle.query_str)
            event.on_end(payload={EventPayload.NODES: found})
        return found

    def _best(self, nodes: list[Any], query: str) -> list[Any]:
        """Return new nodes of the best, with their new scores."""
        texts = [node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
        ranked = self.spec.resolve().rank(query, texts, top_k=self.top_n)
        return [NodeWithScore(node=nodes[best["corpus_id"]].node, score=best["score"]) for best in ranked]
