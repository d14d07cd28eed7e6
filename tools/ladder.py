"""Climb from three plain loops to the matrix multiply of `minisbert.kernels`, one idea a rung, and time each.

    python tools/dev.py ladder

The task is one of BERT's: 512 rows of width 384 times weights of 384 x 1536, in float32 on one thread. Every rung is
compared with float64 before anything is timed, and all are timed in turns. The ceiling is what NumPy's BLAS reaches in
half a second of multiplying matrices of about this size. Why the last rung looks as it does is explained where it
stands, in `minisbert/kernels/source`: `microkernel.py` and `gemm.py`. Three more multiply numbers of fewer bits,
by the best instructions that this processor has, which `narrow.py`, `dot.py`, `amx.py` and `smmla.py` are about.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from minisbert.kernels.reference.blas import one_blas_thread
from tests.support.backends import compiled
from tools.bench.measure import ceiling, interleave
from tools.bench.report import ranged, table

__all__ = ["RUNGS", "Rung", "check"]

Matrix = NDArray[np.float32]
Multiply = Callable[[Matrix], Matrix]

ROWS, K, WIDTH = 512, 384, 1536
BLOCK = 64  # columns of b that are worked on together; the loops ask that it divides their number
HEIGHT = 4  # rows of a that are worked on together; it has to divide their number
ROUNDS = 5
# Of an element, as a part of the norms of its row and column.
LARGEST_ERRORS = {"float16": 3e-4, "bfloat16": 3e-3, "int8": 3e-2}
LARGEST_ERROR = 1e-5  # of all other rungs


# --- The rungs: c = a @ b ---------------------------------------------------------------------------------


@numba.njit
def naive(a: Any, b: Any, c: Any) -> None:
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            total = np.float32(0)
            for k in range(b.shape[0]):
                total += a[i, k] * b[k, j]
            c[i, j] = total


@numba.njit
def blocked(a: Any, b: Any, c: Any) -> None:
    for left in range(0, b.shape[1], BLOCK):
        for i in range(a.shape[0]):
            sums = np.zeros(BLOCK, np.float32)
            for k in range(b.shape[0]):
                row = b[k, left : left + BLOCK]
                for j in range(BLOCK):
                    sums[j] += a[i, k] * row[j]
            c[i, left : left + BLOCK] = sums


def panels_of(b: Matrix) -> Matrix:
    """Copy b such that each block of columns is one piece of memory: (K, WIDTH) to (P, K, BLOCK)."""
    return np.ascontiguousarray(b.reshape(len(b), -1, BLOCK).transpose(1, 0, 2))


@numba.njit
def packed(a: Any, panels: Any, c: Any) -> None:
    for p in range(panels.shape[0]):
        for i in range(a.shape[0]):
            sums = np.zeros(BLOCK, np.float32)
            for k in range(panels.shape[1]):
                for j in range(BLOCK):
                    sums[j] += a[i, k] * panels[p, k, j]
            c[i, p * BLOCK : (p + 1) * BLOCK] = sums


@numba.njit
def tiled(a: Any, panels: Any, c: Any) -> None:
    for p in range(panels.shape[0]):
        for i in range(0, a.shape[0], HEIGHT):
            sums = np.zeros((HEIGHT, BLOCK), np.float32)
            for k in range(panels.shape[1]):
                a0, a1, a2, a3 = a[i, k], a[i + 1, k], a[i + 2, k], a[i + 3, k]
                for j in range(BLOCK):
                    sums[0, j] += a0 * panels[p, k, j]
                    sums[1, j] += a1 * panels[p, k, j]
                    sums[2, j] += a2 * panels[p, k, j]
                    sums[3, j] += a3 * panels[p, k, j]
            c[i : i + HEIGHT, p * BLOCK : (p + 1) * BLOCK] = sums


# --- How each is used -------------------------------------------------------------------------------------


def into_new(loops: Any, prepare: Callable[[Matrix], Matrix], b: Matrix) -> Multiply:
    """Return a rung's multiply by b, which is prepared once, as weights are when a model is loaded."""
    prepared = prepare(b)

    def multiply(a: Matrix) -> Matrix:
        c = np.empty((len(a), b.shape[1]), np.float32)
        loops(a, prepared, c)
        return c

    return multiply


def micro_kernel(dtype: str, b: Matrix) -> Multiply:
    dense = compiled.pack(np.ascontiguousarray(b.T), np.zeros(b.shape[1], "float32"), dtype)
    return lambda a: np.asarray(compiled.linear(a, dense), np.float32)


class Rung(NamedTuple):
    """A way to multiply by a matrix, and why it is faster than the one before."""

    why: str
    prepared: Callable[[Matrix], Multiply]


RUNGS = {
    "naive loops": Rung(
        "the definition; b is read down its columns, a cache line for each number, "
        "and each sum waits for the one before",
        partial(into_new, naive, np.asarray),
    ),
    "blocked": Rung(
        "a row of sums at a time, of a block of columns small enough to stay in cache: b is read along its rows, and "
        "many sums are under way, which the compiler does a vector at a time",
        partial(into_new, blocked, np.asarray),
    ),
    "packed panels": Rung(
        "each block is copied together once: it is read from end to end, "
        "without jumps of a whole row that caches and prefetchers dislike",
        partial(into_new, packed, panels_of),
    ),
    "four rows at once": Rung(
        "each vector of b that was loaded serves four rows; what limits it now is that the sums "
        "are loaded and stored in every step",
        partial(into_new, tiled, panels_of),
    ),
    "micro-kernel": Rung(
        "a tile of as many sums as there are registers stays in them over all of k; no loop can ask "
        "for that, so it is written in the compiler's own language",
        partial(micro_kernel, "float32"),
    ),
    "float16": Rung(
        "half the bytes come from memory; they become float32 in the first-level cache, so many rows are no faster: "
        "a single short text is, where memory is what it waits for",
        partial(micro_kernel, "float16"),
    ),
    "bfloat16": Rung(
        "two products and their sum in a lane, or whole tiles of them, where the processor has such an instruction",
        partial(micro_kernel, "bfloat16"),
    ),
    "int8": Rung(
        "four products in a lane; rows are rotated first, so that no number is much larger than the others, "
        "and rounded to 255 steps",
        partial(micro_kernel, "int8"),
    ),
    "np.matmul": Rung("NumPy's BLAS, for comparison", lambda b: lambda a: a @ b),
}


# --- Checking and timing ----------------------------------------------------------------------------------


def check(name: str, multiply: Multiply, a: Matrix, b: Matrix) -> float:
    """Return the largest error of an element, relative to its row's and column's norms; stop if it is too large."""
    exact = a.astype(np.float64) @ b.astype(np.float64)
    norms = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=0)
    error = float((np.abs(multiply(a) - exact) / norms).max())
    if not error <= LARGEST_ERRORS.get(name, LARGEST_ERROR):
        sys.exit(f"ladder: {name} is off by {error:.1e}, so its speed says nothing")
    return error


def rate(multiply: Multiply, a: Matrix, gflop: float) -> float:
    """Return GFLOP/s over a tenth of a second, or over one multiply if that takes longer."""
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < 0.1:
        multiply(a)
        count += 1
    return count * gflop / (time.perf_counter() - start)


def main() -> None:
    generator = np.random.default_rng(0)
    a = generator.standard_normal((ROWS, K), np.float32)
    b = generator.standard_normal((K, WIDTH), np.float32)
    multiplies = {name: rung.prepared(b) for name, rung in RUNGS.items()}
    with ExitStack() as stack:
        stack.enter_context(one_blas_thread())
        stack.enter_context(compiled.threads(1))
        errors = {name: check(name, multiply, a, b) for name, multiply in multiplies.items()}
        turns = {
            name: partial(rate, multiply, a, 2 * ROWS * K * WIDTH / 1e9)
            for name, multiply in multiplies.items()
        }
        rates = interleave({**turns, "ceiling": partial(ceiling, 1)}, ROUNDS)
    top = statistics.median(rates["ceiling"])
    print(__doc__.splitlines()[0], f"\n\nceiling: {ranged(rates['ceiling'], 0)} GFLOP/s\n")
    rows = []
    for name, error in errors.items():
        share = f"{100 * statistics.median(rates[name]) / top:.0f} %"
        rows.append([name, ranged(rates[name], 1), share, f"{error:.0e}"])
    print(table(["rung", "GFLOP/s", "of the ceiling", "error"], rows), end="\n\n")
    for name, rung in RUNGS.items():
        print(f"{name}: {rung.why}.")


if __name__ == "__main__":
    main()
