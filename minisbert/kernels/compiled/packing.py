"""Weights in the order in which the matrix multiply of `minisbert.kernels.source.gemm` reads them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from minisbert.arrays import Floats
from minisbert.kernels import layout
from minisbert.kernels.tuning import count_panels, start_of_panel

__all__ = ["Packed", "empty"]


class Packed(NamedTuple):
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


def empty(bias: Floats, K: int) -> Packed:
    """Return the panels, all zeros, of a weight (O, K) whose bias (O,) is given."""
    width = len(bias)
    wide, P = count_panels(width)
    columns = start_of_panel(P, wide)
    padded = np.zeros(columns, np.float32)
    padded[:width] = bias
    return Packed(layout.for_weights(columns * K), padded, K, width)
