"""`paraphrase_mining`: the pairs of sentences that are most alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from heapq import heappush, heappushpop
from operator import itemgetter
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from minisbert.arrays import Floats, Ints
from minisbert.engine.collect import Progress
from minisbert.errors import EncodeTypeError, shown
from minisbert.search.nearest import (
    BLOCK,
    ROWS,
    ScoreFunction,
    at_least_1,
    at_most,
    check_score_function,
    nearest,
)
from minisbert.search.stored import read_stored

if TYPE_CHECKING:
    from minisbert.encoder import SentenceEncoder

__all__ = ["paraphrase_mining", "paraphrase_mining_embeddings"]

Pairs = list[list[float | int]]
Show = bool | Callable[[int], object] | None


def paraphrase_mining(
    model: SentenceEncoder,
    sentences: Sequence[str],
    show_progress_bar: Show = False,
    batch_size: int = 32,
    query_chunk_size: int | None = None,
    corpus_chunk_size: int | None = None,
    max_pairs: int = 500_000,
    top_k: int = 100,
    score_function: str | ScoreFunction = "cosine",
    truncate_dim: int | None = None,
    prompt_name: str | None = None,
    prompt: str | None = None,
) -> Pairs:
    """Find the pairs of sentences that are most alike: `paraphrase_mining_embeddings` of what `model` encodes.

    Parameters
    ----------
    model : SentenceEncoder
        What encodes the sentences.
    sentences : sequence of str
        The sentences, each of which is compared with all others.
    show_progress_bar, batch_size, truncate_dim, prompt_name, prompt
        As in `SentenceEncoder.encode`.
    query_chunk_size, corpus_chunk_size, max_pairs, top_k, score_function
        As in `paraphrase_mining_embeddings`.

    Returns
    -------
    list of [float, int, int]
        Scores, each with the indices of two sentences, the lower one first; best first.

    Raises
    ------
    EncodeTypeError
        If `sentences` is a single one.
    """
    if isinstance(sentences, str):
        raise EncodeTypeError(f"sentences is {shown(sentences)}; expected many of them, to make pairs of")
    embeddings = model.encode(
        sentences,
        show_progress_bar=show_progress_bar,
        batch_size=batch_size,
        truncate_dim=truncate_dim,
        prompt_name=prompt_name,
        prompt=prompt,
    )
    return paraphrase_mining_embeddings(
        embeddings,
        query_chunk_size,
        corpus_chunk_size,
        max_pairs,
        top_k,
        score_function,
        show_progress_bar=show_progress_bar,
    )


def paraphrase_mining_embeddings(
    embeddings: ArrayLike,
    query_chunk_size: int | None = None,
    corpus_chunk_size: int | None = None,
    max_pairs: int = 500_000,
    top_k: int = 100,
    score_function: str | ScoreFunction = "cosine",
    *,
    precision: str = "float32",
    ranges: ArrayLike | None = None,
    show_progress_bar: Show = None,
) -> Pairs:
    """Find the pairs of vectors that are most alike.

    Parameters
    ----------
    embeddings : array_like, shape (N, D) or (N, ceil(D / 8))
        Vectors, as they are stored.
    query_chunk_size, corpus_chunk_size, score_function
        As in `semantic_search`. The function has to give the same score either way.
    max_pairs : int
        The most pairs to return; each takes some 200 bytes.
    top_k : int
        With how many others, those nearest to it, a vector makes pairs.
    precision, ranges
        As ``corpus_precision`` and ``ranges`` in `semantic_search`.
    show_progress_bar : bool or callable, optional
        As in `SentenceEncoder.encode`.

    Returns
    -------
    list of [float, int, int]
        Scores, each with the indices of two vectors, the lower one first; best first.

    Raises
    ------
    EncodeTypeError, EncodeValueError
        If an argument is impossible.
    """
    check_score_function(score_function)
    k, most = at_least_1("top_k", top_k), at_least_1("max_pairs", max_pairs)
    rows = at_most(ROWS, "query_chunk_size", query_chunk_size)
    block = at_most(BLOCK, "corpus_chunk_size", corpus_chunk_size)
    stored = read_stored("embeddings", embeddings, precision, ranges)
    count = len(stored.codes)
    best = _BestPairs(most)
    with closing(Progress(count, show_progress_bar, "vector", "Comparing")) as progress:
        for start in range(0, count, rows):
            queries = stored.floats(slice(start, start + rows))
            for first, scores, ids in nearest(queries, stored, k + 1, score_function, rows, block):
                best.add(*_pairs(start + first, scores, ids, k, count))
            progress.update(len(queries))
    highest = 1.0 if score_function == "cosine" else np.inf  # rounding makes more than 1 of a cosine
    return [[min(score, highest), *divmod(pair, count)] for score, pair in best.result()]


def _pairs(first: int, scores: Floats, ids: Ints, k: int, count: int) -> tuple[Floats, Ints]:
    """Return the scores and pairs of vectors from `first` on with their k nearest (Q, k + 1), themselves left out.

    A pair is ``i * count + j`` for i < j.
    """
    own = first + np.arange(len(ids))[:, np.newaxis]
    is_other = (ids != own) & (ids >= 0)
    is_other &= np.cumsum(is_other, axis=1) <= k  # one too many where others, equal to it, came before itself
    pairs = np.minimum(ids, own) * count + np.maximum(ids, own)
    return scores[is_other], pairs[is_other]


class _BestPairs:
    """The best pairs so far: the heap is the reference's, as it decides the order of pairs that score the same."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._heap: list[tuple[float, int]] = []
        self._queued: set[int] = set()
        self._floor = -np.inf  # what the last pair scored that had to make room

    def add(self, scores: Floats, pairs: Ints) -> None:
        """Look at more pairs; each comes twice, from either side."""
        is_better = scores > self._floor
        for score, pair in zip(scores[is_better].tolist(), pairs[is_better].tolist(), strict=True):
            if score <= self._floor or pair in self._queued:
                continue
            self._queued.add(pair)
            if len(self._heap) < self._most:
                heappush(self._heap, (score, pair))
            else:
                self._floor, leaving = heappushpop(self._heap, (score, pair))
                self._queued.discard(leaving)

    def result(self) -> list[tuple[float, int]]:
        """Return scores and pairs, best first."""
        return sorted(self._heap, key=itemgetter(0), reverse=True)
