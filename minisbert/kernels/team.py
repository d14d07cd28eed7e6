"""One small input, several threads: the panels of a multiply and the heads of an attention, shared out.

A large input keeps all processors busy without this: each worker has micro-batches of its own. A single sentence is
a chain of some forty operations of 20 to 100 microseconds each. Handing parts of these to a thread pool would take
longer than they do. So a helper thread watches, without the interpreter lock, a *board* in memory:

- Whoever runs an operation first writes a *closed* ticket, with a new job number and no units to take. Then come its
  arguments, and at last the open ticket: another job number, and next to it the number of the next unit of work, 0
  (a unit is one panel, or a few heads of one sentence).
- Owner and helper take units by raising the unit number with an atomic compare-and-swap. It fails if the ticket is no
  longer that of the job that was seen, so a helper that comes late takes nothing: while arguments are being written,
  no ticket that anybody has seen open is there any more.
- They take a quarter of what is left, and at the end one unit: neighbouring panels are neighbours in memory, and what
  a thread asks memory for ahead of time should be its own. The quarters shrink, so all are done at about the same time.
- The owner goes on when as many units are finished as there are. If the helper sleeps, the owner has done them all.

Without a helper the owner does the same on a board that nobody else looks at: there is one way to run an operation.
Which thread computes a unit makes no difference to its bits.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic

from minisbert.kernels.attend import attend
from minisbert.kernels.cache import c_function, kernel, part
from minisbert.kernels.gemm import TILE, multiply_panel
from minisbert.kernels.shape import COLUMNS
from minisbert.kernels.simd import call

# Places on the board. Ticket, count of finished units and stop sign are written by several threads: each has a cache
# line, eight numbers, of its own. The addresses of functions are those in this process.
TICKET, FINISHED, STOP, UNITS, KIND, ARGUMENTS, TILE_AT, WORK_AT, REST_AT, SIZE = (
    0,
    8,
    16,
    24,
    25,
    26,
    40,
    41,
    42,
    48,
)
PATIENCE = (
    20_000  # so many looks, some 20 microseconds, before a waiting thread lets others have its processor
)
CLOSED = 0xFFFFFFFF  # the number of a unit that no job has
MULTIPLY, ATTEND = 0, 1
# So many parts the heads of a sentence are shared out in: enough for a few threads, few enough to set up quickly.
GROUPS = 4


# --- Memory that several threads look at ------------------------------------------------------------------


@intrinsic
def read(_typing: Any, address: Any) -> Any:
    """Read a number as another thread last wrote it, and everything that it wrote before."""

    def emit(_context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        return b.load_atomic(b.inttoptr(arguments[0], ir.IntType(64).as_pointer()), "seq_cst", 8)

    return types.int64(types.intp), emit


@intrinsic
def write(_typing: Any, address: Any, value: Any) -> Any:
    """Write a number after all that this thread wrote before, and before all that it writes later."""

    def emit(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        pointer = b.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        b.atomic_rmw("xchg", pointer, arguments[1], "seq_cst")  # a store alone would not hold back later ones
        return context.get_dummy_value()

    return types.void(types.intp, types.int64), emit


@intrinsic
def add(_typing: Any, address: Any, value: Any) -> Any:
    """Raise a number, whoever else does."""

    def emit(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        pointer = b.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        b.atomic_rmw("add", pointer, arguments[1], "seq_cst")
        return context.get_dummy_value()

    return types.void(types.intp, types.int64), emit


@intrinsic
def swap(_typing: Any, address: Any, expected: Any, value: Any) -> Any:
    """Replace a number if it is the expected one; return whether it was."""

    def emit(_context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        pointer = b.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        result = b.cmpxchg(pointer, arguments[1], arguments[2], "seq_cst", "seq_cst")
        return b.extract_value(result, 1)

    return types.boolean(types.intp, types.int64, types.int64), emit


def _pointer_to(kind: Any) -> Any:
    @intrinsic
    def pointer(_typing: Any, address: Any) -> Any:
        result = types.CPointer(kind)

        def emit(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
            return b.inttoptr(arguments[0], context.get_value_type(result))

        return result(types.intp), emit

    return pointer


floats_at, longs_at = _pointer_to(types.float32), _pointer_to(types.int64)


# --- Working on a job -------------------------------------------------------------------------------------


@part
def do_multiply(tile: int, unit: int, a: Any) -> None:
    """Do one panel; the arguments are those that `post_linear` wrote."""
    N, K, width, P = a[0], a[1], a[2], a[3]
    x, y = carray(floats_at(a[4]), (N, K)), carray(floats_at(a[5]), (N, width))
    panels, bias = carray(floats_at(a[6]), (P, K, COLUMNS)), carray(floats_at(a[7]), (P * COLUMNS,))
    residual = carray(floats_at(a[8]), (N, width))
    multiply_panel(tile, unit, x, panels, bias, residual, a[8] != 0, a[9], y)


@part
def do_attend(tile: int, unit: int, a: Any) -> None:
    """Do one group of heads of one sentence; the arguments are those that `post_attention` wrote."""
    N, D, num_heads, S = a[0], a[1], a[2], a[3]
    qkv, context = carray(floats_at(a[4]), (N, 3 * D)), carray(floats_at(a[5]), (N, D))
    offsets, bias = carray(longs_at(a[6]), (S + 1,)), carray(floats_at(a[7]), (num_heads, a[8]))
    s, g = unit // GROUPS, unit % GROUPS
    heads = range(g * num_heads // GROUPS, (g + 1) * num_heads // GROUPS)
    attend(tile, qkv, offsets, s, heads, num_heads, bias, context)


def _work(address: int, job: int) -> None:
    """Take units of a job until there are none left, or until the ticket is that of another job."""
    board = carray(longs_at(address), (SIZE,))
    units, arguments, tile = board[UNITS], board[ARGUMENTS:], board[TILE_AT]
    while True:
        ticket = read(address + 8 * TICKET)
        unit = ticket & 0xFFFFFFFF
        if ticket >> 32 != job or unit >= units:
            return
        count = max(1, (units - unit) // 4)
        if swap(address + 8 * TICKET, ticket, ticket + count):
            for taken in range(unit, unit + count):
                if board[KIND] == MULTIPLY:  # and the arguments: all stays as it is while units are taken
                    do_multiply(tile, taken, arguments)
                else:
                    do_attend(tile, taken, arguments)
            add(address + 8 * FINISHED, count)


_WORK = c_function("void(i8, i8)")(_work)


@part
def next_job(address: int) -> int:
    """Return a number that the last few million tickets did not have."""
    return ((read(address + 8 * TICKET) >> 32) + 1) & 0x3FFFFFFF


@part
def close(board: Any) -> Any:
    """Let nobody take a unit any more, and return the place for the arguments of the next job."""
    address = board.ctypes.data
    write(address + 8 * TICKET, next_job(address) << 32 | CLOSED)
    return board[ARGUMENTS:]


@part
def rest(board: Any, looks: int) -> int:
    """Count a look in vain, and let others have the processor now and then: the one waited for may need it."""
    if looks < PATIENCE:
        return looks + 1
    call(board[REST_AT], ())
    return 0


@part
def run(board: Any, kind: int, units: int) -> None:
    """Publish the job whose arguments are on the board, work on it, and wait until all of it is done."""
    address = board.ctypes.data
    board[UNITS], board[KIND] = units, kind
    write(address + 8 * FINISHED, 0)
    job = next_job(address)
    write(address + 8 * TICKET, job << 32)
    call(board[WORK_AT], (address, job))
    looks = 0
    while read(address + 8 * FINISHED) < units:
        looks = rest(board, looks)


@kernel("void(i8[::1], f4[:,::1], f4[:,:,::1], f4[::1], f4[:,::1], i8, f4[:,::1])")
def post_linear(board: Any, x: Any, panels: Any, bias: Any, residual: Any, activation: int, y: Any) -> None:
    """Run `gemm.multiply_panel` for all panels; a residual of no rows stands for none."""
    a = close(board)
    a[0], a[1], a[2], a[3] = x.shape[0], x.shape[1], y.shape[1], panels.shape[0]
    a[4], a[5], a[6], a[7] = x.ctypes.data, y.ctypes.data, panels.ctypes.data, bias.ctypes.data
    a[8], a[9] = residual.ctypes.data if len(residual) else 0, activation
    run(board, MULTIPLY, panels.shape[0])


@kernel("void(i8[::1], f4[:,::1], i8[::1], i8, f4[:,::1], f4[:,::1])")
def post_attention(board: Any, qkv: Any, offsets: Any, num_heads: int, bias: Any, context: Any) -> None:
    """Run `attend.attend` for all groups of heads of all sentences; a bias of no columns stands for none."""
    a, sentences = close(board), len(offsets) - 1
    a[0], a[1], a[2], a[3] = context.shape[0], context.shape[1], num_heads, sentences
    a[4], a[5], a[6] = qkv.ctypes.data, context.ctypes.data, offsets.ctypes.data
    a[7], a[8] = bias.ctypes.data, bias.shape[1]
    run(board, ATTEND, sentences * GROUPS)


@kernel("void(i8[::1])")
def watch(board: Any) -> None:
    """Work on every job that appears on the board, until the stop sign does."""
    address = board.ctypes.data
    seen, looks = -1, 0
    while read(address + 8 * STOP) == 0:
        job = read(address + 8 * TICKET) >> 32
        if job != seen:
            call(board[WORK_AT], (address, job))
            seen, looks = job, 0
        looks = rest(board, looks)


def linear(x: Any, panels: Any, bias: Any, residual: Any, activation: int, y: Any) -> None:
    """Run `post_linear` on this thread's board."""
    post_linear(_board(), x, panels, bias, residual, activation, y)


def attention(qkv: Any, offsets: Any, num_heads: int, bias: Any, context: Any) -> None:
    """Run `post_attention` on this thread's board."""
    post_attention(_board(), qkv, offsets, num_heads, bias, context)


# --- Helpers ----------------------------------------------------------------------------------------------


def _yield_address() -> int:
    """Return the address of the system's function that lets other threads have the processor."""
    windows = os.name == "nt"
    function = ctypes.CDLL("kernel32").SwitchToThread if windows else ctypes.CDLL(None).sched_yield
    return ctypes.cast(function, ctypes.c_void_p).value or 0


_YIELD = _yield_address()


def _new_board() -> Any:
    board = np.zeros(SIZE, np.int64)
    board[[TILE_AT, WORK_AT, REST_AT]] = TILE, _WORK, _YIELD
    return board


class _Helpers:
    """The helper threads of the process, and the board that they watch; one encode call at a time has them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.board = _new_board()
        self._wake: list[threading.Semaphore] = []

    def wake(self, count: int) -> None:
        """Let so many threads watch the board, of which those that are missing are started."""
        self.board[STOP] = 0
        while len(self._wake) < count:
            wake = threading.Semaphore(0)
            try:
                threading.Thread(
                    target=self._live, args=(wake,), name="minisbert-helper", daemon=True
                ).start()
            except RuntimeError:  # no more threads, or the interpreter is shutting down: it goes without them
                break
            self._wake.append(wake)
        for wake in self._wake[:count]:
            wake.release()

    def _live(self, wake: threading.Semaphore) -> None:
        while True:
            wake.acquire()
            watch(self.board)

    def rest(self) -> None:
        """Let them sleep again."""
        self.board[STOP] = 1


_helpers = _Helpers()
_local = threading.local()


def _board() -> Any:
    """Return this thread's board, which is the helpers' one while they help it."""
    if not hasattr(_local, "board"):
        _local.board = _new_board()
    return _local.board


@contextmanager
def helpers(count: int) -> Iterator[None]:
    """Let helper threads share the operations of this thread, unless they help another one at the moment."""
    if count < 1 or not _helpers.lock.acquire(blocking=False):
        yield
        return
    mine, team = _board(), _helpers
    try:
        team.wake(count)
        _local.board = team.board
        yield
    finally:
        _local.board = mine
        team.rest()
        team.lock.release()


def _after_fork() -> None:
    """Start afresh in a forked child, to which no other thread has come along."""
    global _helpers
    _helpers = _Helpers()
    _local.__dict__.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
