"""Learning rates, AdamW and what is measured on held-out rows, by numbers that were worked out otherwise."""

from __future__ import annotations

import math

import numpy as np
import pytest

from minisbert.training.evaluation import mrr_at_10, spearman
from minisbert.training.optimiser import AdamW, learning_rate


@pytest.mark.parametrize(
    ("scheduler", "expected"),
    [
        ("constantlr", [1, 1, 1, 1, 1, 1]),
        ("warmupconstant", [0, 0.5, 1, 1, 1, 1]),
        ("warmuplinear", [0, 0.5, 1, 0.75, 0.5, 0.25]),
        ("warmupcosine", [0, 0.5, 1, (2 + math.sqrt(2)) / 4, 0.5, (2 - math.sqrt(2)) / 4]),
    ],
)
def test_learning_rates(scheduler: str, expected: list[float]) -> None:
    found = [learning_rate(2.0, scheduler, step, 2, 6) for step in range(6)]
    np.testing.assert_allclose(found, 2 * np.array(expected), rtol=1e-15)


def test_a_warm_up_that_is_longer_than_the_run() -> None:
    assert [learning_rate(1.0, "warmuplinear", step, 10, 3) for step in range(3)] == [0, 0.1, 0.2]
    assert learning_rate(1.0, "warmuplinear", 0, 0, 1) == 1


def test_adamw_by_its_equations() -> None:
    random = np.random.default_rng(0)
    weights = random.standard_normal(100_000)
    expected, m, v = weights.copy(), 0.0, 0.0
    optimiser = AdamW(weights, 70_000, 0.1)
    decay = np.where(np.arange(100_000) < 70_000, 0.1, 0)
    for t in range(1, 4):
        g = random.standard_normal(100_000)
        m, v = 0.9 * m + 0.05 * g, 0.999 * v + 0.001 * (g / 2) ** 2
        step = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
        expected -= 0.01 * (step + decay * expected)
        for piece in optimiser.pieces():
            optimiser.update(piece, g, 0.5, 0.01, t)
    np.testing.assert_allclose(weights, expected, atol=1e-13)


def test_pieces_cover_all_weights_once() -> None:
    for size, decayed in ((10, 0), (10, 10), (100_000, 70_000)):
        places = np.concatenate(
            [np.arange(size)[piece] for piece in AdamW(np.zeros(size), decayed, 0).pieces()]
        )
        assert places.tolist() == list(range(size))


def test_mean_reciprocal_rank() -> None:
    anchors = np.eye(3)
    positives = np.array([[1, 0, 0], [0, 0.5, 0.6], [0, 0.9, 0.5]])
    assert mrr_at_10([anchors, positives], [], "dot") == pytest.approx((1 + 1 / 2 + 1 / 2) / 3)
    assert mrr_at_10([np.ones((11, 2)), np.ones((11, 2))], [], "cosine") == 0  # all alike: nothing was found


def test_rank_correlation() -> None:
    u = np.ones((5, 1))
    for v, expected in (([1, 2, 3, 4, 5], 1), ([5, 4, 3, 2, 1], -1), ([1, 2, 2, 4, 5], 0.9746794344808963)):
        found = spearman([u, np.array(v, float)[:, np.newaxis]], [1, 2, 3, 4, 5], "dot")
        assert found == pytest.approx(expected)
    assert spearman([u, u], [1, 2, 3, 4, 5], "dot") == 0
