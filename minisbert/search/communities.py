"""`community_detection`: groups of vectors around a central one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minisbert.arrays import Ints
from minisbert.engine.collect import Progress
from minisbert.errors import EncodeTypeError, EncodeValueError, shown
from minisbert.search.nearest import ROWS, at_least_1, at_most, score_blocks
from minisbert.search.stored import Stored, read_stored

__all__ = ["community_detection"]

MOST_HELD = 1 << 22  # neighbours of vectors that are looked up at a time


def community_detection(
    embeddings: ArrayLike,
    threshold: float = 0.75,
    min_community_size: int = 10,
    batch_size: int = 1024,
    show_progress_bar: bool | Callable[[int], object] | None = False,
    *,
    precision: str = "float32",
    ranges: ArrayLike | None = None,
) -> list[list[int]]:
    """Find communities: vectors whose cosine similarity to a central one is at least `threshold`.

    Neighbours are counted first, and looked up afterwards where there are enough, some millions at a time. So memory
    is bounded however many there are.

    Parameters
    ----------
    embeddings : array_like, shape (N, D) or (N, ceil(D / 8))
        Vectors, as they are stored.
    threshold : float
        The lowest cosine similarity to the centre, -1 to 1.
    min_community_size : int
        How many vectors a community has at least.
    batch_size : int
        The most vectors that are compared with all others at a time.
    show_progress_bar : bool or callable, optional
        As in `SentenceEncoder.encode`.
    precision, ranges
        As ``corpus_precision`` and ``ranges`` in `semantic_search`.

    Returns
    -------
    list of list of int
        Communities, the largest first; no vector is in two of them. The first index of one is that of its centre, the
        others follow from the nearest to the farthest.

    Raises
    ------
    EncodeTypeError, EncodeValueError
        If an argument is impossible.
    """
    smallest = at_least_1("min_community_size", min_community_size)
    rows = at_most(ROWS, "batch_size", batch_size)
    lowest = _read_threshold(threshold)
    stored = read_stored("embeddings", embeddings, precision, ranges)
    count = len(stored.codes)
    with closing(Progress(count, show_progress_bar, "vector", "Finding clusters")) as progress:
        sizes = _count_neighbours(stored, lowest, rows, progress)
    used = np.zeros(count, bool)
    communities: list[list[int]] = []
    for center, near in _neighbourhoods(stored, lowest, np.where(sizes < smallest, 0, sizes), used, rows):
        free = near[~used[near]]
        if len(free) >= smallest:
            communities.append([center, *free[free != center].tolist()])
            used[communities[-1]] = True
    return sorted(communities, key=len, reverse=True)


def _read_threshold(threshold: object) -> np.float32:
    """Return the threshold in float32, as the reference compares."""
    if isinstance(threshold, bool) or not isinstance(threshold, int | float | np.integer | np.floating):
        raise EncodeTypeError(f"threshold is {shown(threshold)}; expected a number")
    if not -1 <= threshold <= 1:
        raise EncodeValueError(f"threshold is {shown(threshold)}; expected a cosine similarity, -1 to 1")
    return np.float32(threshold)


def _count_neighbours(stored: Stored, lowest: np.float32, rows: int, progress: Progress) -> Ints:
    """Count how many vectors are near enough to each, itself included."""
    sizes = np.zeros(len(stored.codes), np.int64)
    for start in range(0, len(sizes), rows):
        some = sizes[start : start + rows]
        for _, scores in score_blocks(stored.floats(slice(start, start + rows)), stored, "cosine"):
            some += np.count_nonzero(scores >= lowest, axis=1)
        progress.update(len(some))
    return sizes


def _neighbourhoods(
    stored: Stored, lowest: np.float32, sizes: Ints, used: NDArray[np.bool_], rows: int
) -> Iterator[tuple[int, Ints]]:
    """Yield each vector that has neighbours and is not used, those with most first, with these, the nearest first."""
    centers = np.argsort(-sizes, kind="stable")[: np.count_nonzero(sizes)]
    while len(centers := centers[~used[centers]]):
        held = int(np.searchsorted(np.cumsum(sizes[centers[:rows]]), MOST_HELD, "right"))
        few, centers = np.split(centers, [max(1, held)])
        for center, near in zip(few.tolist(), _neighbours(stored, few, lowest), strict=True):
            if not used[center]:
                yield center, near


def _neighbours(stored: Stored, centers: Ints, lowest: np.float32) -> list[Ints]:
    """Return for each of these vectors the indices of those that are near enough, the nearest first."""
    found = []
    for first, scores in score_blocks(stored.floats(centers), stored, "cosine"):
        rows, columns = np.nonzero(scores >= lowest)
        found.append((rows, first + columns, scores[rows, columns]))
    rows, ids, scores = map(np.concatenate, zip(*found, strict=True))
    order = np.lexsort((ids, -scores, rows))
    return np.split(ids[order], np.searchsorted(rows[order], np.arange(1, len(centers))))
