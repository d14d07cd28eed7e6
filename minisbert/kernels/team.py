"""The boards of `minisbert.kernels.board`, and the helper threads that watch one of them."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from minisbert.kernels import machine, memory

__all__ = ["helpers", "post", "run", "threads"]

# Places on a board. Ticket, count of finished units and of helpers that are wanted are looked at while others write:
# each has a cache line, eight numbers, of its own.
TICKET, FINISHED, HELPERS, KIND, ARGUMENTS, BOARD = 0, 8, 16, 24, 25, 40
NUMBER_OF_ARGUMENTS, NUMBER_OF_VARIABLES = 9, 15
JOB = 2 + NUMBER_OF_ARGUMENTS  # numbers that say what a job is: kind, units, arguments
# A ticket is a job's number and the first and the last unit that nobody has taken, so many bits each.
BITS = 20
MOST = (1 << BITS) - 1
# Kinds of jobs: the first two are shared out, the others too small for that.
MULTIPLY, ATTEND, POSITIONS, EMBED, NORM, COMBINE, POOL, NORMALIZE = range(8)
# So many parts the heads of a sentence are shared out in: enough for a few threads, few enough to set up quickly.
GROUPS = 4


# Made for each call, and not kept on the board: a signal's handler may encode something else before the call begins.
_Arguments, _Variables = ctypes.c_int64 * NUMBER_OF_ARGUMENTS, ctypes.c_int64 * NUMBER_OF_VARIABLES


class Board:
    """A board, and how many threads may work on it."""

    def __init__(self) -> None:
        self.numbers = np.zeros(BOARD, np.int64)
        self.address = memory.address(self.numbers)
        self.threads = 1


def post(kind: int, units: int, *arguments: int) -> None:
    """Run a job on this thread's board: `board.do_multiply` and `board.do_attend` say of which arguments."""
    given = _Arguments(*arguments)
    machine.kernels().post(_board().address, kind, units, ctypes.addressof(given))


def run(table: NDArray[np.int64], variables: Sequence[int], jobs: int) -> None:
    """Run a program's jobs on this thread's board, one after the other; at `jobs` is room to write them down."""
    given = _Variables(*variables)
    place = ctypes.addressof(given)
    machine.kernels().run(_board().address, memory.address(table), len(table), place, jobs)


def threads() -> int:
    """Return how many threads may work on this thread's board: each needs room of its own."""
    return _board().threads


class _Helpers:
    """The helper threads of the process, and the board that they watch; one encode call at a time has them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.board = Board()
        self._gates: list[threading.Lock] = []  # each lets its helper through once, and is locked again

    def wake(self, count: int) -> None:
        """Let so many threads watch the board, of which those that are missing are started."""
        self.board.numbers[HELPERS] = count
        while len(self._gates) < count:
            gate, number = threading.Lock(), len(self._gates) + 1
            gate.acquire()
            try:
                threading.Thread(
                    target=self._live, args=(gate, number), name="minisbert-helper", daemon=True
                ).start()
            except RuntimeError:  # no more threads, or the interpreter is shutting down: it goes without them
                break
            self._gates.append(gate)
        self.board.threads = 1 + len(self._gates)
        for gate in self._gates[:count]:
            if gate.locked():
                gate.release()

    def _live(self, gate: threading.Lock, number: int) -> None:
        while True:
            gate.acquire()
            machine.kernels().watch(self.board.address, number)

    def rest(self) -> None:
        """Let them go to sleep, which they do after a while without work."""
        self.board.numbers[HELPERS] = 0


_helpers = _Helpers()
_local = threading.local()


def _board() -> Board:
    """Return this thread's board, which is the helpers' one while they help it."""
    if not hasattr(_local, "board"):
        _local.board = Board()
    board: Board = _local.board
    return board


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
