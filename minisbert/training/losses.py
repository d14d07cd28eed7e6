"""The losses of sentence-transformers, each with its gradient by the sentence vectors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minisbert.arrays import Floats
from minisbert.kernels.reference import ops
from minisbert.training import gradients

__all__ = ["LOSSES", "SCORED", "SIMILARITIES", "cosine_similarity", "multiple_negatives_ranking"]

SIMILARITIES = ("cos_sim", "dot_score")
SCORED = "CosineSimilarityLoss"


def multiple_negatives_ranking(
    vectors: Floats, B: int, scores: Floats | None, scale: float, similarity_fct: str
) -> tuple[float, Floats]:
    """``mean(-log softmax(scale * sim(a, c))[i, i])``: each anchor is to find its positive among all candidates [1]_.

    Parameters
    ----------
    vectors : ndarray of float, shape (B + C, D)
        Those of the anchors a, (B, D), below them those of their positives, and then of hard negatives if there are
        any: all C but the anchors are candidates c, for every anchor.
    B : int
        How many rows of texts there are.
    scores : None
        What other losses have.
    scale : float
        1 / temperature.
    similarity_fct : {"cos_sim", "dot_score"}
        The similarity of two vectors.

    Returns
    -------
    float, and ndarray of float, shape (B + C, D)
        The loss, and its gradient by the vectors.

    References
    ----------
    .. [1] Henderson et al., Efficient Natural Language Response Suggestion for Smart Reply, 2017, section 4.4.
    """
    x = ops.normalize(vectors) if similarity_fct == "cos_sim" else vectors
    a, c = x[:B], x[B:]
    logits = a @ c.T  # (B, C)
    logits *= scale
    logits -= logits.max(axis=1, keepdims=True)
    d = np.exp(logits)
    sums = d.sum(axis=1, keepdims=True)
    loss = float((np.log(sums[:, 0]) - np.diagonal(logits)).mean())
    d /= sums
    d[np.arange(B), np.arange(B)] -= 1
    d *= scale / B  # by the similarities
    dx = np.concatenate([d @ c, d.T @ a])
    return loss, gradients.normalize(dx, vectors) if similarity_fct == "cos_sim" else dx


def cosine_similarity(
    vectors: Floats, B: int, scores: Floats | None, scale: float, similarity_fct: str
) -> tuple[float, Floats]:
    """``mean((cos(u, v) - score)**2)``: u (B, D), below them v (B, D), and scores (B,) -> the loss and its gradient."""
    x = ops.normalize(vectors)
    u, v = x[:B], x[B:]
    difference = (u * v).sum(axis=1) - scores  # (B,)
    d = (2 / B * difference)[:, np.newaxis]
    return float(np.square(difference).mean()), gradients.normalize(np.concatenate([d * v, d * u]), vectors)


LOSSES: dict[str, Callable[..., tuple[float, Floats]]] = {
    "MultipleNegativesRankingLoss": multiple_negatives_ranking,
    SCORED: cosine_similarity,
}
