"""Worker threads over micro-batches: chunks of token ids in, results in order out."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from queue import Empty
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np

from minisbert.arrays import Floats
from minisbert.engine.batching import FIRST_CHUNK, Progress, micro_batches
from minisbert.kernels.runtime import native
from minisbert.text.base import TokenIds

__all__ = ["Prepare", "Workers", "run"]

T = TypeVar("T")
# The token ids of S sentences, and on how many threads, to a function that computes S results.
Prepare: TypeAlias = Callable[[list[TokenIds], int], Callable[[], Sequence[Floats]]]
# The rows of a micro-batch, and a function that computes their results, or waits for them.
Job: TypeAlias = tuple[list[int], Callable[[], Sequence[Floats]]]
# What workers take from, one after the other; after None comes nothing more.
Jobs: TypeAlias = "native.SimpleQueue[_Job[Any] | None]"


def run(
    chunks: Iterable[list[TokenIds]],
    prepare: Prepare,
    batch_size: int,
    num_threads: int,
    most_tokens: int,
    progress: Progress,
    consume: Callable[[list[Floats]], None],
) -> None:
    """Compute chunks of sentences on all workers, and hand on the results of each chunk in order.

    While the workers compute one chunk, this thread makes the next: `chunks` tokenises as it goes.
    """
    pending: deque[list[Job]] = deque()

    def finish() -> None:
        jobs = pending.popleft()
        results: list[Floats] = [np.empty(0)] * sum(len(rows) for rows, _ in jobs)
        for rows, wait in jobs:
            for row, result in zip(rows, wait(), strict=True):
                results[row] = result
            progress.update(len(rows))
        consume(results)

    workers: Workers | None = None
    taken = 0
    try:
        for chunk in chunks:
            taken += len(chunk)
            is_last = taken == progress.total or len(chunk) < FIRST_CHUNK
            # All threads should be done at the same time with the last chunk; before, each goes on to the next one.
            finishing = num_threads if is_last or progress.total is None else 1
            batches = micro_batches([len(ids) for ids in chunk], batch_size, finishing, most_tokens)
            # One that is alone, with which the input ends, is computed where it is waited for, on all threads.
            alone = is_last and len(batches) == 1
            threads = num_threads if alone else 1
            jobs: Iterable[Job] = ((rows, prepare([chunk[row] for row in rows], threads)) for rows in batches)
            if not alone:
                submit = (workers := workers or Workers(num_threads)).submit
                jobs = ((rows, submit(job)) for rows, job in jobs)
            pending.append(list(jobs))
            if len(pending) > 1:
                finish()
        while pending:
            finish()
    finally:
        with closing(progress):
            if workers is not None:
                workers.close()


class Workers:
    """Threads of the system that do jobs, each started when there is one for it; none is left once this is closed.

    Where the process ends before, they are left alone with what they compute: all of that is held by their frames,
    which nobody clears.
    """

    def __init__(self, count: int) -> None:
        self._missing = count
        self._jobs: Jobs = native.SimpleQueue()
        self._lives: list[threading.Lock] = []  # one for each thread, free once that has ended

    def submit(self, compute: Callable[[], T]) -> Callable[[], T]:
        """Have a function computed as soon as a worker is free; return one that waits for the result, or the error.

        Where no thread can be started, it is computed by whoever waits.
        """
        if self._missing:
            self._start()
        if not self._lives:
            return compute
        job = _Job(compute)
        self._jobs.put(job)
        return job.wait

    def _start(self) -> None:
        life = native.lock()
        life.acquire()
        if native.start(_work, self._jobs, life):
            self._lives.append(life)
            self._missing -= 1

    def close(self) -> None:
        """Wait for what is being computed; what nobody has begun is left to whoever waits for it."""
        with suppress(Empty):
            while job := self._jobs.get_nowait():
                job.leave()
        self._jobs.put(None)
        for life in self._lives:
            life.acquire()

    def __del__(self) -> None:
        """End the threads also where an exception came from outside, as a time limit's does, before all is set up."""
        self._jobs.put(None)


def _work(jobs: Jobs, life: threading.Lock) -> None:
    """Do jobs until there is None, which is left there for the other threads."""
    for job in iter(jobs.get, None):
        job.do()
        del job  # or its results would stay until the next one comes
    jobs.put(None)
    life.release()


class _Job(Generic[T]):
    """A function that a worker computes, or whoever waits for it."""

    def __init__(self, compute: Callable[[], T]) -> None:
        self._result = compute
        self._settled = native.lock()
        self._settled.acquire()

    def do(self) -> None:
        """Have the result ready."""
        self._result = _outcome(self._result)
        self._settled.release()

    def leave(self) -> None:
        """Leave it to whoever waits."""
        self._settled.release()

    def wait(self) -> T:
        """Return the result."""
        self._settled.acquire()
        return self._result()


def _outcome(compute: Callable[[], T]) -> Callable[[], T]:
    """Compute, and return a function that returns the result or raises the error."""
    try:
        result = compute()
    except BaseException as error:  # of any kind, as it is raised where it is waited for
        found = error

        def fail() -> T:
            raise found

        return fail
    return lambda: result
