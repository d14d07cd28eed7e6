"""The stored vectors that are nearest to others: exact, and block by block, so that memory does not grow with them.

**Q** are queries, **N** stored vectors and **B** those in one block, **D** components, and **k** the number that is
looked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

from minisbert import vectors
from minisbert.arrays import Floats, Ints
from minisbert.checkpoint.config import SIMILARITIES
from minisbert.engine.arguments import check_choice, check_integer
from minisbert.errors import EncodeValueError, shown
from minisbert.search.stored import PACKED, Stored

__all__ = [
    "BLOCK",
    "ROWS",
    "ScoreFunction",
    "at_least_1",
    "at_most",
    "check_score_function",
    "nearest",
    "score_blocks",
]

# Of one matrix of scores, which is to stay in the cache, and be large enough for a fast product: 32 MiB of float32.
ROWS, BLOCK = 512, 16_384
MOST_KEPT = 1 << 20  # scores that are kept for queries that are looked up together

ScoreFunction: TypeAlias = Callable[[Floats, Floats], Floats]


def _scorer(
    queries: Floats, stored: Stored, score_function: str | ScoreFunction
) -> Callable[[Floats], Floats]:
    """Return a function that compares queries (Q, D) with a block (B, D): (Q, B), valid until the next call."""
    if callable(score_function):
        return lambda block: _checked(score_function(queries, block), (len(queries), len(block)))
    if score_function == "cosine" and stored.precision in PACKED:
        # All signs have the length sqrt(D). Their products are exact: of equal distances the scores are equal, too.
        product = _products(queries, "dot")
        return lambda block: np.divide(scores := product(block), stored.dimension, out=scores)
    if score_function in ("cosine", "dot"):
        return _products(queries, score_function)
    return lambda block: vectors.similarity(queries, block, score_function)


def _products(queries: Floats, score_function: str) -> Callable[[Floats], Floats]:
    """Return the function for cosines, or inner products: it writes into the same array again and again."""
    if score_function == "cosine":
        queries = queries * _inverse_lengths(queries)[:, np.newaxis]
    room = np.empty(0, queries.dtype)

    def product(block: Floats) -> Floats:
        nonlocal room
        size, block = len(queries) * len(block), block.astype(queries.dtype, copy=False)
        if room.size < size:
            room = np.empty(size, queries.dtype)
        scores = room[:size].reshape(len(queries), len(block))
        with np.errstate(over="ignore", invalid="ignore"):  # NaN and infinity are in what is never found
            np.matmul(queries, block.T, out=scores)
            if score_function == "cosine":  # of scores there are fewer than of components
                scores *= _inverse_lengths(block)
        return scores

    return product


def _inverse_lengths(x: Floats) -> Floats:
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.sqrt(np.matmul(x[:, np.newaxis, :], x[:, :, np.newaxis])).reshape(
            -1
        )  # faster than einsum
    return np.asarray(1 / np.maximum(lengths, x.dtype.type(1e-12)))


def _checked(found: Any, shape: tuple[int, int]) -> Floats:
    scores = np.asarray(found)
    if scores.shape != shape or scores.dtype.kind not in "fiu":
        raise EncodeValueError(
            f"score_function returned {scores.dtype} {scores.shape}; expected numbers of shape {shape}: one for "
            "each query and each vector"
        )
    return np.ascontiguousarray(scores, np.result_type(scores, np.float32))


def score_blocks(
    queries: Floats, stored: Stored, score_function: str | ScoreFunction, block: int = BLOCK
) -> Iterator[tuple[int, Floats]]:
    """Compare queries (Q, D) with all stored vectors: yield the index of the first of a block, and scores (Q, B)."""
    queries = queries.astype(np.result_type(queries, stored.floats(slice(0))), copy=False)
    score = _scorer(queries, stored, score_function)
    for first in range(0, len(stored.codes), block):
        yield first, score(stored.floats(slice(first, first + block)))


def nearest(
    queries: Floats,
    stored: Stored,
    k: int,
    score_function: str | ScoreFunction,
    rows: int = ROWS,
    block: int = BLOCK,
) -> Iterator[tuple[int, Floats, Ints]]:
    """Find the `k` stored vectors that score best with each query.

    Yield, for a few queries at a time, the index of the first one, the scores (Q, k) in descending order, and the
    indices (Q, k) of the vectors. Of equal scores the lowest index is first. A score that is NaN or -inf is never
    found: in its place, at the end, there is -inf with the index -1. For fewer vectors than `k` it is their number.
    """
    k = min(k, len(stored.codes))
    rows = max(1, min(rows, MOST_KEPT // max(k, 1)))
    for start in range(0, len(queries) if k else 0, rows):
        few = queries[start : start + rows]
        best = _Best(len(few), k)
        for first, scores in score_blocks(few, stored, score_function, block):
            best.add(first, scores)
        yield start, *best.result()


class _Best:
    """The k best scores of each query so far, and whose they are.

    What may be among them waits until there is as much of it again, so that the sorting costs little.
    """

    def __init__(self, queries: int, k: int) -> None:
        self._scores: Floats = np.full((queries, k), -np.inf, np.float32)
        self._ids = np.full((queries, k), -1)
        self._waiting: list[
            tuple[Ints, Floats, Ints]
        ] = []  # queries, scores and ids, in ascending order of ids

    def add(self, first: int, scores: Floats) -> None:
        """Look at the scores (Q, B) of the vectors from that index on."""
        k = self._ids.shape[1]
        is_better = scores > self._scores[:, -1:]  # of equal ones the earlier stays
        found = np.flatnonzero(is_better)
        if k < scores.shape[1] and len(found) > 2 * self._ids.size:
            found = np.flatnonzero(is_better & (scores >= _largest(k, scores)))
        queries, columns = np.divmod(found, scores.shape[1])
        self._waiting.append((queries, scores.reshape(-1)[found], first + columns))
        if sum(len(ids) for *_, ids in self._waiting) >= self._ids.size:
            self._merge()

    def result(self) -> tuple[Floats, Ints]:
        """Return scores and ids (Q, k)."""
        self._merge()
        return self._scores, self._ids

    def _merge(self) -> None:
        count, k = self._ids.shape
        old = np.repeat(np.arange(count), k), self._scores.reshape(-1), self._ids.reshape(-1)
        queries, scores, ids = map(np.concatenate, zip(old, *self._waiting, strict=True))
        order = np.lexsort((ids, -scores, queries))
        starts = np.searchsorted(queries[order], np.arange(count))
        best = order[starts[:, np.newaxis] + np.arange(k)]  # each query has k at least: the old ones
        self._scores, self._ids, self._waiting = scores[best], ids[best], []


def _largest(k: int, scores: Floats) -> Floats:
    """Return the k-th largest number of each row (Q, 1); -inf where NaN leaves fewer."""
    negated = -scores
    negated.partition(k - 1, axis=1)  # NaN comes last
    kth = -negated[:, k - 1 : k]
    return np.where(np.isnan(kth), -np.inf, kth)


# --- What the functions are told -------------------------------------------------------------------------------


def at_least_1(name: str, value: object) -> int:
    """Return a number of vectors."""
    if (number := check_integer(name, value)) < 1:
        raise EncodeValueError(f"{name} is {shown(value)}; expected at least 1")
    return number


def at_most(most: int, name: str, value: object) -> int:
    """Return how many vectors are taken at a time: so many, or fewer where people ask for that."""
    return most if value is None else min(most, at_least_1(name, value))


def check_score_function(value: object) -> None:
    """Refuse what is neither a function nor the name of a similarity."""
    if not callable(value):
        check_choice("score_function", value, SIMILARITIES)
