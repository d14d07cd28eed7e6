"""How good vectors are on rows that are held out: one number, larger being better, for each kind of row."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from minisbert.arrays import Floats
from minisbert.vectors import similarity, similarity_pairwise

__all__ = ["mrr_at_10", "spearman"]

ANCHORS = 256  # that are compared with all candidates at once


def mrr_at_10(columns: Sequence[Floats], scores: Sequence[float], name: str) -> float:
    """``mean(1 / rank)``: the rank of each anchor's positive among the positives of all, and 0 beyond the tenth.

    Of equal candidates the positive counts as the last.
    """
    anchors, positives = columns[:2]
    found = 0.0
    for start in range(0, len(anchors), ANCHORS):
        alike = similarity(anchors[start : start + ANCHORS], positives, name)
        places = np.arange(len(alike))
        ranks = (alike >= alike[places, start + places][:, np.newaxis]).sum(axis=1)
        found += float((1 / ranks)[ranks <= 10].sum())
    return found / len(anchors)


def spearman(columns: Sequence[Floats], scores: Sequence[float], name: str) -> float:
    """Return the correlation of the ranks of similarities with those of the scores."""
    found, wanted = _ranks(similarity_pairwise(columns[0], columns[1], name)), _ranks(np.asarray(scores))
    norms = math.sqrt((found @ found) * (wanted @ wanted))
    return float(found @ wanted) / norms if norms else 0.0  # where all are equal nothing is said


def _ranks(x: Floats) -> Floats:
    """Return the rank of each number, less the mean of all; equal ones share the mean of theirs."""
    _, places, counts = np.unique(x, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return np.asarray(ranks - ranks.mean())
