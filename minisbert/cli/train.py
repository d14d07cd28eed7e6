"""The command ``minisbert train``: what it is told becomes the arguments of `minisbert.training.fit`."""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from minisbert.cli.parser import UsageError
from minisbert.cli.report import LINE_SECONDS, print_json, print_lines, tell
from minisbert.training import Record, fit

__all__ = ["train"]

# Options of the command that are arguments of `fit`, by the same names.
SAME = (
    "epochs", "batch_size", "loss", "scale", "similarity_fct", "lr", "weight_decay", "scheduler", "warmup_steps",
    "max_grad_norm", "steps_per_epoch", "evaluation_steps", "dropout", "seed", "dtype", "sampling", "resume",
)  # fmt: skip


def train(arguments: argparse.Namespace) -> None:
    """Fine-tune a model, and print what came of it."""
    files = arguments.data
    if len(set(files)) < len(files):
        raise UsageError("a file of DATA is named twice; name it once, and choose --epochs")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        record = fit(
            arguments.model,
            files[0] if len(files) == 1 else {name: name for name in files},
            arguments.output,
            **{name: getattr(arguments, name) for name in SAME},
            num_threads=arguments.threads,
            shuffle=not arguments.no_shuffle,
            no_duplicates=not arguments.allow_duplicates,
            evaluation=arguments.evaluation or arguments.hold_out,
            show_progress_bar=False if arguments.quiet else None if sys.stderr.isatty() else _line_by_line(),
        )
    for warning in caught:
        tell(f"warning: {warning.message}")
    if arguments.json:
        print_json([_facts(record)], indent=2)
    else:
        print_lines(_lines(record))


def _facts(record: Record) -> dict[str, Any]:
    return {
        "output": str(record.output),
        "steps": len(record.losses),
        "first_loss": record.losses[0],
        "last_loss": record.losses[-1],
        "metric": record.metric,
        "evaluations": record.evaluations,
        "best_step": record.best_step,
    }


def _lines(record: Record) -> list[str]:
    steps = f"{len(record.losses):,} steps, loss {record.losses[0]:.4f} -> {record.losses[-1]:.4f}"
    lines = [f"{record.output}: {steps}"]
    if record.evaluations:
        before, best = record.evaluations[0][1], dict(record.evaluations)[record.best_step]
        lines.append(
            f"{record.metric} {before:.4f} -> {best:.4f}, the weights after step {record.best_step:,}"
        )
    return lines


def _line_by_line() -> Callable[[int, dict[str, Any]], None]:
    """Make a function that says time and again how far the steps are, and each time what an evaluation gave."""
    start = told = time.monotonic()
    first = 0  # step of this run
    loss: dict[str, Any] = {}  # the last one

    def update(steps: int, entry: dict[str, Any]) -> None:
        nonlocal told, first, loss
        now, step = time.monotonic(), entry["step"]
        first = first or step
        loss = {"loss": entry["loss"]} if "loss" in entry else loss
        if "loss" in entry and now - told < LINE_SECONDS:
            return
        told = now
        known = entry | loss
        shown = ", ".join(f"{key} {known[key]:.4f}" for key in ("loss", "mrr@10", "spearman") if key in known)
        rate = (now - start) / max(1, step - first + 1)
        left = f", {timedelta(seconds=round((steps - step) * rate))} left" if step else ""
        tell(f"step {step:,} of {steps:,}: {shown}{left}")

    return update
