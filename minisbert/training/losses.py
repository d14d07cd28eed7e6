"""The losses of sentence-transformers, each with its gradient by the sentence vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from minisbert.arrays import Floats
from minisbert.kernels.reference import ops
from minisbert.training import gradients

__all__ = ["LOSSES", "SCORED", "SIMILARITIES", "cosine_similarity", "multiple_negatives_ranking"]

SIMILARITIES = ("cos_sim", "dot_score")
SCORED = "CosineSimilarityLoss"


def multiple_negatives_ranking(
    columns: Sequence[Floats], scores: Floats | None, scale: float, similarity_fct: str
) -> tuple[float, list[Floats]]:
    """``mean(-log softmax(scale * sim(a, c))[i, i])``: each anchor is to find its positive among all candidates [1]_.

    Parameters
    ----------
    columns : sequence of ndarray of float, shape (B, D)
        The vectors of the anchors a, of their positives, and of hard negatives if there are any; all but the anchors
        are candidates c, for every anchor.
    scores : None
        What other losses have.
    scale : float
        1 / temperature.
    similarity_fct : {"cos_sim", "dot_score"}
        The similarity of two vectors.

    Returns
    -------
    float, and list of ndarray of float, shape (B, D)
        The loss, and its gradient by each column.

    References
    ----------
    .. [1] Henderson et al., Efficient Natural Language Response Suggestion for Smart Reply, 2017, section 4.4.
    """
    anchors, candidates = columns[0], np.concatenate(columns[1:])
    is_cosine = similarity_fct == "cos_sim"
    a, c = (ops.normalize(x) if is_cosine else x for x in (anchors, candidates))
    logits = a @ c.T  # (B, C)
    logits *= scale
    logits -= logits.max(axis=1, keepdims=True)
    d = np.exp(logits)
    sums = d.sum(axis=1, keepdims=True)
    B = len(a)
    loss = float((np.log(sums[:, 0]) - np.diagonal(logits)).mean())
    d /= sums
    d[np.arange(B), np.arange(B)] -= 1
    d *= scale / B  # by the similarities
    da, dc = d @ c, d.T @ a
    if is_cosine:
        da, dc = gradients.normalize(da, anchors), gradients.normalize(dc, candidates)
    return loss, [da, *np.split(dc, len(columns) - 1)]


def cosine_similarity(
    columns: Sequence[Floats], scores: Floats | None, scale: float, similarity_fct: str
) -> tuple[float, list[Floats]]:
    """``mean((cos(u, v) - score)**2)``: (B, D) twice, and the scores (B,) -> the loss, and its gradients."""
    u, v = map(ops.normalize, columns)
    difference = (u * v).sum(axis=1) - scores  # (B,)
    d = (2 / len(u) * difference)[:, np.newaxis]
    loss = float(np.square(difference).mean())
    return loss, [gradients.normalize(d * v, columns[0]), gradients.normalize(d * u, columns[1])]


LOSSES: dict[str, Callable[..., tuple[float, list[Floats]]]] = {
    "MultipleNegativesRankingLoss": multiple_negatives_ranking,
    SCORED: cosine_similarity,
}
