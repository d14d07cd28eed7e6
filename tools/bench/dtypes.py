"""Time minisbert's dtypes beside its peers' of fewer bits, and say what each costs: speed-up against error.

    python tools/dev.py bench-dtypes                                    tables, on all-MiniLM-L6-v2
    python tools/dev.py bench-dtypes --json tools/results/dtypes.json   stored
    python tools/dev.py bench-dtypes --from tools/results/dtypes.json --readme    put into the project's pages
    python tools/dev.py bench-dtypes --model FOLDER --errors            errors alone, of minisbert's dtypes

One interleaved run. Speed-ups are over minisbert in float32, taken within a round. Errors are of 1,200 texts of all
kinds against sentence-transformers in float64: 1 - cos, and how many of the ten nearest of 1,000 texts stay so, for 200
others. Memory is the peak of a process that encodes 10,000 texts.
"""

from __future__ import annotations

import argparse
import datetime
import json
import statistics
import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

import minisbert
from minisbert.kernels import select
from minisbert.kernels.compiled.backend import Backend
from minisbert.kernels.cpus import resolve_num_threads
from tools.bench import instructions, plot, readme
from tools.bench.engines import Encode, reference_vectors
from tools.bench.measure import interleave, latency, seconds, tuned
from tools.bench.narrow_engines import DTYPES, ENGINES, LESSER
from tools.bench.processes import memory
from tools.bench.report import ranged, table, turn_medians
from tools.bench.run import machine, step, versions
from tools.bench.workloads import MODELS, SIZES, checkpoint, workloads

__all__ = ["costs", "markdown"]

BASE = "minisbert float32"
TASKS = ("titles", "mixed", "paragraphs")
QUERIES, TEXTS, NEAREST = 200, 1200, 10
Found = dict[str, Any]


# --- Measuring --------------------------------------------------------------------------------------------


def costs(found: NDArray[Any], exact: NDArray[np.float64]) -> dict[str, float]:
    """Compare vectors with exact ones: 1 - cos, and which share of the nearest stays."""
    found, exact = (x / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True) for x in (found, exact))
    apart = 1 - (found * exact).sum(axis=1)
    kept = [
        len(np.intersect1d(one, other)) / NEAREST
        for one, other in zip(nearest(found), nearest(exact), strict=True)
    ]
    return {"mean": float(apart.mean()), "worst": float(apart.max()), "kept": statistics.mean(kept)}


def nearest(vectors: NDArray[Any]) -> NDArray[np.int64]:
    scores = vectors[:QUERIES] @ vectors[QUERIES:].T
    return np.argsort(-scores, axis=1, kind="stable")[:, :NEAREST]


def measure(folder: Path, names: list[str], args: argparse.Namespace) -> Found:
    """Return errors and, unless these alone are asked for, times and memory."""
    encoder = minisbert.load(folder, num_threads=args.threads)
    limit, texts = encoder.max_seq_length, workloads({"mixed": TEXTS})["mixed"]
    with (
        tempfile.TemporaryDirectory() as scratch,
        step(f"making {len(names)} engines"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # the peers' own
        engines = {name: ENGINES[name](folder, args.threads, limit, Path(scratch)) for name in names}
    with step("float64"):
        exact = reference_vectors(folder, limit, texts)
    found: Found = {"errors": {}, "arithmetic": arithmetics(folder)}
    for name, encode in engines.items():
        with step(name):
            found["errors"][name] = costs(encode(texts, 16), exact)
    if not args.errors:
        found |= times(engines, encoder, args)
        with step("memory"):
            found["memory"] = {
                dtype: peak(folder, args.threads, dtype, texts) for dtype in ("float32", *DTYPES)
            }
    return found


def arithmetics(folder: Path) -> dict[str, str]:
    return {dtype: minisbert.load(folder, dtype=dtype).arithmetic for dtype in DTYPES}


def times(engines: dict[str, Encode], encoder: minisbert.SentenceEncoder, args: argparse.Namespace) -> Found:
    width = encoder.config.transformer.hidden_size
    tasks = workloads({task: max(64, SIZES[task] * 384 // width) for task in TASKS})
    with step("finding the best size of a batch"):
        sizes = {task: tuned(engines, texts) for task, texts in tasks.items()}
    turns = {
        (task, name): partial(seconds, encode, texts, sizes[task][name])
        for task, texts in tasks.items()
        for name, encode in engines.items()
    }
    with step(f"{args.rounds} rounds"):
        taken = interleave(turns, args.rounds)
    many = {
        task: {"texts": len(texts), "seconds": {name: taken[task, name] for name in engines}}
        for task, texts in tasks.items()
    }
    with step("one title"):
        alone = latency(engines, encoder, {"one title": tasks["titles"][0]}, 200)
    return {"throughput": many, "latency": alone}


def peak(folder: Path, threads: int, dtype: str, texts: list[str]) -> dict[str, float]:
    [(_, found)] = memory(folder, threads, texts, (10_000,), dtype).items()
    return found


def multiplies(args: argparse.Namespace) -> Found:
    """Return what the multiplies of each dtype reach, and what their instruction could."""
    with step("multiplies alone"):
        backends = {dtype: cast(Backend, select("native", dtype)) for dtype in ("float32", *DTYPES)}
        return instructions.shares(backends, args.threads, args.rounds)


# --- Tables -----------------------------------------------------------------------------------------------


def speedups(model: Found, name: str) -> dict[str, list[float]]:
    """Return how many times as fast as minisbert in float32 an engine was, by task and round."""
    taken = {task: entry["seconds"] for task, entry in model["throughput"].items()}
    taken["one title"] = turn_medians(model["latency"]["one title"])
    return {
        task: [ours / theirs for ours, theirs in zip(entry[BASE], entry[name], strict=True)]
        for task, entry in taken.items()
    }


def markdown(found: Found) -> str:
    """Return the table of each model, and where and when it was measured."""
    blocks = [f"**{title}**\n\n{model_table(model)}" for title, model in found["models"].items()]
    used = "; ".join(f"{name} {version}" for name, version in found["versions"].items())
    where = (
        f"{found['machine']['processor']}, {found['machine']['threads']} threads; {used}; {found['date']}."
    )
    return "\n\n".join(
        [*blocks, multiplies_table(found["multiplies"]), where] if "multiplies" in found else [*blocks, where]
    )


def multiplies_table(found: Found) -> str:
    """Return a table of what the multiplies of a MiniLM layer reach, beside the peak of their instruction."""
    rows = []
    for dtype, entry in found.items():
        shares = [100 * a / b for a, b in zip(entry["reached"], entry["peak"], strict=True)]
        rows.append(
            [dtype, entry["by"], ranged(entry["peak"], 0), ranged(entry["reached"], 0), ranged(shares, 0)]
        )
    return table(["multiplies", "by", "the instruction's peak, GFLOP/s", "reached", "% of the peak"], rows)


def model_table(model: Found) -> str:
    head = ["", "1 - cos, mean", "worst", "ten nearest kept"]
    rows = []
    for name, cost in model["errors"].items():
        row = [name, f"{cost['mean']:.1e}", f"{cost['worst']:.1e}", f"{100 * cost['kept']:.1f} %"]
        if "throughput" in model:
            row += [ranged(values, 2) for values in speedups(model, name).values()]
        if "memory" in model:
            used = model["memory"].get(name.removeprefix("minisbert "))
            row.append(f"{used['peak']:.0f} MiB" if used else "")
        rows.append(row)
    if "throughput" in model:
        head += [*TASKS, "one title"]
    return table(head + ["memory"] * ("memory" in model), rows)


def readme_table(found: Found) -> str:
    """Return the short table: medians, of the first model, for minisbert alone."""
    title, model = next(iter(found["models"].items()))
    rows = [
        [name, *(f"{statistics.median(v):.1f}×" for v in speedups(model, name).values()), f"{cost['mean']:.0e}",
         f"{100 * cost['kept']:.1f} %"]
        for name, cost in model["errors"].items()
        if name.startswith("minisbert") and name not in (BASE, *LESSER)
    ]  # fmt: skip
    head = ["speed-up over float32", *TASKS, "one title", "1 - cos", "ten nearest kept"]
    where = (
        f"{found['machine']['threads']} threads, medians; {found['machine']['processor']}, {found['date']}"
    )
    return f"{table(head, rows)}\n\n{title}, {where}."


def publish(found: Found) -> None:
    """Rewrite the tables and the plot of the project's pages."""
    readme.rewrite(readme.RESULTS, "dtypes", markdown(found))
    readme.rewrite(readme.README, "dtypes", readme_table(found))
    title, model = next(iter(found["models"].items()))
    points = {
        name: (cost["mean"], {task: statistics.median(v) for task, v in speedups(model, name).items()})
        for name, cost in model["errors"].items()
        if name not in LESSER
    }
    plot.dtypes(points, f"{title}, {found['machine']['processor']}", readme.RESULTS.parent / "dtypes.svg")


# --- The command ------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--model", nargs="+", default=["minilm"], help="minilm (default), roberta, or checkpoint folders")
    add("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), help="which to time beside float32")
    add("--threads", type=int, default=resolve_num_threads(None), help="for every engine")
    add("--rounds", type=int, default=5, help="timed rounds (5)")
    add("--errors", action="store_true", help="measure errors alone, of minisbert's dtypes")
    add("--from", dest="result", type=Path, metavar="FILE", help="show what was stored instead")
    add("--json", type=Path, metavar="FILE", help="write everything that was measured")
    add("--readme", action="store_true", help="rewrite the tables and the plot of the project's pages")
    args = parser.parse_args()
    if args.result:
        found = json.loads(args.result.read_text(encoding="utf-8"))
    else:
        ours = [name for name in ENGINES if name.startswith("minisbert") and name not in LESSER]
        names = ours if args.errors else list(dict.fromkeys([BASE, *args.engines]))
        models = {}
        for model in args.model:
            with tempfile.TemporaryDirectory() as scratch:
                folder = checkpoint(model, Path(scratch))
                title = MODELS.get(model, folder.name)
                print(title, file=sys.stderr)
                models[title] = measure(folder, names, args)
        timed = {} if args.errors else {"multiplies": multiplies(args)}
        today = datetime.date.today().isoformat()
        found = {"date": today, "machine": machine(args.threads), "versions": versions(), "models": models}
        found |= timed
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(markdown(found))
    if args.readme:
        publish(found)


if __name__ == "__main__":
    main()
