"""Correlations of samples, and metrics of rankings.

The latter are ``metric(k, relevance, relevant)``, for Q queries that K documents each were ranked for: they look at the
first k; `relevance` (Q, K) says which of what was ranked is relevant, and `relevant` (Q,) how many documents are,
found or not: at least one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minisbert.arrays import Floats, Ints

__all__ = [
    "accuracy_at",
    "average_precision_at",
    "average_ranks",
    "ndcg_at",
    "pearson",
    "precision_at",
    "recall_at",
    "reciprocal_rank_at",
    "spearman",
]

Relevance = NDArray[np.bool_]  # (Q, K): whether what is ranked there is relevant


def pearson(x: ArrayLike, y: ArrayLike) -> float:
    """Return Pearson's correlation of two samples (S,), as `scipy.stats.pearsonr` does: NaN where one is constant."""
    a, b = (np.asarray(side, np.float64) for side in (x, y))
    if len(a) < 2 or a.min() == a.max() or b.min() == b.max():
        return float("nan")
    a, b = a - a.mean(), b - b.mean()
    return float(np.clip(np.dot(a / np.linalg.norm(a), b / np.linalg.norm(b)), -1, 1))


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Return Spearman's correlation of two samples (S,): that of Pearson of their `average_ranks`."""
    return pearson(average_ranks(x), average_ranks(y))


def average_ranks(x: ArrayLike) -> Floats:
    """Return the ranks of values (S,), from 1; equal values have the mean of theirs."""
    _, places, counts = np.unique(np.asarray(x), return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    return np.asarray(ranks[places.reshape(-1)])


def accuracy_at(k: int, relevance: Relevance, relevant: Ints) -> float:
    """Return the share of queries with something relevant among the first k."""
    return float(relevance[:, :k].any(axis=1).mean())


def precision_at(k: int, relevance: Relevance, relevant: Ints) -> float:
    """Return which share of the first k is relevant; where fewer were ranked, the others are not."""
    return float((relevance[:, :k].sum(axis=1) / k).mean())


def recall_at(k: int, relevance: Relevance, relevant: Ints) -> float:
    """Return which share of what is relevant is among the first k."""
    return float((relevance[:, :k].sum(axis=1) / relevant).mean())


def reciprocal_rank_at(k: int, relevance: Relevance, relevant: Ints) -> float:
    """Return 1 / the place of the first relevant document; 0 where it is not among the first k."""
    first = relevance[:, :k].argmax(axis=1)
    return float((relevance[:, :k].any(axis=1) / (first + 1)).mean())


def ndcg_at(k: int, relevance: Relevance, relevant: Ints) -> float:
    """Return the discounted cumulative gain, a relevant document gaining 1 / log2(place + 1), by the best possible."""
    gains = 1 / np.log2(np.arange(2, k + 2))
    found = np.where(relevance[:, :k], gains[: relevance.shape[1]], 0).sum(axis=1)
    return float((found / np.cumsum(gains)[np.minimum(relevant, k) - 1]).mean())


def average_precision_at(k: int, relevance: Relevance, relevant: Ints) -> float:
    """Return the mean of the precision at each relevant document's place: of k, or of all, where these are fewer."""
    first = relevance[:, :k]
    precisions = np.cumsum(first, axis=1) / np.arange(1, first.shape[1] + 1)
    return float((np.where(first, precisions, 0).sum(axis=1) / np.minimum(relevant, k)).mean())
