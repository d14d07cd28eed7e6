"""What tests of training share: rows of texts, and the gradient of a checkpoint as arrays by role."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from minisbert.checkpoint.config import read_config
from minisbert.engine.workers import Workers
from minisbert.kernels.reference.blas import one_blas_thread
from minisbert.training.forward import Rates
from minisbert.training.losses import LOSSES, SCORED
from minisbert.training.steps import Model

RANKING = "MultipleNegativesRankingLoss"
WORDS = "the a cat dog sat on mat over under house red blue small big first second third it was said"


def some_rows(count: int, columns: int) -> list[tuple[str, ...]]:
    """Rows of texts of 2 to 9 words, no text twice."""
    chance, seen = random.Random(7), set[str]()
    rows = []
    while len(rows) < count:
        row = tuple(" ".join(chance.choices(WORDS.split(), k=chance.randint(2, 9))) for _ in range(columns))
        if seen.isdisjoint(row) and len(set(row)) == columns:
            rows.append(row)
            seen.update(row)
    return rows


def scored_rows(count: int) -> list[tuple[str, str, float]]:
    """Rows of two texts and a score that float32 has, too."""
    return [(a, b, i % 5 / 4) for i, (a, b) in enumerate(some_rows(count, 2))]


class Trained:
    """A checkpoint in float64, and the gradient of a loss by all of its weights."""

    def __init__(self, folder: Path, rate: float = 0.0) -> None:
        config = read_config(folder)
        dropouts = sum(type(module).__name__ == "Dropout" for module in config.modules)
        rates = Rates(rate, rate, (rate,) * dropouts)
        with closing(Workers(0)) as workers:
            self.model = Model(config, rates, np.dtype(np.float64), workers, 1)
        self.parameters = self.model.parameters

    def gradient(
        self, rows: list[tuple[Any, ...]], loss: str, similarity: str = "cos_sim"
    ) -> tuple[float, dict[str, Any]]:
        columns = list(zip(*rows, strict=True))
        scores = np.array(columns.pop()) if loss == SCORED else None

        def function(vectors: Any) -> Any:
            return LOSSES[loss](vectors, len(rows), scores, 20.0, similarity)

        with one_blas_thread():
            value, flat = self.model.gradient([text for column in columns for text in column], function, [3])
        return value, {role: self.parameters.view(flat, role) for role in self.parameters.shapes}

    def reference_names(self) -> dict[str, str]:
        """The names of the reference's parameters by role."""
        found = {}
        for role in self.parameters.shapes:
            if role.startswith("modules."):
                _, index, name = role.split(".", 2)
                found[role] = f"{int(index) + 1}.{name}"
            else:
                found[role] = self.parameters.names[role]
        return found
