"""Where Haystack's pipelines find the ranker: the wheel puts this into the namespace package of its integrations."""

from minisbert.adapters.haystack import MinisbertRanker

__all__ = ["MinisbertRanker"]
