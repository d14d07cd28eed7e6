"""Which rows are in which step: a plan that depends on the seed alone, so that a run can go on in the middle of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, chain, count, islice
from typing import TypeAlias

import numpy as np

from minisbert.errors import EncodeValueError
from minisbert.training.data import DataSet
from minisbert.training.settings import Settings

__all__ = ["Batch", "Plan"]

# A data set, and some of its rows.
Batch: TypeAlias = "tuple[DataSet, list[int]]"


class Plan:
    """The steps of a run, in epochs.

    Attributes
    ----------
    ends : list of int
        After how many steps each epoch ends.

    Raises
    ------
    EncodeValueError
        If there are fewer rows than a batch has, or none that could be ranked.
    """

    def __init__(self, settings: Settings, sets: Sequence[DataSet]) -> None:
        self._settings, self._sets = settings, sets
        fewest = min(len(data.rows) for data in sets)
        if settings.batch_size > fewest:
            raise EncodeValueError(
                f"batch_size is {settings.batch_size}, and there are {fewest} rows; expected at most as many"
            )
        lengths = [settings.steps_per_epoch or len(self._batches(epoch)) for epoch in range(settings.epochs)]
        self.ends = list(accumulate(lengths))

    def steps(self, start: int) -> Iterator[Batch]:
        """Yield the batch of each step from number `start` on, counted from 0."""
        return islice(chain.from_iterable(map(self._batches, count())), start, self.ends[-1])

    def _batches(self, number: int) -> list[Batch]:
        """Return the batches of a pass over the data: each of one data set, and each pass in an order of its own.

        Data sets are drawn by their size, until all are used up; or in turn, until one is.
        """
        s, random = self._settings, np.random.default_rng([self._settings.seed, 0, number])
        each = [[(data, batch) for batch in self._cut(data, random)] for data in self._sets]
        found = list(chain.from_iterable(zip(*each, strict=False) if s.sampling == "round_robin" else each))
        if s.sampling == "proportional" and s.shuffle and len(each) > 1:
            found = [found[i] for i in random.permutation(len(found))]
        if not found:
            raise EncodeValueError(
                "no two rows have no text in common; pass no_duplicates=False to rank them anyway"
            )
        return found

    def _cut(self, data: DataSet, random: np.random.Generator) -> list[list[int]]:
        """Cut a data set into batches; a single row that is left over can't be ranked."""
        s, size = self._settings, self._settings.batch_size
        order: list[int] = (random.permutation if s.shuffle else np.arange)(len(data.rows)).tolist()
        if s.no_duplicates:
            found = _without_duplicates(data.rows, order, size)
        else:
            found = [order[start : start + size] for start in range(0, len(order), size)]
        return [batch for batch in found if s.is_scored or len(batch) > 1]


def _without_duplicates(
    rows: Sequence[tuple[str, ...]], order: list[int], batch_size: int
) -> list[list[int]]:
    """Fill each batch with the first rows left that share no text with it: others wait for a later batch."""
    found, left = [], dict.fromkeys(order)
    while left:
        batch: list[int] = []
        texts: set[str] = set()
        for row in left:
            if texts.isdisjoint(rows[row]):
                batch.append(row)
                texts.update(rows[row])
                if len(batch) == batch_size:
                    break
        for row in batch:
            del left[row]
        found.append(batch)
    return found
