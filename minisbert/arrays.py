"""The types of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["SCALED", "Floats", "Int8Rows", "Ints"]

Floats: TypeAlias = NDArray[np.floating[Any]]
Ints: TypeAlias = NDArray[np.integer[Any]]

SCALED = 128  # numbers of a table's row that have one scale


@dataclass(frozen=True)
class Int8Rows:
    """Rows of int8 (R, K) and their scales: of a matrix (R,); of a table (R, ceil(K / 128)), for 128 numbers each."""

    numbers: NDArray[np.int8]
    scales: NDArray[np.float32]

    @property
    def shape(self) -> tuple[int, ...]:
        """R and K."""
        return self.numbers.shape

    @property
    def dtype(self) -> np.dtype[np.int8]:
        """int8."""
        return self.numbers.dtype

    def __getitem__(self, rows: Ints) -> NDArray[np.float32]:
        """Look up rows (N,) of a table: ``numbers * scale``, (N, K)."""
        numbers = self.numbers[rows]
        return numbers * np.repeat(self.scales[rows], SCALED, axis=1)[:, : numbers.shape[1]]

    @classmethod
    def concatenate(cls, parts: Sequence[Int8Rows]) -> Int8Rows:
        """Put the rows of all parts below each other."""
        numbers, scales = ([getattr(part, name) for part in parts] for name in ("numbers", "scales"))
        return cls(np.concatenate(numbers), np.concatenate(scales))
