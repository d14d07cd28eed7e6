"""Time `minisbert.semantic_search` beside one product of the same size by NumPy's BLAS, in turns, and its memory.

    python -m tools.bench.search --corpus 1000000

The product writes all scores into an array that has been touched before: nothing but multiplying is timed.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import minisbert
from minisbert.arrays import Floats
from tools.bench.measure import interleave

__all__ = ["main"]


def unit_vectors(count: int, dimension: int, seed: int) -> Floats:
    """Draw float32 vectors of length 1, some thousands at a time."""
    rng = np.random.default_rng(seed)
    vectors = np.empty((count, dimension), np.float32)
    for start in range(0, count, 8192):
        some = rng.standard_normal((len(vectors[start : start + 8192]), dimension), np.float32)
        vectors[start : start + 8192] = some / np.linalg.norm(some, axis=1, keepdims=True)
    return vectors


def timed(work: Callable[[], Any]) -> float:
    """Return how many seconds a function takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def memory(work: Callable[[], Any]) -> float:
    """Return how many MiB a function adds to the resident memory of the process at most (on Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak is what there is now
    before = peak()
    work()
    return peak() - before


def peak() -> float:
    status = Path("/proc/self/status").read_text()
    [kibibytes] = re.findall(r"VmHWM:\s*(\d+)", status)
    return int(kibibytes) / 1024


def measure(queries: int, corpus: int, dimension: int, rounds: int) -> dict[str, Any]:
    """Check a result, then time search and product by turns."""
    q, c = unit_vectors(queries, dimension, 1), unit_vectors(corpus, dimension, 2)
    extra = memory(lambda: minisbert.semantic_search(q, c))
    scores = np.empty((queries, corpus), np.float32)
    np.matmul(q, c.T, out=scores)
    found = [hits[0]["corpus_id"] for hits in minisbert.semantic_search(q, c)]
    best = scores[np.arange(queries), found]
    assert np.abs(best - scores.max(axis=1)).max() < 1e-6, "search did not find the best"
    times = interleave(
        {
            "product": lambda: timed(lambda: np.matmul(q, c.T, out=scores)),
            "search": lambda: timed(lambda: minisbert.semantic_search(q, c)),
        },
        rounds,
    )
    ratios = [search / product for search, product in zip(times["search"], times["product"], strict=True)]
    return (
        {"queries": queries, "corpus": corpus, "dimension": dimension, "memory": extra}
        | times
        | {"ratio": ratios}
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Time semantic_search beside one product by BLAS.")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--corpus", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path, help="write the figures here, too")
    args = parser.parse_args()
    found = measure(args.queries, args.corpus, args.dimension, args.rounds)
    print(f"{args.queries:,} queries x {args.corpus:,} vectors of {args.dimension}")
    for name in ("product", "search"):
        print(f"{name:8} {median(found[name]):7.3f} s  ({min(found[name]):.3f} to {max(found[name]):.3f})")
    ratios = found["ratio"]
    print(f"ratio    {median(ratios):7.2f}    ({min(ratios):.2f} to {max(ratios):.2f})")
    print(f"memory   {found['memory']:7.1f} MiB besides queries and corpus")
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
