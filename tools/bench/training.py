"""How fast minisbert trains, in how much memory, and what it learns, beside sentence-transformers on torch.

The texts are real ones that every Python has: docstrings of the standard library, and the names of what they describe.
Run it where torch is, as in ``.venv-parity``::

    python -m tools.bench.training --model FOLDER [--json FILE]          # speed, memory, learning: about an hour
    python -m tools.bench.training --model FOLDER --parts speed --steps 6

- ``speed``: pairs a second of each, batch by batch in turn in one run, after a warm-up: median and spread. Both have
  the same batches, dropout, optimiser and threads. torch's loop is that of the reference's `fit`, without its bars.
- ``memory``: the peak of each in a process of its own, at each size of batch: with the cached loss for torch where
  `--cached` is at most the size of the batch.
- ``learning``: MRR@10 of held-out docstrings among the names, before and after an epoch on the others.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import minisbert
from tools import demo

SCALE, LR, WARMUP, DECAY, CLIP = 20.0, 2e-5, 10, 0.01, 1.0
HELD_OUT, SEED = 500, 1
CACHED_MICRO_BATCH = 32  # the default of the reference's cached loss
Pairs = list[tuple[str, str]]


# --- the texts -------------------------------------------------------------------------------------------------


def pairs() -> Pairs:
    """Docstring and name of every function, method and class of the standard library, no text twice."""
    found: dict[str, str] = {}
    for top in sorted(sys.stdlib_module_names - demo.NOT_SEARCHED):
        for module, path in demo.source_files(top):
            for text, name in summaries(module, ast.parse(path.read_bytes())):
                found.setdefault(name, text)
    rows = sorted({text: name for name, text in found.items()}.items())
    random.Random(SEED).shuffle(rows)
    return rows


def summaries(name: str, node: Any) -> Iterator[tuple[str, str]]:
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and child.name[0] != "_":
            text = demo.summary(child)
            if len(text.split()) >= 4 and not text.startswith(">>>"):
                yield text, f"{name}.{child.name}"
            if isinstance(child, ast.ClassDef):
                yield from summaries(f"{name}.{child.name}", child)


def mrr_at_10(anchors: Any, positives: Any) -> float:
    scores = anchors @ positives.T
    ranks = (scores >= np.diagonal(scores)[:, np.newaxis]).sum(axis=1)
    return float((1 / ranks)[ranks <= 10].sum() / len(ranks))


# --- the two that train ----------------------------------------------------------------------------------------


class Torch:
    """The loop of the reference's `fit`, a step at a time."""

    def __init__(self, folder: str, threads: int, steps: int, cached: bool) -> None:
        import torch
        import transformers
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer import losses

        torch.set_num_threads(threads)
        torch.manual_seed(SEED)
        self.torch, self.model = torch, SentenceTransformer(folder, device="cpu", local_files_only=True)
        self.model.train()
        named, no_decay = list(self.model.named_parameters()), ["bias", "LayerNorm.bias", "LayerNorm.weight"]
        each = [
            [p for n, p in named if any(part in n for part in no_decay) == free] for free in (False, True)
        ]
        groups = [{"params": each[0], "weight_decay": DECAY}, {"params": each[1], "weight_decay": 0.0}]
        self.optimiser = torch.optim.AdamW(groups, lr=LR)
        self.scheduler = transformers.get_linear_schedule_with_warmup(self.optimiser, WARMUP, steps)
        self.loss = (
            losses.CachedMultipleNegativesRankingLoss(
                self.model, scale=SCALE, mini_batch_size=CACHED_MICRO_BATCH
            )
            if cached
            else losses.MultipleNegativesRankingLoss(self.model, scale=SCALE)
        )

    def step(self, rows: Pairs) -> float:
        features = [self.model.preprocess(list(column)) for column in zip(*rows, strict=True)]
        value = self.loss(features, self.torch.zeros(len(rows)))
        value.backward()
        self.torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimiser.step()
        self.scheduler.step()
        self.optimiser.zero_grad()
        return float(value.item())

    def encode(self, texts: list[str]) -> Any:
        self.model.eval()
        return self.model.encode(texts, normalize_embeddings=True, show_progress_bar=False)

    def close(self) -> None:
        pass


class Ours:
    """What a step of `minisbert.training.fit` does, without its files."""

    def __init__(self, folder: str, threads: int, steps: int, cached: bool) -> None:
        from minisbert.checkpoint.config import read_config
        from minisbert.engine.workers import Workers
        from minisbert.training.optimiser import AdamW
        from minisbert.training.settings import dropout_rates
        from minisbert.training.steps import Model

        config = read_config(Path(folder))
        self.workers = Workers(threads if threads > 1 else 0)
        self.model = Model(config, dropout_rates(config, None), np.dtype(np.float32), self.workers, threads)
        self.optimiser = AdamW(self.model.weights, self.model.parameters.num_decayed, DECAY)
        self.steps, self.done = steps, 0

    def step(self, rows: Pairs) -> float:
        from minisbert.kernels.reference.blas import one_blas_thread

        with one_blas_thread():  # as `fit` does, for all of its steps
            return self._step(rows)

    def _step(self, rows: Pairs) -> float:
        from minisbert.training.losses import multiple_negatives_ranking
        from minisbert.training.optimiser import learning_rate

        def loss(vectors: Any) -> Any:
            return multiple_negatives_ranking(vectors, len(rows), None, SCALE, "cos_sim")

        texts = [text for column in zip(*rows, strict=True) for text in column]
        value, gradient = self.model.gradient(texts, loss, [SEED, self.done + 1])
        norm = self.model.norm(self.optimiser, gradient)
        lr = learning_rate(LR, "warmuplinear", self.done, WARMUP, self.steps)
        self.done += 1
        self.model.update(self.optimiser, gradient, min(1.0, CLIP / (norm + 1e-6)), lr, self.done)
        return value

    def encode(self, texts: list[str]) -> Any:
        vectors = self.model.encode(texts)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def close(self) -> None:
        self.workers.close()


TRAINERS: dict[str, Callable[..., Any]] = {"minisbert": Ours, "torch": Torch}


def batches(rows: Pairs, size: int, steps: int) -> list[Pairs]:
    """So many batches, from the start again where the rows end."""
    return [[rows[(size * step + i) % len(rows)] for i in range(size)] for step in range(steps)]


# --- what is measured ------------------------------------------------------------------------------------------


def speed(args: argparse.Namespace, rows: Pairs) -> dict[str, Any]:
    """Time each batch with one and then with the other; the first two are the warm-up."""
    found: dict[str, Any] = {}
    for size in args.batch_sizes:
        cached = size >= args.cached
        trainers = {
            name: make(args.model, args.threads, args.steps, cached) for name, make in TRAINERS.items()
        }
        seconds: dict[str, list[float]] = {name: [] for name in trainers}
        losses: dict[str, list[float]] = {name: [] for name in trainers}
        for batch in batches(rows, size, args.steps + 2):
            for name, trainer in trainers.items():
                begin = time.perf_counter()
                losses[name].append(trainer.step(batch))
                seconds[name].append(time.perf_counter() - begin)
        for trainer in trainers.values():
            trainer.close()
        rates = {name: sorted(size / each for each in values[2:]) for name, values in seconds.items()}
        found[str(size)] = {
            name: {
                "pairs_a_second": median(values),
                "from": values[0],
                "to": values[-1],
                "losses": losses[name],
            }
            for name, values in rates.items()
        }
        found[str(size)]["ratio"] = median(rates["minisbert"]) / median(rates["torch"])
        found[str(size)]["torch's loss"] = "cached" if cached else "plain"
        print(f"batch {size}:", {k: v for k, v in found[str(size)].items() if k != "losses"}, flush=True)
    return found


def memory(args: argparse.Namespace, rows: Pairs) -> dict[str, Any]:
    """Take the peak (VmHWM, MiB) of a few steps in a process of its own, before and after them."""
    found: dict[str, Any] = {}
    for size in args.batch_sizes:
        for name in TRAINERS:
            command = [
                sys.executable,
                "-m",
                "tools.bench.training",
                "--child",
                name,
                "--batch-sizes",
                str(size),
            ]
            command += ["--model", args.model, "--threads", str(args.threads), "--cached", str(args.cached)]
            said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            found[f"{name} {size}"] = json.loads(said.splitlines()[-1])
            print(f"{name}, batch {size}: {found[f'{name} {size}']} MiB", flush=True)
    return found


def child(args: argparse.Namespace) -> None:
    [size] = args.batch_sizes
    rows = pairs()
    trainer = TRAINERS[args.child](args.model, args.threads, 3, size >= args.cached)
    loaded = peak()
    for batch in batches(rows, size, 3):
        trainer.step(batch)
    trainer.close()
    print(json.dumps({"loaded": loaded, "peak": peak()}))


def peak() -> float:
    match = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    return int(match[1]) / 1024 if match else float("nan")


def learning(args: argparse.Namespace, rows: Pairs) -> dict[str, Any]:
    """Train both for an epoch on all but the held-out pairs, in the same order; ours by `fit` itself."""
    held, rest, size = rows[:HELD_OUT], rows[HELD_OUT:], args.batch_sizes[0]
    rest = rest[: args.rows] if args.rows else rest
    columns = [list(column) for column in zip(*held, strict=True)]
    whole = [rest[start : start + size] for start in range(0, len(rest), size)]
    torch = Torch(args.model, args.threads, len(whole), size >= args.cached)
    found = {"pairs": len(rest), "held out": len(held), "before": mrr_at_10(*map(torch.encode, columns))}
    torch.model.train()
    for batch in whole:
        torch.step(batch)
    found["torch, after"] = mrr_at_10(*map(torch.encode, columns))
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", minisbert.TruncationWarning)
        from minisbert.training import fit

        out = os.path.join(folder, "out")
        fit(
            args.model, rest, out, batch_size=size, scale=SCALE, lr=LR, warmup_steps=WARMUP, weight_decay=DECAY,
            max_grad_norm=CLIP, seed=SEED, num_threads=args.threads, shuffle=False, no_duplicates=False,
        )  # fmt: skip
        encoder = minisbert.load(out)
        vectors = [encoder.encode(column, normalize_embeddings=True) for column in columns]
        found["minisbert, after"] = mrr_at_10(*vectors)
    print(found, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a checkpoint folder: the genuine all-MiniLM-L6-v2")
    parser.add_argument(
        "--parts", nargs="+", choices=["speed", "memory", "learning"], default=["speed", "memory", "learning"]
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[128, 1024])
    parser.add_argument(
        "--cached", type=int, default=1024, help="from this size on torch has the cached loss"
    )
    parser.add_argument("--steps", type=int, default=12, help="that are timed at each size")
    parser.add_argument("--rows", type=int, help="at most so many pairs to learn from")
    parser.add_argument("--json", type=Path, help="where to write what was found")
    parser.add_argument("--child", choices=[*TRAINERS], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args)
        return
    rows = pairs()
    print(f"{len(rows):,} pairs, {args.threads} threads", flush=True)
    parts = {"speed": speed, "memory": memory, "learning": learning}
    found = {name: parts[name](args, rows) for name in args.parts}
    if args.json:
        args.json.write_text(json.dumps(found | {"threads": args.threads}, indent=1) + "\n")


if __name__ == "__main__":
    main()
