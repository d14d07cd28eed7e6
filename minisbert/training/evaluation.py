"""How good vectors are on rows that are held out: one number, larger being better, for each kind of row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minisbert.arrays import Floats
from minisbert.evaluation import metrics
from minisbert.vectors import similarity, similarity_pairwise

__all__ = ["mrr_at_10", "spearman"]

ANCHORS = 256  # that are compared with all candidates at once


def mrr_at_10(columns: Sequence[Floats], scores: Sequence[float], name: str) -> float:
    """``mean(1 / rank)``: the rank of each anchor's positive among the positives of all, and 0 beyond the tenth.

    Of equal candidates the positive counts as the last.
    """
    anchors, positives = columns
    found = 0.0
    for start in range(0, len(anchors), ANCHORS):
        alike = similarity(anchors[start : start + ANCHORS], positives, name)
        places = np.arange(len(alike))
        ranks = (alike >= alike[places, start + places][:, np.newaxis]).sum(axis=1)
        found += float((1 / ranks)[ranks <= 10].sum())
    return found / len(anchors)


def spearman(columns: Sequence[Floats], scores: Sequence[float], name: str) -> float:
    """Return the correlation of the ranks of similarities with those of the scores; 0 where all of one are equal."""
    u, v = columns
    return float(np.nan_to_num(metrics.spearman(similarity_pairwise(u, v, name), scores)))
