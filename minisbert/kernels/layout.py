"""Where the kernels' numbers stand: at the start of cache lines, weights in large pages, rows at odd distances."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Any
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from minisbert.arrays import Floats, Ints
from minisbert.kernels.tuning import LINE, row_bytes

__all__ = [
    "address",
    "for_weights",
    "is_laid_out",
    "is_table",
    "laid_out",
    "number",
    "only_rows",
    "room_for",
    "rows",
]

_PER_LINE = LINE // 4  # floats


_NOTHING = ctypes.c_char * 0


def address(x: NDArray[Any]) -> int:
    """Return where an array's numbers are; of a contiguous one in half the time that ``x.ctypes.data`` takes."""
    if x.flags.carray:
        return ctypes.addressof(_NOTHING.from_buffer(x.data))
    place: int = x.__array_interface__["data"][0]
    return place


def laid_out(kind: str, value: Any) -> Any:
    """Return an argument of an operation as the kernels read it, which as a rule it is: they can't check it.

    The kinds are those of `minisbert.kernels.operations`.
    """
    if not isinstance(value, np.ndarray) or kind == "address":
        return value
    if kind != "rows":
        return np.ascontiguousarray(value, {"floats": np.float32, "int32": np.int32, "int64": np.int64}[kind])
    if is_laid_out(value):
        return value
    y = rows(*value.shape)
    y[:] = value
    return y


def number(value: Any) -> int:
    """Return an argument as the 64 bits that a kernel is given: an address, an integer, or the bits of a float64."""
    if isinstance(value, np.ndarray):
        return address(value)
    return int(np.float64(value).view(np.int64)) if isinstance(value, float) else value or 0


def room_for(size: int) -> Floats:
    """Return room for so many floats, from the start of a cache line: a vector across two lines takes two loads."""
    floats = np.empty(size + _PER_LINE, np.float32)
    start = _to_a_line(floats) // 4
    return floats[start : start + size]


def _to_a_line(floats: Floats) -> int:
    """Return how many bytes after its start an array comes to the start of a cache line."""
    return -address(floats) % LINE


def rows(N: int, width: int) -> Floats:
    """Return an array (N, width) as the kernels read and write them: its rows stand `tuning.row_bytes` apart."""
    step = row_bytes(width)
    floats = np.empty(N * step // 4 + _PER_LINE, np.float32)
    return np.ndarray((N, width), np.float32, floats, _to_a_line(floats), (step, 4))


def is_laid_out(x: Floats) -> bool:
    """Whether an array (N, width) is one that `rows` could have made, wherever it starts."""
    return x.dtype == np.float32 and x.strides == (row_bytes(x.shape[1]), 4)


def is_table(x: Floats) -> bool:
    """Whether the rows of a table follow each other, as the kernels read them."""
    return x.dtype == np.float32 and x.flags.c_contiguous


def only_rows(table: Floats, ids: Ints) -> tuple[Floats, Ints]:
    """Return a float32 table of just the rows that are needed of one of another dtype, and the ids in that."""
    return table[ids].astype(np.float32), np.arange(len(ids), dtype=np.int32)


_POOL = 16 << 20  # floats: 64 MB
_pools: list[tuple[ref[Floats], int]] = []  # and from where on they are free


def for_weights(size: int) -> Floats:
    """Return zeros out of a large pool, which Linux backs with pages of 2 MB instead of 4 kB.

    All weights are read once for every single sentence, and fewer pages are fewer addresses to look up. Memory of the
    pool that is not handed out is never touched, and so never taken from the system.

    A pool goes with the last weights in it. Who takes one from the list has it alone until it is put back: another
    thread, or a signal's handler that loads a model, takes another one, and waits for no lock.
    """
    zeros, start = None, 0
    with suppress(IndexError):
        pool, start = _pools.pop()
        zeros = pool()
    if zeros is None or len(zeros) - start < size:
        zeros = np.zeros(max(size, _POOL) + _PER_LINE, np.float32)
        start = _to_a_line(zeros) // 4
    _pools.append((ref(zeros), start + -(-size // _PER_LINE) * _PER_LINE))
    return zeros[start : start + size]
