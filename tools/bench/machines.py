"""Time Ray, Spark and Dask on two worker processes, and plan a billion texts from what was measured.

    python tools/dev.py bench-machines                            20,000 titles on each engine: some minutes
    python tools/dev.py bench-machines --json FILE                ... stored
    python tools/dev.py bench-machines --from FILE --price 0.03   the tables of a stored run, at another price

Each round times one process with two threads, and then the engine with two workers of one thread each, both from
texts in memory to vectors in memory. Starting a cluster, and its first batches, with which its workers load the model,
come before, are stated, and don't count. The vectors of every round are compared bit by bit.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from minisbert.adapters.spec import EncoderSpec
from tests.support.clusters import CLUSTERS, WORKERS, Run
from tests.support.machines import WatchedSpec
from tools.bench import billion
from tools.bench.run import MODELS, machine, step, versions
from tools.bench.workloads import checkpoint, workloads

__all__: list[str] = []

PARTS = 20  # of the texts, ten for each worker
WARM_UP = 4096  # texts: enough for tasks on each worker
KINDS = {"titles": 4096, "mixed": 576, "paragraphs": 384}  # texts to time


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    result = work()
    return time.perf_counter() - begin, result


# --- Engines ----------------------------------------------------------------------------------------------


def engine(name: str, spec: EncoderSpec, texts: list[str], rounds: int) -> dict[str, Any]:
    """Measure one engine beside one process, round by round."""
    table = pa.table({"id": pa.array(range(len(texts)), pa.int64()), "text": texts})
    alone = replace(spec, num_threads=WORKERS)
    with tempfile.TemporaryDirectory() as folder:
        watched = WatchedSpec(**spec.to_dict(), folder=folder)
        cluster = CLUSTERS[name]()
        start, run = timed(cluster.__enter__)
        try:
            first, _ = timed(lambda: run(table.slice(0, WARM_UP), watched, PARTS))
            found = [one_round(run, table, watched, alone) for _ in range(rounds)]
        finally:
            cluster.__exit__(None, None, None)
        loads = watched.loads()
    loads.pop(str(os.getpid()), None)
    return {
        "start": start,
        "first": first,
        "loads": sorted(loads.values()),
        "identical": all(same for _, _, same in found),
        "alone": [seconds for seconds, _, _ in found],
        "engine": [seconds for _, seconds, _ in found],
    }


def one_round(run: Run, table: pa.Table, spec: WatchedSpec, alone: EncoderSpec) -> tuple[float, float, bool]:
    """Return the seconds of one process, those of the engine, and whether they gave the same bits."""
    ours, expected = timed(lambda: alone.encode(table["text"].to_pylist()))
    theirs, found = timed(lambda: run(table, spec, PARTS))
    rows = found.sort_by("id").combine_chunks()
    vectors = np.stack(rows["embedding"].to_numpy())
    return ours, theirs, rows["id"].equals(table["id"]) and bits(vectors) == bits(expected)


def bits(vectors: np.ndarray[Any, Any]) -> tuple[str, bytes]:
    return str(vectors.dtype), vectors.tobytes()


# --- One machine ------------------------------------------------------------------------------------------


def kinds(spec: EncoderSpec, tasks: dict[str, list[str]], rounds: int) -> dict[str, Any]:
    """Measure how long texts of each kind take, in turns, when all processors are busy."""
    encoder = replace(spec, num_threads=WORKERS).resolve()
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for number in range(rounds + 1):
        for name, texts in tasks.items():
            taken, _ = timed(lambda texts=texts: encoder.encode(texts, truncation="silent"))
            if number:  # the first one warms up
                seconds[name].append(taken)
    return {
        name: {
            "texts": len(texts),
            "tokens": float(np.minimum(encoder.token_counts(texts), encoder.max_seq_length).mean()),
            "seconds": seconds[name],
        }
        for name, texts in tasks.items()
    }


def measure(args: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = checkpoint(args.model, Path(scratch))
        spec = EncoderSpec(str(folder), dtype=args.dtype)
        count = {name: max(8, size // 16) if args.quick else size for name, size in KINDS.items()}
        with step("one process"):
            one = kinds(spec, workloads(count), args.rounds)
        texts = workloads({args.kind: args.texts})[args.kind]
        engines = {}
        for name in args.engines:
            with step(name):
                engines[name] = engine(name, spec, texts, args.rounds)
    return {
        "date": datetime.date.today().isoformat(),
        "machine": machine(WORKERS),
        "versions": versions() | {name: version(name) for name in args.engines},
        "model": MODELS.get(args.model, folder.name),
        "dtype": args.dtype,
        "dimension": spec.resolve().get_embedding_dimension(),
        "kinds": one,
        "engines": {"kind": args.kind, "texts": args.texts, "seconds": engines},
    }


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--model", default="minilm", help="minilm (default), roberta, or a checkpoint folder")
    add("--dtype", default="float32", help="of the weights, as in minisbert.load")
    add("--engines", nargs="*", choices=CLUSTERS, default=list(CLUSTERS), help="which to time")
    add("--kind", choices=KINDS, default="titles", help="which texts the engines are timed on")
    add("--texts", type=int, default=20_000, help="how many of them (20,000)")
    add("--rounds", type=int, default=3, help="timed rounds (3)")
    add("--quick", action="store_true", help="a sixteenth of the texts of one process, to see that it works")
    add("--price", type=float, default=0.04, help="what a core hour is reckoned to cost (0.04)")
    add("--json", type=Path, metavar="FILE", help="write what was measured")
    add("--from", dest="stored", type=Path, metavar="FILE", help="show a stored result instead")
    return parser.parse_args()


def main() -> None:
    args = parse()
    warnings.simplefilter("ignore")  # those of the frameworks about each other
    found = json.loads(args.stored.read_text(encoding="utf-8")) if args.stored else measure(args)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(billion.markdown(found, args.price))


if __name__ == "__main__":  # which the workers of Dask read, too
    main()
