"""The matrix multiply: weights packed once, then walked through by the tile of `minisbert.kernels.simd`.

The loop nest, outermost first::

    for each panel of B              COLUMNS columns of the weights, packed: K x COLUMNS floats, one after another
        for each tile of rows of A   at most ROWS rows, as even as they go
            tile: for each k         in registers; bias and residual are added as the sums are stored
            the activation           on the tile just stored, which is still in the innermost cache

Why so: a panel (49 kB for K = 384) is used for every row of the micro-batch before the next one is touched. So the
weights come through memory once for each micro-batch, the panel stays in the second-level cache and often in the
first, and A, at most a few hundred rows, stays in the second. The tile needs 128 bytes of B for 28 FMAs, 14 cycles:
a seventh of what that cache delivers. Splitting K into blocks as well, as BLAS libraries do for matrices of any size,
gained nothing here and would store and reload the sums.

Rows that do not fill a tile: 15 rows are done as 8 + 7, not as 14 + 1. Any height from 8 on keeps both FMA units
busy, a height of 1 does not; and there is a tile for every height, so no row is computed in vain. Columns that
do not fill a panel are computed (on zeros) and left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from minisbert.kernels import Floats
from minisbert.kernels.cache import c_function, kernel
from minisbert.kernels.simd import COLUMNS, ROWS, call_tile, gelu, gelu_tanh, make_tile, relu, silu, tanh

# The order is the code's that `multiply` is given; 0 stands for none.
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
    """The weights of ``y = x @ weight.T + bias`` as `multiply` reads them.

    panels (P, K, COLUMNS), contiguous, zeros after the last column; bias (P * COLUMNS,) likewise; and the number
    of columns that count.
    """

    panels: Floats
    bias: Floats
    width: int


def pack(weight: Floats, bias: Floats) -> Packed:
    """Pack a weight (O, K) and its bias (O,) of any float dtype into float32 panels."""
    O, K = weight.shape
    P = -(-O // COLUMNS)
    panels = np.zeros((P, K, COLUMNS), np.float32)
    for p in range(P):
        rows = weight[p * COLUMNS : (p + 1) * COLUMNS]
        panels[p, :, : len(rows)] = rows.T
    padded = np.zeros(P * COLUMNS, np.float32)
    padded[:O] = bias
    return Packed(panels, padded, O)


# A sum over k is made in parts of so many terms, which are then added up. A float32 sum of thousands of terms, one
# after the other, loses twice the digits; smaller parts would be stored and loaded too often.
PART = 128

_TILE = """
def tile(height, a, a_step, b, b_step, steps, c, c_step, bias, residual, residual_step, zeros):
    k, d, d_step = 0, bias, 0
    while k < steps:
        part = min(PART, steps - k)
        e, e_step = zeros, 0
        if k + part == steps:
            e, e_step = residual, residual_step
        A, B = a + 4 * k, b + b_step * k
        {chain}
        k, d, d_step = k + part, c, c_step
"""


def _tile_of_any_height() -> Any:
    """Make ``C = A B + bias + residual`` for a tile of any height: a chain of ifs, as Numba can't index functions."""
    call = "tile_{0}(A, a_step, B, b_step, part, c, c_step, d, d_step, e, e_step)"
    heights = range(ROWS, 0, -1)
    chain = " ".join(f"\n        {'if' if h == ROWS else 'elif'} height == {h}: {call.format(h)}" for h in heights)
    scope = {f"tile_{h}": make_tile(h) for h in heights} | {"PART": PART, "__name__": __name__}
    exec(_TILE.format(chain=chain.strip()), scope)
    return scope["tile"]


# The address of the tile function in this process; kernels are given it, as they outlive the process on disk.
TILE = c_function(f"void({', '.join(['i8'] * 12)})")(_tile_of_any_height())


@njit
def activate(c: Any, first: int, last: int, left: int, right: int, code: int) -> None:
    """Apply an activation in place to the rows and columns of a part of c."""
    for i in range(first, last):
        if code == 1:
            for j in range(left, right):
                c[i, j] = gelu(c[i, j])
        elif code == 2:
            for j in range(left, right):
                c[i, j] = gelu_tanh(c[i, j])
        elif code == 3:
            for j in range(left, right):
                c[i, j] = relu(c[i, j])
        elif code == 4:
            for j in range(left, right):
                c[i, j] = silu(c[i, j])
        elif code == 5:
            for j in range(left, right):
                c[i, j] = tanh(c[i, j])


@kernel("void(i8, f4[:,::1], f4[:,:,::1], f4[::1], f4[:,::1], i8, f4[:,::1], i8, i8)")
def multiply(
    tile: int, x: Any, panels: Any, bias: Any, residual: Any, activation: int, y: Any, first_panel: int, last_panel: int
) -> None:
    """``y = activation(x @ weight.T + bias) + residual`` for some of the panels: (N, K) -> (N, O).

    A residual of no rows stands for none. It is added before the activation: no layer has both. y may be the
    residual itself.
    """
    N, K = x.shape
    O = y.shape[1]
    zeros = np.zeros(COLUMNS, np.float32)
    z = zeros.ctypes.data
    edge = np.empty((ROWS, COLUMNS), np.float32)  # where the tiles of a panel that is not full are stored
    tiles = (N + ROWS - 1) // ROWS
    for p in range(first_panel, last_panel):
        left = p * COLUMNS
        full = left + COLUMNS <= O
        row = 0
        for t in range(tiles):
            height = (N - row) // (tiles - t)
            a, b = x.ctypes.data + row * K * 4, panels.ctypes.data + p * K * COLUMNS * 4
            c, r, r_step = y.ctypes.data + (row * O + left) * 4, z, 0
            if full and len(residual):
                r, r_step = residual.ctypes.data + (row * O + left) * 4, O * 4
            if full:
                call_tile(tile, height, a, K * 4, b, COLUMNS * 4, K, c, O * 4, bias.ctypes.data + left * 4, r, r_step, z)
            else:
                e = edge.ctypes.data
                call_tile(tile, height, a, K * 4, b, COLUMNS * 4, K, e, COLUMNS * 4, bias.ctypes.data + left * 4, z, 0, z)
                for i in range(height):
                    for j in range(left, O):
                        y[row + i, j] = edge[i, j - left] + (residual[row + i, j] if len(residual) else np.float32(0))
            if activation:
                activate(y, row, row + height, left, min(left + COLUMNS, O), activation)
            row += height
