"""The matrix multiply: weights packed once, then walked through by the tile of `minisbert.kernels.simd`.

The loop nest, outermost first::

    for each panel of B              COLUMNS columns of the weights, packed: K x COLUMNS floats, one after another
        for each tile of rows of A   at most ROWS rows, as even as they go
            tile: for each k         in registers; bias and residual are added as the sums are stored
            the activation           on the tile just stored, which is still in the innermost cache

Why so: a panel (49 kB for K = 384) is used for every row of the micro-batch before the next one is touched. So the
weights come through memory once for each micro-batch, the panel stays in the second-level cache and often in the
first, and A, at most a few hundred rows, stays in the second. The tile needs 128 bytes of B for 28 FMAs, 14 cycles:
a seventh of what that cache delivers. So K need not be split into blocks for speed, as BLAS libraries do for matrices
of any size; it is split into parts of 128 within the tile, for the sake of the sums' accuracy.

Rows that do not fill a tile: 15 rows are done as 8 + 7, not as 14 + 1. Any height from 8 on keeps both FMA units
busy, a height of 1 does not; and there is a tile for every height, so no row is computed in vain. Columns that
do not fill a panel are computed (on zeros) and left out.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minisbert.kernels.cache import c_function, part
from minisbert.kernels.shape import COLUMNS, LANES, ROWS, VECTORS
from minisbert.kernels.simd import call, gelu, gelu_tanh, make_tile, relu, silu, tanh

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
    chain = " ".join(
        f"\n        {'if' if h == ROWS else 'elif'} height == {h}: {call.format(h)}" for h in heights
    )
    scope = {f"tile_{h}": make_tile(h) for h in heights} | {"PART": PART, "__name__": __name__}
    exec(_TILE.format(chain=chain.strip()), scope)
    return scope["tile"]


# The address of the tile function in this process; kernels are given it, as they outlive the process on disk.
TILE = c_function(f"void({', '.join(['i8'] * 12)})")(_tile_of_any_height())


@part
def activate(c: int, c_step: int, height: int, code: int) -> None:
    """Apply an activation in place to a tile: `height` rows of COLUMNS floats at address c."""
    for i in range(height):
        for v in range(VECTORS):
            place = c + i * c_step + v * LANES * 4
            if code == 1:
                gelu(place)
            elif code == 2:
                gelu_tanh(place)
            elif code == 3:
                relu(place)
            elif code == 4:
                silu(place)
            elif code == 5:
                tanh(place)


@part
def copy(a: Any, row: int, left: int, b: Any, to_row: int, to_left: int, height: int, width: int) -> None:
    """Copy a part of a to a place in b; by loops, as slices of two dimensions take Numba seconds to compile."""
    for i in range(height):
        for j in range(width):
            b[to_row + i, to_left + j] = a[row + i, left + j]


@part
def multiply_panel(
    tile: int,
    p: int,
    x: Any,
    panels: Any,
    bias: Any,
    residual: Any,
    has_residual: bool,
    activation: int,
    y: Any,
) -> None:
    """``y = activation(x @ weight.T + bias + residual)`` for the columns of one panel: (N, K) -> (N, COLUMNS).

    No layer of ours has both a residual and an activation. The tiles of a panel that is not full are made beside y,
    and what counts of them is copied.
    """
    N, K = x.shape
    width = y.shape[1]
    zeros = np.zeros(COLUMNS, np.float32)
    z, b_step = zeros.ctypes.data, COLUMNS * 4
    left = p * COLUMNS
    full = left + COLUMNS <= width
    right = min(left + COLUMNS, width)
    edge, beside = np.empty((ROWS, COLUMNS), np.float32), np.zeros((ROWS, COLUMNS), np.float32)
    b, d = panels.ctypes.data + p * K * b_step, bias.ctypes.data + left * 4
    tiles = (N + ROWS - 1) // ROWS
    row = 0
    for t in range(tiles):
        height = (N - row) // (tiles - t)
        a, offset = x.ctypes.data + row * K * 4, (row * width + left) * 4
        c, c_step, r, r_step = edge.ctypes.data, b_step, z, 0
        if full:
            c, c_step = y.ctypes.data + offset, width * 4
        if has_residual and full:
            r, r_step = residual.ctypes.data + offset, width * 4
        elif has_residual:
            copy(residual, row, left, beside, 0, 0, height, right - left)
            r, r_step = beside.ctypes.data, b_step
        call(tile, (height, a, K * 4, b, b_step, K, c, c_step, d, r, r_step, z))
        if activation:
            activate(c, c_step, height, activation)
        if not full:
            copy(edge, 0, 0, y, row, left, height, right - left)
        row += height
