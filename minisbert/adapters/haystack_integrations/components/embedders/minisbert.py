"""Where Haystack's pipelines find the embedders: the wheel puts this into the namespace package of its integrations."""

from minisbert.adapters.haystack import MinisbertDocumentEmbedder, MinisbertTextEmbedder

__all__ = ["MinisbertDocumentEmbedder", "MinisbertTextEmbedder"]
