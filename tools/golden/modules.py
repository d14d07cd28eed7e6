"""What the modules after a transformer give: a part of `make.py`, which says what is in the file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tests.support import pipelines


def golden_modules(load: Callable[[Path], Any], tiny_bert: Path) -> dict[str, np.ndarray]:
    """The float64 results of every case, each text alone, so that nothing is padded."""
    golden: dict[str, np.ndarray] = {}
    for index, (name, case) in enumerate(pipelines.CASES.items()):
        style = pipelines.STYLES[index % len(pipelines.STYLES)]
        with tempfile.TemporaryDirectory() as parent:
            model = load(pipelines.build(Path(parent) / "model", tiny_bert, case.modules, style)).double()
        golden[name] = reference(model, case)
    return golden


def reference(model: Any, case: pipelines.Case) -> np.ndarray:
    """Encode the texts of a case: (S, D), or (N, D) for tokens."""
    arguments = {"prompt": case.prompt, "batch_size": 1, "output_value": case.output_value}
    rows = [np.atleast_2d(np.asarray(model.encode(text, **arguments))) for text in pipelines.TEXTS]
    return np.concatenate(rows)
