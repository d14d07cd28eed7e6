"""Measuring several engines in one process, in turns: a machine whose speed drifts is as fast for one as for another.

What is measured comes back as plain dictionaries, which `run.py` writes as JSON and `report.py` reads.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

import minisbert
from minisbert.kernels.reference.blas import one_blas_thread
from tools.bench.engines import Encode, make, minisbert_engine
from tools.bench.peak import OPERATIONS, multiply_add
from tools.bench.workloads import of_length, operations, workloads

__all__ = ["curves", "errors", "latency", "scaling", "throughput"]

LARGEST_ERROR = 2e-6  # of a component of a unit vector; an engine that is further off computes something else
BATCH_SIZES = (4, 8, 16, 32, 64)  # texts of many lengths go best in small batches, which need little padding
TURN = 25  # texts that an engine encodes one by one before it is the next one's turn
CURVE_SECONDS = 60.0  # for the rounds of one point of a curve; the first may take longer
COUNTS = (100, 316, 1000, 3162, 10_000)
LENGTHS = (8, 16, 32, 64, 128, 256, 512)
CURVE_TOKENS = 16_384  # at each length

Engines = dict[str, Encode]
Key = TypeVar("Key", bound=Hashable)


# --- In turns ---------------------------------------------------------------------------------------------


def interleave(turns: Mapping[Key, Callable[[], float]], rounds: int) -> dict[Key, list[float]]:
    """Take each measurement in turn, in every round; return the measured values by round."""
    taken: dict[Key, list[float]] = {key: [] for key in turns}
    for _ in range(rounds):
        for key, turn in turns.items():
            taken[key].append(turn())
    return taken


def seconds(encode: Encode, texts: list[str], batch_size: int) -> float:
    start = time.perf_counter()
    encode(texts, batch_size)
    return time.perf_counter() - start


def ceiling(threads: int) -> float:
    """Return how many GFLOP/s so many threads reach that each multiply matrices of their own, by NumPy's BLAS."""
    a, b = np.ones((256, 384), np.float32), np.ones((384, 1536), np.float32)
    return together(threads, lambda: partial(np.matmul, a, b, out=a @ b), 2 * a.size * b.shape[1])


def peak(threads: int) -> float:
    """Return how many GFLOP/s so many threads reach that do nothing but multiply and add."""
    return together(threads, lambda: partial(multiply_add, 1_000_000), 1_000_000 * OPERATIONS)


def together(threads: int, make: Callable[[], Callable[[], Any]], operations: int) -> float:
    """Return how many GFLOP/s so many threads reach in half a second, each with a function that `make` made for it."""
    reached: list[float] = []

    def work() -> None:
        function = make()
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < 0.5:
            function()
            count += 1
        reached.append(count * operations / (time.perf_counter() - start) / 1e9)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    with one_blas_thread():
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    return sum(reached)


# --- Errors -----------------------------------------------------------------------------------------------


def errors(engines: Engines, expected: NDArray[np.float64], texts: list[str]) -> dict[str, Any]:
    """Compare each engine with the float64 vectors; stop if one computes something else."""
    found: dict[str, Any] = {"texts": len(texts)}
    for name, encode in engines.items():
        error = np.abs(encode(texts, 32) - expected)
        found[name] = {"largest": float(error.max()), "mean": float(error.mean())}
        if error.max() > LARGEST_ERROR:
            sys.exit(f"bench: {name} is off by {error.max():.1e}, so its speed says nothing")
    return found


# --- Many texts -------------------------------------------------------------------------------------------


def throughput(
    engines: Engines, encoder: minisbert.SentenceEncoder, tasks: dict[str, list[str]], rounds: int
) -> dict[str, Any]:
    """Time every engine on every task, each at its best batch size, with the machine's ceiling beside each task."""
    sizes = {task: tuned(engines, texts) for task, texts in tasks.items()}
    turns = {}
    for task, texts in tasks.items():
        for name, encode in engines.items():
            turns[task, name] = partial(seconds, encode, texts, sizes[task][name])
        turns[task, "ceiling"] = partial(ceiling, encoder.num_threads)
        turns[task, "peak"] = partial(peak, encoder.num_threads)
    taken = interleave(turns, rounds)
    return {
        task: {
            **described(encoder, texts),
            "batch_sizes": sizes[task],
            "ceiling": taken[task, "ceiling"],
            "peak": taken[task, "peak"],
            "seconds": {name: taken[task, name] for name in engines},
        }
        for task, texts in tasks.items()
    }


def tuned(engines: Engines, texts: list[str]) -> dict[str, int]:
    """Return the batch size at which each engine is fastest on half of the texts, the best of three times."""
    half = texts[: (len(texts) + 1) // 2]
    turns = {
        (name, size): partial(seconds, encode, half, size)
        for size in BATCH_SIZES
        for name, encode in engines.items()
    }
    taken = interleave(turns, 3)
    return {name: min(BATCH_SIZES, key=lambda size: min(taken[name, size])) for name in engines}


def described(encoder: minisbert.SentenceEncoder, texts: list[str]) -> dict[str, Any]:
    tokens = np.minimum(encoder.token_counts(texts), encoder.max_seq_length)
    return {"texts": len(texts), "tokens": float(tokens.mean()), "gflop": operations(encoder, texts)}


def scaling(
    folder: Path, encoder: minisbert.SentenceEncoder, texts: list[str], rounds: int
) -> dict[str, Any]:
    """Time minisbert on one thread and on all, and the machine's ceiling likewise."""
    threads = encoder.num_threads
    turns: dict[tuple[str, int], Callable[[], float]] = {}
    for count in (1, threads):
        encode = minisbert_engine(folder, count, encoder.max_seq_length, folder)
        encode(texts[:32], 32)
        turns["seconds", count] = partial(seconds, encode, texts, 32)
        turns["ceiling", count] = partial(ceiling, count)
    taken = interleave(turns, rounds)
    return {
        "threads": threads,
        "seconds": {"one": taken["seconds", 1], "all": taken["seconds", threads]},
        "ceiling": {"one": taken["ceiling", 1], "all": taken["ceiling", threads]},
    }


# --- One text ---------------------------------------------------------------------------------------------


def latency(
    engines: Engines, encoder: minisbert.SentenceEncoder, texts: dict[str, str], repeats: int
) -> dict[str, Any]:
    """Time one text at a time, `TURN` in a row for each engine in turn.

    The threads of the engine before wait for more work for a while, and keep the processors busy with it. So each
    turn starts with a pause and a few texts that don't count.
    """
    found = {}
    for kind, text in texts.items():
        taken: dict[str, list[float]] = {name: [] for name in engines}
        for _ in range(-(-repeats // TURN)):
            for name, encode in engines.items():
                time.sleep(0.05)
                timed = [seconds(encode, [text], 1) for _ in range(3 + TURN)]
                taken[name] += timed[3:]
        found[kind] = {**described(encoder, [text]), "turn": TURN, "seconds": taken}
    return found


# --- Curves -----------------------------------------------------------------------------------------------


def curves(
    names: list[str], folder: Path, encoder: minisbert.SentenceEncoder, scratch: Path, quick: bool
) -> dict[str, Any]:
    """Time rising numbers of mixed texts, and texts of rising length that all engines read to the end."""
    counts = [count // 8 for count in COUNTS[:3]] if quick else COUNTS
    lengths, tokens = (LENGTHS[::3], CURVE_TOKENS // 8) if quick else (LENGTHS, CURVE_TOKENS)
    mixed = workloads({"mixed": max(counts)})["mixed"]
    engines = make(names, folder, encoder.num_threads, encoder.max_seq_length, scratch)
    sizes = tuned(engines, mixed[: counts[1]])
    rising_counts = [point(engines, encoder, mixed[:count], sizes) for count in counts]

    longest = min(max(lengths), encoder.config.transformer.max_tokens)
    reader = minisbert.load(folder, num_threads=encoder.num_threads)
    reader.max_seq_length = longest
    engines = make(names, folder, encoder.num_threads, longest, scratch)
    rising_lengths = []
    for length in lengths:
        if length <= longest:
            texts = of_length(reader, length, mixed[:300], tokens // length)
            rising_lengths.append(point(engines, reader, texts, tuned(engines, texts)))
    return {"counts": rising_counts, "lengths": rising_lengths}


def point(
    engines: Engines, encoder: minisbert.SentenceEncoder, texts: list[str], sizes: dict[str, int]
) -> dict[str, Any]:
    """Time the same texts once, and again up to four times as far as `CURVE_SECONDS` reach."""
    turns = {name: partial(seconds, encode, texts, sizes[name]) for name, encode in engines.items()}
    taken = interleave(turns, 1)
    again = int(CURVE_SECONDS / sum(value for (value,) in taken.values()))
    more = interleave(turns, max(0, min(4, again - 1)))
    both = {name: taken[name] + more[name] for name in engines}
    return {**described(encoder, texts), "batch_sizes": sizes, "seconds": both}
