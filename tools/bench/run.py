"""Time minisbert beside its peers: one interleaved run, on texts that every Python has.

    python tools/dev.py bench                                     everything but the long parts, on all-MiniLM-L6-v2
    python tools/dev.py bench --model minilm roberta --json a.json  both models, stored
    python tools/dev.py bench --parts --curves --json b.json        the curves alone, stored
    python tools/dev.py bench --from a.json b.json --json tools/results/emerald-rapids.json
    python tools/dev.py bench --from tools/results/*.json --readme  all tables and plots of the project's pages

Stored results of one processor are joined: of the same texts and engines, all rounds count. Each processor's stand in a
file of tools/results that is named after it, and its tables in the README beside it, between two markers that name it.

Every round times each engine on each task in turn, and beside them the machine's own ceiling, which is what NumPy's
BLAS reaches, and its peak, which no multiply passes: multiply-adds on what is in the first cache. So a machine whose
speed drifts is as fast for one as for the other; ratios are taken within a round. Each engine's vectors are compared
with float64 before anything is timed.

The parts: errors (of 400 real texts instead of 32), throughput (titles, paragraphs, code, mixed), latency (one title,
one paragraph), threads (all against one), shares (of each kernel in minisbert's time), start (new processes, up to the
first vector) and avx2 (mixed against torch, all held to AVX2).
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm

import minisbert
from minisbert.kernels.cpus import resolve_num_threads
from minisbert.kernels.tuning import LANES
from tests.support import texts as parity_texts
from tools.bench import plot, readme, report, stored
from tools.bench.engines import ENGINES, make, reference_vectors
from tools.bench.measure import curves, errors, latency, scaling, throughput
from tools.bench.processes import avx2, memory, start
from tools.bench.publish import publish
from tools.bench.shares import shares
from tools.bench.workloads import MODELS, SIZES, checkpoint, workloads

PACKAGES = ("numpy", "numba", "torch", "sentence-transformers", "onnxruntime", "openvino")
PARTS = ("errors", "throughput", "latency", "threads", "shares", "start", "avx2")
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
    """Return the processor's name, and its kind: in a cloud all of a maker's may have one name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    name = (names and names[0]) or platform.processor() or platform.machine()
    return f"{name} ({llvm.get_host_cpu_name()})"


def versions() -> dict[str, str]:
    found = {"minisbert": minisbert.__version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def measure_model(folder: Path, args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Compare every engine with float64 on one checkpoint, then measure the chosen parts."""
    encoder = minisbert.load(folder, num_threads=args.threads)
    config, limit, quick = encoder.config.transformer, encoder.max_seq_length, args.quick
    names = ["minisbert", *(name for name in args.engines if name != "minisbert")]
    tasks = workloads({task: task_size(task, config.hidden_size, quick) for task in SIZES})
    single = {"one title": tasks["titles"][0], "one paragraph": tasks["paragraphs"][0]}
    alone = {name: [text] for name, text in single.items()}
    checked = parity_texts.real_texts()[: 400 if "errors" in args.parts and not quick else 32]
    counts = tuple(count // 100 if quick else count for count in MEMORY_COUNTS)
    with step(f"loading {', '.join(names)}"):
        engines = make(names, folder, args.threads, limit, scratch)
    with step(f"comparing {len(checked)} texts with float64"):
        wrong = errors(engines, reference_vectors(folder, limit, checked), checked)
    timed = {task: tasks[task] for task in args.tasks}
    measurements: dict[str, Callable[[], Any]] = {
        "errors": lambda: wrong,
        "throughput": lambda: throughput(engines, encoder, timed, args.rounds),
        "latency": lambda: latency(engines, encoder, single, 25 if quick else 200),
        "threads": lambda: scaling(folder, encoder, tasks["mixed"], args.rounds),
        "shares": lambda: shares(folder, args.threads, {"paragraphs": tasks["paragraphs"], **alone}),
        "start": lambda: start(folder, args.threads, 1 if quick else 3),
        "avx2": lambda: avx2(folder, args.threads, args.rounds, quick),
        "memory": lambda: memory(folder, args.threads, tasks["mixed"], counts),
        "curves": lambda: curves(names, folder, encoder, scratch, quick),
    }
    found: dict[str, Any] = {
        "description": f"{config.model_type}, {config.num_hidden_layers} layers, width {config.hidden_size}, "
        f"texts cut to {limit} tokens"
    }
    for part in [*args.parts, *["memory"] * args.memory, *["curves"] * args.curves]:
        with step(part):
            found[part] = measurements[part]()
    return found


def task_size(task: str, width: int, quick: bool) -> int:
    """Return how many texts to time: fewer for a wider model, but enough for batches."""
    return SIZES[task] // 8 if quick else max(64, SIZES[task] * 384 // width)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    models = {}
    for model in args.model:
        with tempfile.TemporaryDirectory() as scratch:
            folder = checkpoint(model, Path(scratch))
            title = MODELS.get(model, folder.name)
            print(title, file=sys.stderr)
            models[title] = measure_model(folder, args, Path(scratch))
    today = datetime.date.today().isoformat()
    return {"date": today, "machine": machine(args.threads), "versions": versions(), "models": models}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--model", nargs="+", default=["minilm"], help="minilm (default), roberta, or checkpoint folders")
    add("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), help="which to time")
    add("--parts", nargs="*", choices=PARTS, default=PARTS, help="what to measure: all of these, or none")
    add(
        "--tasks", nargs="+", choices=SIZES, default=list(SIZES), help="which texts throughput is measured on"
    )
    add("--threads", type=int, default=resolve_num_threads(None), help="for every engine")
    add("--rounds", type=int, default=4, help="timed rounds (4)")
    add("--quick", action="store_true", help="an eighth of everything, to see that it works")
    add("--curves", action="store_true", help="also rising counts and lengths: half an hour and more")
    add("--memory", action="store_true", help="also what 10,000 and 100,000 texts take: half an hour")
    add(
        "--from",
        dest="results",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="show stored results instead, those of one processor joined",
    )
    add("--json", type=Path, metavar="FILE", help="write everything that was measured")
    add("--plot", type=Path, metavar="FILE.png", help="draw the curves")
    add("--readme", action="store_true", help="rewrite all tables and plots from the results of --from")
    args = parser.parse_args()
    if args.plot and not (args.curves or args.results):
        parser.error("--plot needs --curves, or --from a run that had it")
    if args.readme and not args.results:
        parser.error(
            "--readme needs --from: store with --json first, and then give the files of all processors"
        )
    if args.memory and not Path("/proc/self/status").exists():
        parser.error("--memory reads /proc, which only Linux has")
    args.runs = stored.by_processor(args.results) if args.results else {}
    if len(args.runs) > 1 and (args.json or args.plot):
        parser.error(f"--json and --plot are for one processor, and these are of {', '.join(args.runs)}")
    return args


def main() -> None:
    args = parse()
    runs = args.runs or {"": measure(args)}
    for found in runs.values():
        if args.json:
            args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        if "transcribed" not in found:
            print(report.markdown(found), end="\n\n")
        if args.plot:
            plot.draw(found, args.plot)
    if args.readme:
        try:
            written = publish(args.results, readme.ROOT)
        except (OSError, ValueError) as error:
            sys.exit(f"bench: --readme: {error}")
        print(*(f"written: {path}" for path in written), sep="\n", file=sys.stderr)


if __name__ == "__main__":
    main()
