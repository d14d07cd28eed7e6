#!/usr/bin/env python3
"""Load damaged checkpoints by the thousand, and say what came of it.

    python tools/dev.py fuzz --count 20000

Each input is a tiny checkpoint of ``tests/data``, damaged as its seed alone decides: see `tests/support/mutations.py`.
It is loaded and encodes a few texts, or scores a few pairs, in a child process with limited memory. Two things may come
of that: finite vectors or scores, or one of minisbert's own exceptions. Another exception, a warning, a crash, more
memory or more time is a fault: the exit code is 1, and the seed is printed. To see it again with its traceback::

    python tools/dev.py fuzz --first SEED --count 1
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support import mutations

ROOT = Path(__file__).resolve().parents[1]

BATCH = 500  # inputs of one child process
SECONDS = 60  # that one input may take: a hundredth of one is usual, and a busy machine can stall
MEGABYTES = 256  # that a child may have above what it has after the first sound checkpoint
TEXTS = ["a short text", "", "Longer: caf\u00e9, \u4e2d\u6587 [MASK] <mask> \U0001f600 " * 9]
VECTORS = "finite vectors"


# --- The child: loads one input after another, and prints a line for each -----------------------------


def read_checkpoints(data: Path) -> dict[str, mutations.Files]:
    """Read the files of every checkpoint in a folder."""
    return {path.name: read_files(path) for path in sorted(data.iterdir()) if path.is_dir()}


def read_files(folder: Path) -> mutations.Files:
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def child(first: int, count: int) -> None:
    import minisbert

    warnings.simplefilter("error")
    checkpoints = read_checkpoints(ROOT / "tests" / "data")
    with tempfile.TemporaryDirectory() as scratch:
        for name, files in checkpoints.items():
            write(files, folder := Path(scratch, name))
            attempt(folder)  # which also brings in all that is imported late
        limit_memory()
        for seed in range(first, first + count):
            name, kind, files = mutations.mutate(seed, checkpoints)
            folder = Path(scratch, "mutated")
            write(files, folder)
            try:
                outcome, detail = attempt(folder), ""
            except minisbert.MinisbertError as error:
                outcome, detail = type(error).__name__, ""
            except BaseException as error:
                outcome, detail = f"unexpected {type(error).__name__}", traceback.format_exc(limit=-4)
            shutil.rmtree(folder)
            print(json.dumps([seed, f"{name}, {kind}", outcome, detail]), flush=True)
    print(json.dumps(["peak", peak_megabytes()]), flush=True)


def write(files: mutations.Files, folder: Path) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def attempt(folder: Path) -> str:
    """Load and encode; what is neither an exception nor finite vectors, or scores, raises an AssertionError."""
    import numpy as np

    import minisbert

    shape: tuple[int, ...]
    try:
        encoder = minisbert.load(folder, backend="reference", num_threads=1)
        vectors = encoder.encode(TEXTS, truncation="silent")
        shape = (len(TEXTS), encoder.get_sentence_embedding_dimension())
    except minisbert.UnsupportedCheckpointError as error:
        if "minisbert.load_cross_encoder" not in str(error):
            raise
        model = minisbert.load_cross_encoder(folder, backend="reference", num_threads=1)
        vectors = model.predict([(text, TEXTS[0]) for text in TEXTS], truncation="silent")
        shape = (len(TEXTS),) if model.num_labels == 1 else (len(TEXTS), model.num_labels)
    if vectors.shape != shape or vectors.dtype != np.float32 or not np.isfinite(vectors).all():
        raise AssertionError(
            f"vectors of shape {vectors.shape}, {vectors.dtype}; expected finite ones, {shape}"
        )
    return VECTORS


def limit_memory() -> None:
    """Let allocations fail beyond a limit, where the system can (Windows can't)."""
    try:
        import resource
    except ImportError:
        return
    with suppress(OSError, ValueError):  # no /proc, or a limit that stands already
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + (MEGABYTES << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def peak_megabytes() -> float:
    try:
        import resource
    except ImportError:
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


# --- The parent: starts children, and notices when they die or fall silent ----------------------------


@dataclass
class Result:
    """What came of one input."""

    seed: int
    kind: str
    outcome: str
    detail: str = ""

    @property
    def expected(self) -> bool:
        return not self.outcome.startswith("unexpected")


@dataclass
class Report:
    """What came of all, and the most memory that a child had, in megabytes."""

    results: list[Result]
    peak: float


def run(first: int, count: int, jobs: int, program: str = __file__) -> Report:
    """Try `count` inputs in batches, on `jobs` child processes at a time; `program` is what they run."""
    batches: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
    for start in range(first, first + count, BATCH):
        batches.put((start, min(BATCH, first + count - start)))
    report = Report([], 0.0)
    workers = [threading.Thread(target=_work, args=(batches, program, report)) for _ in range(jobs)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    report.results.sort(key=lambda result: result.seed)
    return report


def _work(batches: queue.SimpleQueue[tuple[int, int]], program: str, report: Report) -> None:
    with suppress(queue.Empty):
        while True:
            first, count = batches.get_nowait()
            end = first + count
            while first < end:  # after a crash, from the next seed on
                first = _run_child(program, first, end - first, report)


def _run_child(program: str, first: int, count: int, report: Report) -> int:
    """Run a batch until it ends, dies or hangs; return the seed to go on from."""
    command = [sys.executable, program, "--child", str(first), str(count)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    environment |= {
        "OPENBLAS_NUM_THREADS": "1",
        "RAYON_NUM_THREADS": "1",
        "RUST_BACKTRACE": "0",
    }  # they take memory
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True)
        seed = first
        for line in _lines(process):
            if line[0] == "peak":
                report.peak = max(report.peak, line[1])
            else:
                report.results.append(Result(*line))
                seed = line[0] + 1
        hung = process.poll() is None
        if hung:
            process.kill()
        code = process.wait()
        if code == 0 and not hung:
            return first + count
        errors.seek(0)
        said = errors.read().decode(errors="replace")[-2000:]
        outcome = f"unexpected hang: {SECONDS} s" if hung else f"unexpected crash: exit code {code}"
        report.results.append(Result(seed, "?", outcome, said))
        return seed + 1


def _lines(process: subprocess.Popen[str]) -> Iterator[Any]:
    """Yield what a child prints, until it ends, or prints nothing for too long."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        assert process.stdout is not None
        with process.stdout as stream:
            for line in stream:
                lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    with suppress(queue.Empty):
        while (line := lines.get(timeout=SECONDS)) is not None:
            yield json.loads(line)
        process.wait(timeout=SECONDS)


# --- What is printed ----------------------------------------------------------------------------------


def table(results: Sequence[Result]) -> str:
    """One row a kind of damage, one column an outcome, in Markdown."""
    counts = Counter((_kind(result), _column(result)) for result in results)
    columns = [VECTORS, *sorted({column for _, column in counts} - {VECTORS, "unexpected"}), "unexpected"]
    kinds = sorted({kind for kind, _ in counts})
    rows = [[kind, *(counts[kind, column] for column in columns)] for kind in kinds]
    rows.append(["**all**", *(sum(counts[kind, column] for kind in kinds) for column in columns)])
    lines = ["| damage | tried | " + " | ".join(columns) + " |", "|---|" + "--:|" * (len(columns) + 1)]
    lines += [f"| {row[0]} | {sum(row[1:])} | " + " | ".join(f"{n}" for n in row[1:]) + " |" for row in rows]
    return "\n".join(lines)


def _kind(result: Result) -> str:
    return result.kind.partition(", ")[2] or result.kind


def _column(result: Result) -> str:
    return result.outcome if result.expected else "unexpected"


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="fuzz.py", description="Load damaged checkpoints by the thousand.")
    parser.add_argument("--count", type=int, default=20_000, help="how many inputs (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="child processes")
    parser.add_argument("--child", type=int, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.child:
        child(*args.child)
        return 0
    start = time.monotonic()
    report = run(args.first, args.count, args.jobs)
    print(table(report.results))
    unexpected = [result for result in report.results if not result.expected]
    seconds = time.monotonic() - start
    print(
        f"\n{len(report.results)} inputs, {len(unexpected)} unexpected, {seconds:.0f} s, peak {report.peak:.0f} MB"
    )
    for result in unexpected:
        print(f"\nseed {result.seed} ({result.kind}): {result.outcome}\n{result.detail}")
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
