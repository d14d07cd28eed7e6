"""Weights in the order in which the matrix multiply of `minisbert.kernels.source.gemm` reads them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from minisbert.arrays import Floats
from minisbert.kernels import layout
from minisbert.kernels.tuning import count_panels, start_of_panel

__all__ = ["Packed", "pack"]


@dataclass(frozen=True)
class Packed:
    """The weights of ``y = x @ weight.T + bias`` as `gemm.multiply_panel` reads them.

    P panels one after the other, each (K, its columns), with zeros after the last column; the bias, padded
    with zeros to whole panels; and K and the number of columns that count.
    """

    panels: Floats
    bias: Floats
    K: int
    width: int

    @property
    def P(self) -> int:
        """The number of panels."""
        return count_panels(self.width)[1]


def pack(weight: Floats, bias: Floats) -> Packed:
    """Pack a weight (O, K) and its bias (O,) of any float dtype into float32 panels."""
    width, K = weight.shape
    wide, P = count_panels(width)
    starts = [start_of_panel(p, wide) for p in range(P + 1)]
    numbers, padded = layout.for_weights(starts[-1] * K), np.zeros(starts[-1], np.float32)
    for start, stop in pairwise(starts):
        rows, panel = weight[start:stop], numbers[start * K : stop * K].reshape(K, stop - start)
        panel[:, : len(rows)] = rows.T
    padded[:width] = bias
    return Packed(numbers, padded, K, width)
