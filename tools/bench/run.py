"""Time minisbert beside its peers: one interleaved run, on texts that every Python has.

    python tools/dev.py bench                                     everything but the long parts, on all-MiniLM-L6-v2
    python tools/dev.py bench --model minilm roberta --readme     both models, into the README
    python tools/dev.py bench --parts --curves --json curves.json --plot curves.png
    python tools/dev.py bench --from run.json curves.json --readme

Stored results of several runs are joined: of the same texts and engines, all rounds count. In the README each processor
has tables of its own, between two markers that name it.

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
from tools.bench import plot, readme, report
from tools.bench.engines import ENGINES, make, reference_vectors
from tools.bench.measure import curves, errors, latency, scaling, throughput
from tools.bench.processes import avx2, memory, start
from tools.bench.shares import shares
from tools.bench.workloads import MODELS, SIZES, checkpoint, workloads

PACKAGES = ("numpy", "numba", "torch", "sentence-transformers", "onnxruntime", "openvino")
PARTS = ("errors", "throughput", "latency", "threads", "shares", "start", "avx2")
OF_ROUNDS = ("throughput", "latency", "threads", "start", "avx2")  # whose lists have a value for each round
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


def stored(file: Path) -> dict[str, Any]:
    """Read what ``--json`` wrote, or stop."""
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or "machine" not in found:
            raise ValueError("it names no machine")
    except (OSError, ValueError) as error:
        sys.exit(f"bench: --from {file}: expected what --json wrote ({error})")
    return found


def merged(files: list[Path]) -> dict[str, Any]:
    """Join the results of several runs: rounds of the same thing add up, of anything else the last one counts."""
    runs = [stored(file) for file in files]
    alike = ("processor", "threads", "float32 a vector")
    if len({tuple(run["machine"][key] for key in alike) for run in runs}) > 1:
        sys.exit("bench: the runs are of different processors or numbers of threads, so they can't be joined")
    models: dict[str, Any] = {}
    for run in runs:
        for title, found in run["models"].items():
            model = models.setdefault(title, {})
            for part, more in found.items():
                model[part] = joined(model.get(part), more) if part in OF_ROUNDS else more
    return {**runs[-1], "models": models}


def joined(found: Any, more: Any) -> Any:
    """Append the rounds of a later run to those of an earlier one, which timed the same engines on the same texts."""
    if isinstance(found, list):
        return found + more
    if not isinstance(found, dict):
        return more
    if "gflop" in found:
        one, other = ((timed["gflop"], sorted(timed["seconds"])) for timed in (found, more))
        if one != other:
            sys.exit("bench: the runs timed different texts or engines, so their rounds can't be joined")
    return found | {key: joined(found.get(key), value) for key, value in more.items()}


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
        help="show stored results instead, joined",
    )
    add("--json", type=Path, metavar="FILE", help="write everything that was measured")
    add("--plot", type=Path, metavar="FILE.png", help="draw the curves")
    readme.add_option(parser)
    args = parser.parse_args()
    if args.plot and not (args.curves or args.results):
        parser.error("--plot needs --curves, or --from a run that had it")
    if args.memory and not Path("/proc/self/status").exists():
        parser.error("--memory reads /proc, which only Linux has")
    args.found = merged(args.results) if args.results else None
    measured = args.found["machine"]["processor"] if args.found else processor()
    readme.check(parser, args.readme, block(measured))
    return args


def block(name: str) -> str:
    """Name the README's block of tables for the processor of that name: each has one of its own."""
    return f"{report.NAME}, {name}"


def main() -> None:
    args = parse()
    found = args.found or measure(args)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    tables = report.markdown(found)
    print(tables)
    if args.readme:
        readme.rewrite(args.readme, block(found["machine"]["processor"]), tables)
    if args.plot:
        plot.draw(found, args.plot)


if __name__ == "__main__":
    main()
