"""Where minisbert's time goes: each kernel's share, what it computes in a second, and how fast it reads weights."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

import minisbert
from minisbert import model
from tests.support.backends import compiled
from tools.bench.measure import ceiling

__all__ = ["shares"]

Work = Callable[
    ..., tuple[float, float]
]  # of a call's arguments and result: floating-point operations, bytes of weights


def multiply_work(y: Any, x: Any, dense: Any, *_: Any, **__: Any) -> tuple[float, float]:
    return 2.0 * len(x) * x.shape[1] * dense.width, dense.panels.nbytes


def attention_work(y: Any, qkv: Any, offsets: Any, *_: Any) -> tuple[float, float]:
    return 4.0 * float(np.square(np.diff(offsets)).sum()) * y.shape[1], 0.0


KERNELS: dict[str, Work] = {
    "linear": multiply_work,
    "attention": attention_work,
    "layer_norm": lambda *_: (0.0, 0.0),
    "embed": lambda *_: (0.0, 0.0),
}


@contextmanager
def timed(spent: dict[str, list[float]]) -> Iterator[None]:
    """Add up seconds, operations and bytes of each kernel that is called meanwhile."""

    def wrapper(name: str, work: Work) -> Callable[..., Any]:
        kernel = getattr(compiled, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            y = kernel(*args, **kwargs)
            seconds = time.perf_counter() - start
            spent[name] = [
                a + b for a, b in zip(spent[name], (seconds, *work(y, *args, **kwargs)), strict=True)
            ]
            return y

        return call

    with ExitStack() as stack:
        for name, work in KERNELS.items():
            spent[name] = [0.0, 0.0, 0.0]
            stack.enter_context(patch.object(compiled, name, wrapper(name, work)))
        yield


def shares(folder: Path, threads: int, tasks: dict[str, list[str]]) -> dict[str, Any]:
    """Encode the texts of each task, many on one thread and a single one on all, some hundred texts in all.

    A worker's calls follow each other on one thread, so their times add up to what a worker spends. To be seen they are
    made one by one, which costs a single sentence some time in the interpreter that `encode` saves it.
    """
    found: dict[str, Any] = {}
    for task, texts in tasks.items():
        used = threads if len(texts) == 1 else 1
        encoder = minisbert.load(folder, num_threads=used, backend="native")
        given = {"weights": encoder._weights, "config": encoder.config.transformer, "steps": encoder._steps}
        encoder._vectors = partial(model.sentence_vectors, **given, kernels=compiled)  # one by one
        encoder.encode(texts, truncation="silent", show_progress_bar=False)
        spent: dict[str, list[float]] = {}
        with timed(spent):
            start = time.perf_counter()
            for _ in range(max(1, 200 // len(texts))):
                encoder.encode(texts, truncation="silent", show_progress_bar=False)
            total = time.perf_counter() - start
        found[task] = {"threads": used, "seconds": total, "kernels": spent, "ceiling": ceiling(used)}
    return found
