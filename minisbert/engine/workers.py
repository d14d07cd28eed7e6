"""Worker threads over micro-batches: chunks of token ids in, results in order out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from contextvars import copy_context
from functools import partial
from itertools import chain, pairwise, starmap
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np

from minisbert.arrays import Floats
from minisbert.engine.batching import micro_batches, tokens_per_batch
from minisbert.engine.collect import Progress
from minisbert.engine.inputs import FIRST_CHUNK
from minisbert.kernels import Kernels
from minisbert.kernels.runtime import native
from minisbert.text.base import TokenIds

__all__ = ["Compute", "Workers", "compute_chunks", "meanwhile"]

T = TypeVar("T")
# The token ids of S inputs to S results.
Compute: TypeAlias = Callable[[list[TokenIds]], Sequence[Floats]]
# A micro-batch: which rows of a chunk are in it, and their token ids.
Batch: TypeAlias = tuple[list[int], list[TokenIds]]
# One that was started: its rows, and a function that returns their results.
Begun: TypeAlias = tuple[list[int], Callable[[], Sequence[Floats]]]
# What workers take from, one after the other; after None comes nothing more.
Jobs: TypeAlias = "native.SimpleQueue[_Job[Any] | None]"


def compute_chunks(
    chunks: Iterable[list[TokenIds]],
    compute: Compute,
    kernels: Kernels,
    num_threads: int,
    batch_size: int,
    width: int,
    progress: Progress,
) -> Generator[list[Floats], None, None]:
    """Yield the results of each chunk of inputs, in order; `width` is that of a layer's widest activations.

    While workers compute one chunk, this thread reads the next, which is tokenised as it is read. It has to be
    closed if it is not exhausted, which ends the workers.
    """
    is_single = progress.total == 1

    def on_all_threads(ids: list[TokenIds]) -> Sequence[Floats]:
        with kernels.threads(num_threads):
            return compute(ids)

    def begin(batches: list[Batch], is_alone: bool) -> list[Begun]:
        if is_alone:  # computed in this thread, when its results are asked for
            return [(rows, partial(compute if is_single else on_all_threads, ids)) for rows, ids in batches]
        return [(rows, workers.submit(partial(compute, ids))) for rows, ids in batches]

    # For one input, helpers wake while it is tokenised. Otherwise each worker computes on one thread, BLAS included.
    with closing(Workers(num_threads)) as workers, kernels.threads(num_threads if is_single else 1):
        begun = starmap(begin, _batched(chunks, progress.total, num_threads, batch_size, width))
        # Pairs have the next chunk begin before this one is waited for.
        for batches, _ in pairwise(chain(begun, [[]])):
            yield _wait_for(batches, progress)


@contextmanager
def meanwhile(num_threads: int, function: Callable[..., T], *arguments: Any) -> Iterator[Callable[[], T]]:
    """Have a function computed on another thread, in this context; yield one that waits for its result, or error.

    With two threads it is computed when it is asked for: after NumPy was imported a thread of its BLAS is busy for a
    tenth of a second, waiting for work.
    """
    with closing(Workers(1 if num_threads > 2 else 0)) as workers:
        yield workers.submit(partial(copy_context().run, function, *arguments))


def _batched(
    chunks: Iterable[list[TokenIds]], total: int | None, num_threads: int, batch_size: int, width: int
) -> Iterator[tuple[list[Batch], bool]]:
    """Yield the micro-batches of each chunk, and whether this is the only one of the last chunk."""
    taken = 0
    for chunk in chunks:
        taken += len(chunk)
        is_last = taken == total or len(chunk) < FIRST_CHUNK
        # All threads should be done at the same time with the last chunk; before, each goes on to the next one.
        finishing = num_threads if is_last or total is None else 1
        batches = micro_batches(list(map(len, chunk)), batch_size, finishing, tokens_per_batch(width))
        yield [(rows, [chunk[row] for row in rows]) for rows in batches], is_last and len(batches) == 1


def _wait_for(batches: list[Begun], progress: Progress) -> list[Floats]:
    """Return the results of a chunk's inputs in order, once all of its micro-batches are computed."""
    results: list[Floats] = [np.empty(0)] * sum(len(rows) for rows, _ in batches)
    for rows, wait in batches:
        for row, result in zip(rows, wait(), strict=True):
            results[row] = result
        progress.update(len(rows))
    return results


class Workers:
    """Threads of the system that do jobs, each started when there is one for it; none is left once this is closed.

    When the interpreter exits before, they go on computing; their frames, which are not cleared, hold all that they
    need.
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
        with suppress(native.Empty):
            while job := self._jobs.get_nowait():
                job.leave()
        self._jobs.put(None)
        for life in self._lives:
            life.acquire()

    def __del__(self) -> None:
        """End the threads also if an exception, such as a time limit's, strikes before `close` is sure to be called."""
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
