"""How many multiply-adds a processor can make: what it reaches when nothing is loaded, stored or waited for.

NumPy's BLAS, which `measure.ceiling` times, is itself some way below this, and no float32 engine gets above it.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from minisbert.kernels import elementary, simd
from minisbert.kernels.shape import LANES, ROWS, VECTORS

__all__ = ["OPERATIONS", "multiply_add"]

# In each step every sum of a tile is multiplied and added to once.
OPERATIONS = 2 * ROWS * VECTORS * LANES


@intrinsic
def _steps(_typing: Any, count: Any) -> Any:
    """Make so many steps on a tile of sums that stay in registers; return one number, so that none is left out."""

    def emit(_context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        start, (half, one) = ir.IntType(64)(0), map(elementary.constant, (0.5, 1.0))

        def update(_k: Any, _ahead: int, sums: simd.Sums) -> simd.Sums:
            return {place: elementary.fma(b, total, half, one) for place, total in sums.items()}

        # Different ones, as equal sums would be computed once; and not 2, which stays 2, so nothing would be computed.
        sums = {
            (i, v): elementary.constant(float(3 + i * VECTORS + v))
            for i in range(ROWS)
            for v in range(VECTORS)
        }
        _, sums = simd._loop(b, start, arguments[0], 1, sums, update)
        first, *others = sums.values()
        for total in others:
            first = b.fadd(first, total)
        return b.extract_element(first, ir.IntType(32)(0))

    return types.float32(types.int64), emit


@numba.njit("float32(int64)", nogil=True)
def multiply_add(steps: int) -> np.float32:
    """Make so many steps of OPERATIONS additions and multiplications each."""
    return _steps(steps)
