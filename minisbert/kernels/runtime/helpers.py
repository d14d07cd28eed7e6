"""The boards of `minisbert.kernels.source.workqueue`, and the helper threads that watch one of them."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from minisbert.kernels import layout
from minisbert.kernels.cpus import processors
from minisbert.kernels.runtime import load, native

__all__ = ["helpers", "post", "run", "threads"]

# Places on a board. Ticket, count of finished units and of helpers that are wanted are looked at while others write:
# each has a cache line, eight numbers, of its own.
TICKET, FINISHED, HELPERS, KIND, UNITS, FIRST, ARGUMENTS, BOARD = 0, 8, 16, 24, 25, 26, 27, 40
NUMBER_OF_ARGUMENTS, NUMBER_OF_VARIABLES = 9, 14
JOB = 2 + NUMBER_OF_ARGUMENTS  # numbers that say what a job is: kind, units, arguments
# A ticket is a job's number and the first and the last unit that nobody has taken, so many bits each.
BITS = 20
MOST = (1 << BITS) - 1
# Kinds of jobs: the first two are shared out, the others too small for that.
MULTIPLY, ATTEND, POSITIONS, EMBED, NORM, POOL, NORMALIZE = range(7)
# So many parts the heads of a sentence are shared out in: enough for a few threads, few enough to set up quickly.
GROUPS = 4


# Made for each call: a signal's handler may encode something else before the call begins. And held by the frame that
# calls, which is never cleared in a daemon thread that is stopped by the end of the process, while the kernel goes on.
_Arguments, _Variables = ctypes.c_int64 * NUMBER_OF_ARGUMENTS, ctypes.c_int64 * NUMBER_OF_VARIABLES
Board = ctypes.c_int64 * BOARD


def post(kind: int, units: int, *arguments: int) -> None:
    """Run a job on this thread's board: `board.do_multiply` and `board.do_attend` say of which arguments."""
    board, given = _board(), _Arguments(*arguments)
    load.kernels().post(ctypes.addressof(board), kind, units, ctypes.addressof(given))


def run(table: NDArray[np.int64], variables: Sequence[int], jobs: int) -> None:
    """Run a program's jobs on this thread's board, one after the other; at `jobs` is room to write them down."""
    board, given = _board(), _Variables(*variables)
    place = ctypes.addressof(given)
    load.kernels().run(ctypes.addressof(board), layout.address(table), len(table), place, jobs)


def threads() -> int:
    """Return how many threads may work on this thread's board: each needs room of its own."""
    return _helpers.threads if _helpers.owner == native.ident() else 1


def _board() -> ctypes.Array[ctypes.c_int64]:
    """Return the helpers' board if they help this thread, or else one that nobody watches."""
    return _helpers.board if _helpers.owner == native.ident() else Board()


class _Helpers:
    """The helper threads of the process, and the board that they watch; one encode call at a time has them."""

    def __init__(self) -> None:
        self.lock = native.lock()
        self.owner: int | None = None  # the thread that they help
        self.board = Board()
        self.threads = 1  # that may be at work on the board
        self._most: int | None = None
        self._gates: list[threading.Lock] = []  # each lets its helper through once, and is locked again

    def wake(self, count: int) -> None:
        """Let so many threads watch the board, or as many as there are."""
        if count > len(self._gates):
            self._start(count)
        gates = self._gates[:count]
        self.board[HELPERS] = len(gates)
        for gate in gates:
            if gate.locked():
                gate.release()

    def _start(self, count: int) -> None:
        """Start those that are missing, but no more than there are processors for: a helper never waits idly."""
        if self._most is None:
            self._most = processors() - 1
        while len(self._gates) < min(count, self._most):
            gate, number = native.lock(), len(self._gates) + 1
            gate.acquire()
            if not native.start(self._live, gate, number):  # it goes without them
                break
            self._gates.append(gate)
        self.threads = 1 + len(self._gates)

    def _live(self, gate: threading.Lock, number: int) -> None:
        while True:
            gate.acquire()
            load.kernels().watch(ctypes.addressof(self.board), number)

    def rest(self) -> None:
        """Let them go to sleep, which they do after a while without work."""
        self.board[HELPERS] = 0


_helpers = _Helpers()


@contextmanager
def helpers(count: int) -> Iterator[None]:
    """Let helper threads share the operations of this thread, unless they help another one at the moment."""
    team = _helpers
    if count < 1 or not team.lock.acquire(blocking=False):
        yield
        return
    try:
        team.wake(count)
        team.owner = native.ident()
        yield
    finally:
        team.owner = None
        team.rest()
        team.lock.release()


def _after_fork() -> None:
    """Start afresh in a forked child, to which no other thread has come along."""
    global _helpers
    _helpers = _Helpers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
