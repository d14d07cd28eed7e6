"""Time minisbert beside its peers: one interleaved run, on texts that every Python has.

    python tools/dev.py bench                                     everything but the long parts, on all-MiniLM-L6-v2
    python tools/dev.py bench --model minilm roberta --readme     both models, into the README
    python tools/dev.py bench --parts --curves --json curves.json --plot curves.png
    python tools/dev.py bench --from run.json curves.json --readme

Every round times each engine on each task in turn, and the machine's own ceiling beside them, so that a machine whose
speed drifts is as fast for one as for the other; ratios are taken within a round. Each engine's vectors are compared
with float64 before anything is timed.

The parts: errors (of 400 real texts instead of 32), throughput (titles, paragraphs, code, mixed), latency (one title,
one paragraph), threads (all against one), start (new processes, up to the first vector) and avx2 (mixed against
torch, all held to AVX2).
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import plot
import report
from engines import ENGINES, make, reference_vectors
from measure import curves, errors, latency, scaling, throughput
from processes import avx2, memory, start
from workloads import MODELS, SIZES, checkpoint, workloads

import minisbert
import texts as parity_texts
from minisbert.kernels.shape import LANES

README = Path(__file__).resolve().parents[1] / "README.md"
PACKAGES = ("minisbert", "numpy", "numba", "torch", "sentence-transformers", "onnxruntime", "openvino")
PARTS = ("errors", "throughput", "latency", "threads", "start", "avx2")
MEMORY_COUNTS = (10_000, 100_000)


@contextmanager
def step(what: str) -> Iterator[None]:
    """Say on standard error what is being done: a run takes minutes."""
    begin = datetime.datetime.now()
    print(f"{what} ... ", end="", file=sys.stderr, flush=True)
    yield
    print(f"{(datetime.datetime.now() - begin).total_seconds():.0f} s", file=sys.stderr, flush=True)


def machine(threads: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "processor": processor(),
        "threads": threads,
        "float32 a vector": LANES,
        "python": platform.python_version(),
    }
    if "torch" in sys.modules:
        found["torch's kernels"] = sys.modules["torch"].backends.cpu.get_cpu_capability()
    return found


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def measure_model(folder: Path, names: list[str], args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Measure all the chosen parts on one checkpoint."""
    encoder = minisbert.load(folder, num_threads=args.threads)
    config = encoder.config.transformer
    smaller = 8 if args.quick else config.hidden_size / 384
    sizes = {task: max(16 if args.quick else 64, int(SIZES[task] / smaller)) for task in SIZES}
    tasks = workloads(sizes)
    found: dict[str, Any] = {
        "description": f"{config.model_type}, {config.num_hidden_layers} layers, width {config.hidden_size}, "
        f"texts cut to {encoder.max_seq_length} tokens"
    }
    checked = parity_texts.real_texts()[: 400 if "errors" in args.parts and not args.quick else 32]
    with step(f"loading {', '.join(names)}"):
        engines = make(names, folder, args.threads, encoder.max_seq_length, scratch)
    with step(f"comparing {len(checked)} texts with float64"):
        expected = reference_vectors(folder, encoder.max_seq_length, checked)
        found["errors"] = errors(engines, expected, checked)
    if "throughput" in args.parts:
        with step(f"{', '.join(args.tasks)}: {args.rounds} rounds"):
            chosen = {task: tasks[task] for task in args.tasks}
            found["workloads"] = throughput(engines, encoder, chosen, args.rounds)
    if "latency" in args.parts:
        with step("one text at a time"):
            single = {"one title": tasks["titles"][0], "one paragraph": tasks["paragraphs"][0]}
            found["latency"] = latency(engines, encoder, single, 25 if args.quick else 200)
    del engines
    if "threads" in args.parts:
        with step("one thread and all"):
            found["scaling"] = scaling(folder, encoder, tasks["mixed"], args.rounds)
    if "start" in args.parts:
        with step("new processes"):
            found["start"] = start(folder, args.threads, 1 if args.quick else 3)
    if "avx2" in args.parts:
        with step("all held to AVX2"):
            found["avx2"] = avx2(folder, args.threads, args.rounds, args.quick)
    if args.memory:
        with step("memory"):
            counts = tuple(count // 100 if args.quick else count for count in MEMORY_COUNTS)
            found["memory"] = memory(folder, args.threads, tasks["mixed"], counts)
    if args.curves:
        with step("rising counts and lengths"):
            found["curves"] = curves(names, folder, encoder, scratch, args.quick)
    return found


def measure(args: argparse.Namespace) -> dict[str, Any]:
    names = ["minisbert", *(name for name in args.engines if name != "minisbert")]
    models = {}
    for model in args.model:
        with tempfile.TemporaryDirectory() as scratch:
            folder = checkpoint(model, Path(scratch))
            title = MODELS.get(model, folder.name)
            print(title, file=sys.stderr)
            models[title] = measure_model(folder, names, args, Path(scratch))
    today = datetime.date.today().isoformat()
    return {"date": today, "machine": machine(args.threads), "versions": versions(), "models": models}


def merged(files: list[Path]) -> dict[str, Any]:
    """Join the results of several runs; where two have measured the same part of a model, the last one counts."""
    runs = [json.loads(file.read_text()) for file in files]
    models: dict[str, Any] = {}
    for run in runs:
        for title, found in run["models"].items():
            models[title] = models.get(title, {}) | found
    return {**runs[0], "models": models}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--model", nargs="+", default=["minilm"], help="minilm (default), roberta, or checkpoint folders")
    add("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), help="which to time")
    add(
        "--parts",
        nargs="*",
        choices=PARTS,
        default=PARTS,
        help="what to measure (all of these; none is possible)",
    )
    add("--tasks", nargs="+", choices=SIZES, default=list(SIZES), help="which texts to measure throughput on")
    add("--threads", type=int, default=os.cpu_count(), help="for every engine")
    add("--rounds", type=int, default=4, help="timed rounds (4)")
    add("--quick", action="store_true", help="an eighth of everything, to see that it works")
    add("--curves", action="store_true", help="also rising counts and rising lengths: half an hour")
    add(
        "--memory",
        action="store_true",
        help="also the memory that 10,000 and 100,000 texts take: half an hour",
    )
    add(
        "--from",
        dest="results",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="show stored results, measure nothing",
    )
    add("--json", type=Path, metavar="FILE", help="write everything that was measured")
    add("--plot", type=Path, metavar="FILE.png", help="draw the curves")
    add("--readme", nargs="?", type=Path, const=README, metavar="FILE", help="rewrite the README's tables")
    args = parser.parse_args()
    if args.plot and not (args.curves or args.results):
        parser.error("--plot needs --curves, or --from a run that had it")
    if args.memory and not Path("/proc/self/status").exists():
        parser.error("--memory reads /proc, which only Linux has")
    if args.readme:
        try:
            report.with_block(
                args.readme.read_text(encoding="utf-8"), ""
            )  # or it would be said in ten minutes
        except (OSError, ValueError) as error:
            parser.error(f"--readme {args.readme}: {error}")
    return args


def main() -> None:
    args = parse()
    found = merged(args.results) if args.results else measure(args)
    tables = report.markdown(found)
    print(tables)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    if args.readme:
        whole = report.with_block(args.readme.read_text(encoding="utf-8"), tables)
        args.readme.write_text(whole, encoding="utf-8")
    if args.plot:
        plot.draw(found, args.plot)


if __name__ == "__main__":
    main()
