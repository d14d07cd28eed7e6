"""How good sentence vectors are, by the metrics of the reference's evaluators, computed as these compute them."""

from minisbert.evaluation.retrieval import evaluate_retrieval, retrieval_metrics
from minisbert.evaluation.sts import evaluate_sts, sts_metrics

__all__ = ["evaluate_retrieval", "evaluate_sts", "retrieval_metrics", "sts_metrics"]
