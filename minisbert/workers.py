"""Worker threads over micro-batches: chunks of token ids in, results in order out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TypeAlias

import numpy as np

from minisbert.batching import FIRST_CHUNK, Progress, micro_batches
from minisbert.kernels import Floats
from minisbert.texttokenizer import TokenIds

__all__ = ["Prepare", "run"]

# The token ids of S sentences, and on how many threads, to a function that computes S results.
Prepare: TypeAlias = Callable[[list[TokenIds], int], Callable[[], Sequence[Floats]]]
# The rows of a micro-batch, and a function that computes their results, or waits for them.
Job: TypeAlias = tuple[list[int], Callable[[], Sequence[Floats]]]


def run(
    chunks: Iterable[list[TokenIds]],
    expect: Callable[[list[TokenIds]], None],
    prepare: Prepare,
    batch_size: int,
    num_threads: int,
    most_tokens: int,
    progress: Progress,
    consume: Callable[[list[Floats]], None],
) -> None:
    """Compute chunks of sentences on all workers, and hand on the results of each chunk in order.

    While the workers compute one chunk, this thread makes the next: `chunks` tokenises as it goes, and `expect` is told
    what comes in more than one micro-batch.
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

    pool: ThreadPoolExecutor | None = None
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
                expect(chunk)
                pool = pool or ThreadPoolExecutor(num_threads, "minisbert")
                jobs = _submit(pool, jobs)
            pending.append(list(jobs))
            if len(pending) > 1:
                finish()
        while pending:
            finish()
    finally:
        with closing(progress):
            if pool is not None:
                pool.shutdown(cancel_futures=True)


def _submit(pool: ThreadPoolExecutor, jobs: Iterable[Job]) -> Iterator[Job]:
    """Have the workers do jobs, each as soon as it is there.

    Where no thread can be started, the job is left to the caller. A worker may have it all the same, and do it twice.
    """
    for rows, job in jobs:
        try:
            yield rows, pool.submit(job).result
        except RuntimeError:
            yield rows, job
