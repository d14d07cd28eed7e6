"""Helper threads: they watch the work queue of one thread, and take their share of its operations.

What the queue is, and how helpers take from it, is told in `minisbert.kernels.source.workqueue`.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from minisbert.kernels.cpus import processors
from minisbert.kernels.operations import ARGUMENTS, STEP
from minisbert.kernels.runtime import native

__all__ = ["awake", "execute", "new_queue", "replay", "threads"]

# Places in a queue. The range, the count of finished units and that of helpers that are wanted are looked at while
# others write: each has a cache line, eight numbers, of its own.
RANGE, FINISHED, HELPERS, YIELD, CODE, UNITS, FIRST, GIVEN = 0, 8, 16, 24, 25, 26, 27, 28
QUEUE = GIVEN + ARGUMENTS
# The range is an epoch, the first free unit and the end of the free ones, in one word: so many bits for each of these.
BITS = 20
MOST = (1 << BITS) - 1

Queue = ctypes.c_int64 * QUEUE


@cache
def _yield_processor() -> int:
    """Return the address of the system's function by which a thread lets another one have its processor."""
    windows = sys.platform == "win32"
    system: Any = getattr(ctypes, "WinDLL")("kernel32") if windows else ctypes.CDLL(None)  # noqa: B009
    function = system.SwitchToThread if windows else system.sched_yield
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def new_queue() -> ctypes.Array[ctypes.c_int64]:
    """Return a queue that nobody watches."""
    queue = Queue()
    queue[YIELD] = _yield_processor()
    return queue


# What a kernel is given is made for each call: a signal's handler may encode something else before the call begins. And
# it is held by the frame that calls, which is never cleared in a daemon thread that is stopped by the end of the
# process, while the kernel goes on.


def execute(kernels: Any, step: Sequence[int]) -> None:
    """Do one operation through this thread's queue: its code, its units, and its arguments."""
    queue, given = _queue(), (ctypes.c_int64 * STEP)(*step)
    kernels.execute(ctypes.addressof(queue), ctypes.addressof(given))


def replay(kernels: Any, table: int, count: int, variables: Sequence[int], steps: int) -> None:
    """Replay a plan of so many steps through this thread's queue; all but the count are addresses.

    At `table` is what the steps are made of, and at `steps` room for them.
    """
    queue, given = _queue(), (ctypes.c_int64 * len(variables))(*variables)
    kernels.replay(ctypes.addressof(queue), table, count, ctypes.addressof(given), steps)


def threads() -> int:
    """Return how many threads may work on this thread's queue: each needs room of its own."""
    return _helpers.threads if _helpers.owner == native.ident() else 1


def _queue() -> ctypes.Array[ctypes.c_int64]:
    """Return the helpers' queue if they help this thread, or else one that nobody watches."""
    return _helpers.queue if _helpers.owner == native.ident() else new_queue()


class _Helpers:
    """The helper threads of the process, and the queue that they watch; one encode call at a time has them."""

    def __init__(self) -> None:
        self.lock = native.lock()
        self.owner: int | None = None  # the thread that they help
        self.queue = new_queue()
        self.kernels: Any = None  # of the owner
        self.threads = 1  # that may be at work on the queue
        self._most: int | None = None
        self._gates: list[threading.Lock] = []  # each lets its helper through once, and is locked again

    def wake(self, count: int) -> None:
        """Let so many threads watch the queue, or as many as there are."""
        if count > len(self._gates):
            self._start(count)
        gates = self._gates[:count]
        self.queue[HELPERS] = len(gates)
        for gate in gates:
            if gate.locked():
                gate.release()

    def _start(self, count: int) -> None:
        """Start those that are missing, but no more than there are processors for: a helper never waits idly."""
        if sys.is_finalizing():  # none could be started, and what counts processors may be gone
            return
        if self._most is None:
            self._most = processors() - 1
        while len(self._gates) < min(count, self._most):
            gate, slot = native.lock(), len(self._gates) + 1
            gate.acquire()
            if not native.start(self._live, gate, slot):  # it goes without them
                break
            self._gates.append(gate)
        self.threads = 1 + len(self._gates)

    def _live(self, gate: threading.Lock, slot: int) -> None:
        while True:
            gate.acquire()
            self.kernels.watch(ctypes.addressof(self.queue), slot)

    def rest(self) -> None:
        """Let them go to sleep, which they do after a while without work."""
        self.queue[HELPERS] = 0


_helpers = _Helpers()


@contextmanager
def awake(count: int, kernels: Any) -> Iterator[None]:
    """Let so many helpers share the operations of this thread, unless they help another one at the moment."""
    found = _helpers
    if count < 1 or not found.lock.acquire(blocking=False):
        yield
        return
    try:
        found.kernels = kernels
        found.wake(count)
        found.owner = native.ident()
        yield
    finally:
        found.owner = None
        found.rest()
        found.lock.release()


def _after_fork() -> None:
    """Start afresh in a forked child, to which no other thread has come along."""
    global _helpers
    _helpers = _Helpers()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
