"""How fast a processor can multiply matrices at the very most: multiply-adds, with all inputs in the first cache.

Nothing is fetched, stored or waited for, and no tile that fits in the registers has fewer loads. NumPy's BLAS, which
`measure.ceiling` times, is some way below this, and no float32 engine gets above it.

Why there are loads at all: a loop on registers alone is hardly faster where a core has nothing else to do. But where
its second thread is another customer's, every multiply shares the core's loads with that, and slows down; a loop
without loads would not, and promise what no multiply can reach.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from minisbert.kernels.layout import address, room_for
from minisbert.kernels.source import microkernel, vector
from minisbert.kernels.tuning import LANES, MR, VECTORS

__all__ = ["AT_ONCE", "OPERATIONS", "STEPS", "TALL", "WIDE", "multiply_add", "run"]

# Of 32 registers 5 x 5 sums, 5 vectors of B and 1 number of A take 31, and 10 loads serve 25 multiply-adds. Of 16, a
# tile of 4 x 3 takes all, with 7 loads for 12.
TALL, WIDE = (5, 5) if MR * VECTORS > 16 else (4, 3)
OPERATIONS = 2 * TALL * WIDE * LANES  # a step
STEPS = 32  # after which it starts again at the first number: 11 kB, which stay in the first cache
AT_ONCE = 4


@intrinsic
def _steps(_typing: Any, a: Any, b: Any, count: Any) -> Any:
    """Make so many steps on a tile of sums that stay in registers; return one number, so that none is left out."""

    def emit(_context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        a, panel, count = arguments
        rows, columns = range(TALL), range(WIDE)

        def update(k: Any, ahead: int, sums: microkernel.Sums) -> microkernel.Sums:
            step = b.and_(k, k.type(STEPS - 1))
            here = b.add(panel, b.mul(step, k.type(4 * LANES * WIDE)))
            vectors = [
                b.load(microkernel._at(b, here, k.type(4 * LANES * WIDE), ahead, v), align=4) for v in columns
            ]
            news = {}
            for i in rows:
                place = b.add(a, b.add(b.mul(step, k.type(4)), k.type(4 * (i * STEPS + ahead))))
                number = vector.splat(b, b.load(b.inttoptr(place, vector.FLOAT.as_pointer())))
                news |= {(i, v): vector.fma(b, number, vectors[v], sums[i, v]) for v in columns}
            return news

        sums = {(i, v): vector.constant(0.0) for i in rows for v in columns}
        _, sums = microkernel.loop_over(b, count.type(0), count, AT_ONCE, sums, update)
        first, *others = sums.values()
        for total in others:
            first = b.fadd(first, total)
        return b.extract_element(first, ir.IntType(32)(0))

    return types.float32(types.int64, types.int64, types.int64), emit


@numba.njit("float32(int64, int64, int64)", nogil=True)
def run(a: int, b: int, steps: int) -> np.float32:
    """Make so many steps on the numbers at the addresses a and b: (TALL, STEPS) and (STEPS, WIDE * LANES)."""
    return _steps(a, b, steps)


def multiply_add(steps: int) -> float:
    """Make so many steps, a multiple of AT_ONCE, of OPERATIONS additions and multiplications each."""
    a, b = room_for(TALL * STEPS), room_for(STEPS * WIDE * LANES)
    a[:], b[:] = 1, 1
    return float(run(address(a), address(b), steps))
