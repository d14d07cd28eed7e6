"""LanceDB: an embedding function that a table stores, and opens again by itself."""

from __future__ import annotations

from typing import Any

from minisbert.adapters import needing
from minisbert.adapters.spec import EncoderSpec

with needing("lancedb"):
    from lancedb.embeddings import TextEmbeddingFunction
    from lancedb.embeddings.registry import register

    from minisbert.adapters.fields import fields_of

__all__ = ["MinisbertEmbeddings"]

_EncoderFields: Any = fields_of(EncoderSpec)


@register("minisbert")
class MinisbertEmbeddings(_EncoderFields, TextEmbeddingFunction):
    """Embeddings by a `minisbert.SentenceEncoder`, under the name "minisbert".

    Documents get the prompt "document" of the checkpoint, if it has one, and queries "query".

    A table keeps the settings, and the hash of the checkpoint's files: other weights than those that it was filled
    with are refused. To open one, import this module, so that LanceDB knows the name.

    Parameters
    ----------
    model : str or os.PathLike
        A checkpoint folder, or the name of one on the Hugging Face hub.
    **settings
        See `minisbert.adapters.spec.EncoderSpec`.

    Examples
    --------
    >>> function = MinisbertEmbeddings.create(model="sentence-transformers/all-MiniLM-L6-v2")
    >>> class Row(LanceModel):
    ...     text: str = function.SourceField()
    ...     vector: Vector(function.ndims()) = function.VectorField()
    >>> table = lancedb.connect("folder").create_table("texts", schema=Row)

    In another process, with the same model:

    >>> import minisbert.adapters.lancedb
    >>> lancedb.connect("folder").open_table("texts").search("a question").to_list()
    """

    max_retries: int = 0

    def ndims(self) -> int:
        """Return how many components a vector has."""
        dimension: int = self.spec.resolve().get_embedding_dimension()
        return dimension

    def generate_embeddings(self, texts: Any, *args: Any, **kwargs: Any) -> list[Any]:
        """Return the vectors of documents, as `minisbert.SentenceEncoder.encode_document` does."""
        return list(self.spec.encode_document(texts))

    def compute_query_embeddings(self, query: Any, *args: Any, **kwargs: Any) -> list[Any]:
        """Return the vector of a query in a list, as `minisbert.SentenceEncoder.encode_query` does."""
        return list(self.spec.encode_query(self.sanitize_input(query)))

    def compute_source_embeddings_with_retry(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Compute them, and let an error through as it is: none would go away if it were tried again."""
        vectors: list[Any] = self.compute_source_embeddings(*args, **kwargs)
        return vectors

    def compute_query_embeddings_with_retry(self, *args: Any, **kwargs: Any) -> list[Any]:
        """Compute them, and let an error through as it is."""
        return self.compute_query_embeddings(*args, **kwargs)

    def safe_model_dump(self) -> dict[str, Any]:
        """Return what a table keeps of the function: its settings, and which weights these are."""
        return {**self._original_args, **self.spec.pinned().to_dict()}
