"""Weights in the order in which the matrix multiply of `minisbert.kernels.gemm` reads them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from minisbert.kernels import Floats, memory
from minisbert.kernels.shape import COLUMNS

__all__ = ["ACTIVATIONS", "Packed", "pack"]

# The numbers that `gemm.activate` is given; 0 stands for none.
ACTIVATIONS = {
    None: 0,
    "gelu": 1,
    "gelu_new": 2,
    "gelu_pytorch_tanh": 2,
    "relu": 3,
    "silu": 4,
    "swish": 4,
    "tanh": 5,
}


@dataclass(frozen=True)
class Packed:
    """The weights of ``y = x @ weight.T + bias`` as `gemm.multiply_panel` reads them.

    panels (P, K, COLUMNS), contiguous, zeros after the last column; bias (P * COLUMNS,) likewise; and the number
    of columns that count.
    """

    panels: Floats
    bias: Floats
    width: int

    @cached_property
    def address(self) -> int:
        """Where the panels are, asked for once."""
        return memory.address(self.panels)

    @cached_property
    def bias_address(self) -> int:
        """Where the bias is."""
        return memory.address(self.bias)


def pack(weight: Floats, bias: Floats) -> Packed:
    """Pack a weight (O, K) and its bias (O,) of any float dtype into float32 panels."""
    width, K = weight.shape
    P = -(-width // COLUMNS)
    panels = memory.for_weights(P * K * COLUMNS).reshape(P, K, COLUMNS)
    for p in range(P):
        rows = weight[p * COLUMNS : (p + 1) * COLUMNS]
        panels[p, :, : len(rows)] = rows.T
    padded = np.zeros(P * COLUMNS, np.float32)
    padded[:width] = bias
    return Packed(panels, padded, width)
