"""Semantic textual similarity: how well the similarity of two vectors goes with what people say of the sentences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minisbert.arrays import Floats
from minisbert.checkpoint.config import SIMILARITIES
from minisbert.engine.arguments import check_choice
from minisbert.errors import EncodeValueError, shown
from minisbert.evaluation.inputs import read_vectors
from minisbert.evaluation.metrics import pearson, spearman
from minisbert.vectors import PRECISIONS, quantize, similarity_pairwise

if TYPE_CHECKING:
    from minisbert.encoder import SentenceEncoder

__all__ = ["evaluate_sts", "sts_metrics"]


def evaluate_sts(
    encoder: SentenceEncoder,
    sentences1: Sequence[str],
    sentences2: Sequence[str],
    scores: ArrayLike,
    *,
    similarity_fn_names: Sequence[str] | None = None,
    precision: str | None = None,
    truncate_dim: int | None = None,
    batch_size: int = 32,
    show_progress_bar: bool | Callable[[int], object] | None = False,
) -> dict[str, float]:
    """Correlate the similarity of pairs of sentences with scores, as ``EmbeddingSimilarityEvaluator`` does.

    Parameters
    ----------
    encoder : SentenceEncoder
        What encodes the sentences.
    sentences1, sentences2 : sequence of str
        The sentences of each pair.
    scores : array_like, shape (S,)
        What people say of each pair, more meaning more alike.
    similarity_fn_names : sequence of {"cosine", "dot", "euclidean", "manhattan"}, optional
        What compares vectors; by default the encoder's `similarity_fn_name`.
    precision, truncate_dim
        As in `sts_metrics`.
    batch_size, show_progress_bar
        As in `SentenceEncoder.encode`.

    Returns
    -------
    dict of str to float
        ``"pearson_cosine"``, ``"spearman_cosine"`` and so on.
    """
    first = encoder.encode(sentences1, batch_size=batch_size, show_progress_bar=show_progress_bar)
    second = encoder.encode(sentences2, batch_size=batch_size, show_progress_bar=show_progress_bar)
    names = similarity_fn_names or [encoder.similarity_fn_name]
    return sts_metrics(first, second, scores, names, precision, truncate_dim)


def sts_metrics(
    embeddings1: ArrayLike,
    embeddings2: ArrayLike,
    scores: ArrayLike,
    similarity_fn_names: Sequence[str] = ("cosine",),
    precision: str | None = None,
    truncate_dim: int | None = None,
) -> dict[str, float]:
    """Correlate the similarity of pairs of vectors with scores.

    Parameters
    ----------
    embeddings1, embeddings2 : array_like of float, shape (S, D)
        The vectors of each pair.
    scores : array_like, shape (S,)
        What people say of each pair.
    similarity_fn_names : sequence of str
        As in `evaluate_sts`.
    precision : {"float32", "int8", "uint8", "binary", "ubinary"}, optional
        What vectors are stored in, once they were brought to length 1. As in the reference's evaluator, int8 and uint8
        have the ranges of both sides together, and integers, and bits as 0 and 1, are compared as numbers.
    truncate_dim : int, optional
        Keep the first components only.

    Returns
    -------
    dict of str to float
        ``"pearson_cosine"``, ``"spearman_cosine"`` and so on; NaN where all scores, or all similarities, are equal:
        there is no correlation with a constant.

    Raises
    ------
    EncodeTypeError, EncodeValueError
        If numbers of pairs or widths differ, a score or a component is no finite number, or an argument is impossible.
    """
    first, second = read_vectors(truncate_dim, embeddings1=embeddings1, embeddings2=embeddings2)
    labels = _labels(scores, len(first), len(second))
    for name in similarity_fn_names:
        check_choice("similarity_fn_names", name, SIMILARITIES)
    if precision is not None:
        check_choice("precision", precision, tuple(PRECISIONS))
    first, second = _stored(first, second, precision)
    found: dict[str, float] = {}
    for name in similarity_fn_names:
        # What is equal, such as the cosines of equal sentences, is to have equal ranks however it was rounded.
        similarities = np.round(similarity_pairwise(first, second, name), 12)
        found |= {f"pearson_{name}": pearson(labels, similarities)}
        found |= {f"spearman_{name}": spearman(labels, similarities)}
    return found


def _labels(scores: ArrayLike, *counts: int) -> Floats:
    """Check that there is a finite score for each pair, and that there are two pairs at least."""
    try:
        labels = np.asarray(scores, np.float64)
    except (TypeError, ValueError) as error:
        raise EncodeValueError(f"scores are no numbers ({error})") from error
    if labels.shape != (counts[0],) or counts[0] != counts[1]:
        raise EncodeValueError(
            f"there are {counts[0]:,} and {counts[1]:,} sentences, and scores of shape {labels.shape}"
        )
    if len(labels) < 2:
        raise EncodeValueError(
            f"there are {len(labels)} pairs; expected at least 2, which a correlation needs"
        )
    if not np.isfinite(labels).all():
        row = int(np.argmin(np.isfinite(labels)))
        raise EncodeValueError(f"score {row} is {shown(float(labels[row]))}; expected a finite number")
    return labels


def _stored(first: Floats, second: Floats, precision: str | None) -> tuple[Floats, Floats]:
    """Return vectors in float64, as they are compared once they were stored in a precision."""
    if precision is None:
        return first.astype(np.float64), second.astype(np.float64)
    both = np.concatenate([first, second])
    both = both / np.maximum(np.linalg.norm(both, axis=1, keepdims=True), 1e-12).astype(both.dtype)
    stored: NDArray[Any] = quantize(both, precision)
    if precision in ("binary", "ubinary"):
        bits = stored.view(np.uint8) ^ np.uint8(0x80 if precision == "binary" else 0)
        stored = np.unpackbits(bits, axis=1)
    numbers = stored.astype(np.float64)
    return numbers[: len(first)], numbers[len(first) :]
