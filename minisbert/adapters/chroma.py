"""Chroma: an embedding function that a collection stores, and opens again by itself."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from minisbert.adapters import needing
from minisbert.adapters.spec import EncoderSpec

with needing("chroma"):
    from chromadb.api.types import Documents, EmbeddingFunction, Embeddings
    from chromadb.utils.embedding_functions import register_embedding_function

__all__ = ["MinisbertEmbeddingFunction"]


class MinisbertEmbeddingFunction(EmbeddingFunction[Documents]):
    """Embeddings by a `minisbert.SentenceEncoder`, under the name "minisbert".

    Documents get the prompt "document" of the checkpoint, if it has one, and queries "query".

    A collection keeps the settings, and the hash of the checkpoint's files: other weights than those that it was
    filled with are refused. To open one, import this module, so that Chroma knows the name.

    Parameters
    ----------
    model : str or os.PathLike
        A checkpoint folder, or the name of one on the Hugging Face hub.
    **settings
        See `minisbert.adapters.spec.EncoderSpec`.

    Examples
    --------
    >>> function = MinisbertEmbeddingFunction("sentence-transformers/all-MiniLM-L6-v2")
    >>> collection = client.create_collection("texts", embedding_function=function)

    In another process, with the same model:

    >>> import minisbert.adapters.chroma
    >>> chromadb.PersistentClient("folder").get_collection("texts").query(query_texts="a question")
    """

    def __init__(self, model: str | os.PathLike[str], **settings: Any) -> None:
        self.spec = EncoderSpec.from_dict({"model": model, **settings})

    def __call__(self, input: Documents) -> Embeddings:
        """Return the vector of each document, of float32."""
        return list(self.spec.encode_document(input).astype(np.float32))

    def embed_query(self, input: Documents) -> Embeddings:
        """Return the vector of each query, of float32."""
        return list(self.spec.encode_query(input).astype(np.float32))

    @staticmethod
    def name() -> str:
        """Return what a collection calls this class."""
        return "minisbert"

    def get_config(self) -> dict[str, Any]:
        """Return what a collection keeps of the function: its settings, and which weights these are."""
        return self.spec.pinned().to_dict()

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> MinisbertEmbeddingFunction:
        """Return the function that a collection was made with."""
        return MinisbertEmbeddingFunction(**config)

    @staticmethod
    def validate_config(config: dict[str, Any]) -> None:
        """Refuse what is no function's configuration."""
        EncoderSpec.from_dict(config)

    def default_space(self) -> Any:
        """Return the distance that the checkpoint was trained for, if Chroma has it."""
        similarity = self.spec.resolve().similarity_fn_name
        return {"cosine": "cosine", "dot": "ip"}.get(similarity, "l2")

    def supported_spaces(self) -> list[Any]:
        """Return the distances that make sense."""
        return ["cosine", "l2", "ip"]


register_embedding_function(
    MinisbertEmbeddingFunction
)  # not as a decorator, which gives None in some versions
