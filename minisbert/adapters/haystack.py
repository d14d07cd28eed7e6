"""Haystack: embedders of texts and of documents, and a ranker, as components of its pipelines.

Pipelines load components from a few packages only: these say that they are in ``haystack_integrations``, where the
wheel has a module for them.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from minisbert.adapters import needing
from minisbert.adapters.spec import CrossEncoderSpec, EncoderSpec, Spec
from minisbert.errors import EncodeTypeError, shown

with needing("haystack"):
    from haystack import Document, component, default_to_dict

__all__ = ["MinisbertDocumentEmbedder", "MinisbertRanker", "MinisbertTextEmbedder"]


class _Component:
    """What all of them have: a spec, and options of the component itself."""

    spec: Spec
    options: dict[str, Any]

    def warm_up(self) -> None:
        """Load the model."""
        self.spec.resolve()

    def to_dict(self) -> dict[str, Any]:
        """Return the component for a pipeline's file."""
        found: dict[str, Any] = default_to_dict(self, **self.options, **self.spec.to_dict())
        return found


@component
class MinisbertTextEmbedder(_Component):
    """Turns a text, such as a query, into a vector, by a `minisbert.SentenceEncoder`.

    It gets the prompt "query" of the checkpoint, if that has one.

    Parameters
    ----------
    model : str or os.PathLike
        A checkpoint folder, or the name of one on the Hugging Face hub.
    **settings
        See `minisbert.adapters.spec.EncoderSpec`.

    Examples
    --------
    >>> embedder = MinisbertTextEmbedder("sentence-transformers/all-MiniLM-L6-v2")
    >>> embedder.run("a question")["embedding"]
    """

    __module__ = "haystack_integrations.components.embedders.minisbert"
    spec: EncoderSpec

    def __init__(self, model: str | os.PathLike[str], **settings: Any) -> None:
        self.spec = EncoderSpec.from_dict({"model": model, **settings})
        self.options = {}

    @component.output_types(embedding=list[float])
    def run(self, text: str) -> dict[str, Any]:
        """Return the vector of a text."""
        if not isinstance(text, str):
            raise EncodeTypeError(
                f"text is {shown(text)}; expected a string, and documents for a MinisbertDocumentEmbedder"
            )
        return {"embedding": self.spec.encode_query(text).tolist()}


@component
class MinisbertDocumentEmbedder(_Component):
    """Gives documents vectors, by a `minisbert.SentenceEncoder`.

    They get the prompt "document" of the checkpoint, if that has one.

    Parameters
    ----------
    model : str or os.PathLike
        A checkpoint folder, or the name of one on the Hugging Face hub.
    meta_fields_to_embed : sequence of str
        Which of a document's ``meta`` to put before its text.
    embedding_separator : str
        What to put between these.
    **settings
        See `minisbert.adapters.spec.EncoderSpec`.

    Examples
    --------
    >>> embedder = MinisbertDocumentEmbedder("sentence-transformers/all-MiniLM-L6-v2")
    >>> embedder.run([Document(content="I love pizza!")])["documents"][0].embedding
    """

    __module__ = "haystack_integrations.components.embedders.minisbert"
    spec: EncoderSpec

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        meta_fields_to_embed: Sequence[str] = (),
        embedding_separator: str = "\n",
        **settings: Any,
    ) -> None:
        self.spec = EncoderSpec.from_dict({"model": model, **settings})
        self.options = {
            "meta_fields_to_embed": list(meta_fields_to_embed),
            "embedding_separator": embedding_separator,
        }

    @component.output_types(documents=list[Document])
    def run(self, documents: list[Document]) -> dict[str, Any]:
        """Return copies of documents, with their vectors."""
        vectors = self.spec.encode_document(_texts(documents, self.options)).tolist()
        found = [
            replace(document, embedding=vector) for document, vector in zip(documents, vectors, strict=True)
        ]
        return {"documents": found}


@component
class MinisbertRanker(_Component):
    """Sorts documents by how well they answer a query, by a `minisbert.CrossEncoder`, best first.

    Parameters
    ----------
    model : str or os.PathLike
        The folder, or name, of a cross-encoder with one label.
    top_k : int
        How many documents to keep.
    meta_fields_to_embed, embedding_separator
        As in `MinisbertDocumentEmbedder`.
    **settings
        See `minisbert.adapters.spec.CrossEncoderSpec`.

    Examples
    --------
    >>> ranker = MinisbertRanker("cross-encoder/ms-marco-MiniLM-L6-v2", top_k=3)
    >>> ranker.run(query="a question", documents=documents)["documents"][0].score
    """

    __module__ = "haystack_integrations.components.rankers.minisbert"
    spec: CrossEncoderSpec

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        top_k: int = 10,
        meta_fields_to_embed: Sequence[str] = (),
        embedding_separator: str = "\n",
        **settings: Any,
    ) -> None:
        self.spec = CrossEncoderSpec.from_dict({"model": model, **settings})
        self.options = {
            "top_k": top_k,
            "meta_fields_to_embed": list(meta_fields_to_embed),
            "embedding_separator": embedding_separator,
        }

    @component.output_types(documents=list[Document])
    def run(self, query: str, documents: list[Document], top_k: int | None = None) -> dict[str, Any]:
        """Return copies of the best documents, with their scores; `top_k` counts for this call."""
        most = self.options["top_k"] if top_k is None else top_k
        ranked = self.spec.resolve().rank(query, _texts(documents, self.options), top_k=most)
        return {"documents": [replace(documents[best["corpus_id"]], score=best["score"]) for best in ranked]}


def _texts(documents: Sequence[Any], options: dict[str, Any]) -> list[str]:
    """Return the text of each document, after those of its ``meta`` that are wanted."""
    for index, document in enumerate(documents):
        if not isinstance(document, Document):
            raise EncodeTypeError(f"document {index} is {shown(document)}; expected a haystack.Document")
    separator, names = options["embedding_separator"], options["meta_fields_to_embed"]
    wanted = [[document.meta.get(name) for name in names] for document in documents]
    return [
        separator.join([*(str(value) for value in values if value is not None), document.content or ""])
        for document, values in zip(documents, wanted, strict=True)
    ]
