"""Weights in the order in which the matrix multiplies of `minisbert.kernels.source` read them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minisbert.arrays import Floats
from minisbert.kernels import layout
from minisbert.kernels.operations import ARITHMETICS
from minisbert.kernels.reference import narrow
from minisbert.kernels.tuning import (
    FIRST_TILES,
    IS_ARM,
    NARROW_NR,
    NR,
    OFFSET,
    count_panels,
    per_word,
    start_of_panel,
    word_bytes,
    words,
)

__all__ = ["Packed", "empty", "packed_narrow"]


class Packed(NamedTuple):
    """The weights of ``y = x @ weight.T + bias`` as the micro-kernels read them.

    P panels one after the other, each (K, its columns), with zeros after the last column; the bias, padded
    with zeros to whole panels; and K and the number of columns that count.

    In fewer bits `arithmetic` says how they are multiplied, by its place in `operations.ARITHMETICS`. The panels are
    bytes then; where they are not widened, those of a column that are multiplied together are next to each other.
    Columns of int8 have scales, padded as the bias is.
    """

    panels: NDArray[Any]
    bias: Floats
    K: int
    width: int
    arithmetic: int | None = None
    scales: Floats | None = None

    @property
    def P(self) -> int:
        """The number of panels."""
        return (
            count_panels(self.width)[1]
            if self.arithmetic is None
            else len(_starts(self.width, self.arithmetic)) - 1
        )

    @property
    def is_integer(self) -> bool:
        """Whether rows that are multiplied are integers, with a scale behind them."""
        return self.arithmetic is not None and self.arithmetic % 2 == 1


def empty(bias: Floats, K: int) -> Packed:
    """Return the float32 panels, all zeros, of a weight (O, K) whose bias (O,) is given."""
    wide, P = count_panels(len(bias))
    columns = start_of_panel(P, wide)
    return Packed(layout.for_weights(columns * K), _padded(bias, columns), K, len(bias))


def packed_narrow(weight: Floats, bias: Floats, dtype: str, arithmetic: str) -> Packed:
    """Round a weight (O, K), and pack it for an arithmetic."""
    (width, K), code = weight.shape, ARITHMETICS.index(arithmetic)
    numbers: NDArray[Any]
    scales: Floats = np.zeros(0, np.float32)
    if dtype == "int8":
        numbers, scales = narrow.integers_of_weight(weight)
    elif dtype == "bfloat16":
        numbers = (narrow.to_bfloat16(weight).view(np.uint32) >> 16).astype(np.uint16)
    else:
        numbers = weight.astype(np.float16)
    starts = _starts(width, code)
    if per_word(code) > 1:
        numbers = _in_words(numbers, words(K, code), word_bytes(code))  # (O, words)
    if arithmetic == "int8 tiles" and IS_ARM:
        numbers = numbers.view(np.int64)  # two words of a column at a time: see `source.smmla`
    step = words(K, code) * word_bytes(code)  # bytes of a column
    panels = layout.for_weights(-(-starts[-1] * step // 4)).view(np.uint8)
    for start, stop in pairwise(starts):
        rows = numbers[start:stop]
        panel = panels[start * step : stop * step].view(numbers.dtype).reshape(-1, stop - start)
        panel[:, : len(rows)] = rows.T
    of_columns = _padded(scales, starts[-1])
    if arithmetic in ("int8 dot", "int8 pairs"):  # what sums begin with: see `source.dot`
        begin = np.zeros(starts[-1], np.int32)
        if arithmetic == "int8 dot":
            begin[:width] = -OFFSET * numbers.view(np.int8).sum(axis=1, dtype=np.int32)
        of_columns = np.concatenate([of_columns, begin.view(np.float32)])
    return Packed(panels, _padded(bias, starts[-1]), K, width, code, of_columns)


def _starts(width: int, arithmetic: int) -> list[int]:
    """Return where each panel starts, and the last one ends."""
    wide = count_panels(width)[0] if arithmetic < FIRST_TILES else 0
    narrow_ones = -(-(width - wide * NR) // NARROW_NR)
    return [start_of_panel(p, wide) for p in range(wide + narrow_ones + 1)]


def _in_words(numbers: NDArray[Any], count: int, size: int) -> NDArray[Any]:
    """Put the numbers of each row side by side into so many words of `size` bytes, zeros behind them."""
    wide = np.zeros((len(numbers), size * count // numbers.itemsize), numbers.dtype)
    wide[:, : numbers.shape[1]] = numbers
    return wide.view(f"i{size}")


def _padded(x: Floats, count: int) -> Floats:
    y = np.zeros(count, np.float32)
    y[: len(x)] = x
    return y
