"""Every gradient against central differences in float64, where a step of 1e-6 leaves an error of about 1e-9."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minisbert.kernels.reference import ops
from minisbert.kernels.reference.activations import ACTIVATIONS
from minisbert.training import activations, forward, gradients, losses, steps
from minisbert.training.forward import Rates, Tape
from minisbert.weights import LayerNorm
from tests.conftest import DATA
from tests.support import pipelines
from tests.support.training import RANKING, Trained, scored_rows, some_rows

STEP, TOLERANCE = 1e-6, 1e-7
OFFSETS = np.array([0, 3, 6, 7, 11, 11])  # two sentences of one length, one of one token, one of none
N, D, H = 11, 12, 3
NO_DROPOUT = Rates(0, 0, ())
random = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def seeded() -> None:
    global random
    random = np.random.default_rng(0)


def numbers(*shape: int) -> Any:
    return random.standard_normal(shape)


def check(function: Callable[[], Any], dy: Any, found: Sequence[tuple[Any, Any]]) -> None:
    """Compare gradients of ``sum(dy * function())`` by arrays, which are changed in place, with differences."""
    for array, gradient in found:
        check_along(function, dy, [(array, gradient, random.standard_normal(array.shape))])


def check_along(function: Callable[[], Any], dy: Any, found: Sequence[tuple[Any, Any, Any]]) -> None:
    """Compare along a direction in which arrays are changed together."""
    values = []
    for sign in (1, -2):  # forth, and back beyond the start
        for array, _, direction in found:
            array += sign * STEP * direction
        values.append(np.sum(dy * function()))
    for array, _, direction in found:
        array += STEP * direction
    slope = sum((gradient * direction).sum() for _, gradient, direction in found)
    assert slope == pytest.approx((values[0] - values[1]) / (2 * STEP), rel=TOLERANCE, abs=TOLERANCE)


def test_linear() -> None:
    x, w, g = (
        numbers(N, D),
        ops.Dense(numbers(5, D), numbers(5), ""),
        ops.Dense(np.zeros((5, D)), np.zeros(5), ""),
    )
    dy = numbers(N, 5)
    dx = gradients.linear(dy, x, w, g)
    check(lambda: forward.linear(x, w), dy, [(x, dx), (w.weight, g.weight), (w.bias, g.bias)])


def test_layer_norm() -> None:
    x, w, g = numbers(N, D), LayerNorm(numbers(D), numbers(D)), LayerNorm(np.zeros(D), np.zeros(D))
    dy, tape = numbers(N, D), Tape(NO_DROPOUT, [0])
    y = forward.layer_norm(x.copy(), w, 0.1, tape)
    np.testing.assert_allclose(y, ops.layer_norm(x, *w, 0.1), atol=1e-14)
    dx = gradients.layer_norm(dy, tape.pop(), w, g)
    check(lambda: ops.layer_norm(x, *w, 0.1), dy, [(x, dx), (w.weight, g.weight), (w.bias, g.bias)])


@pytest.mark.parametrize("rate", [0, 0.3])
@pytest.mark.parametrize("has_bias", [False, True])
def test_attention(has_bias: bool, rate: float) -> None:
    qkv, dy = numbers(N, 3 * D), numbers(N, D)
    bias, g_bias = (numbers(H, 15), np.zeros((H, 15))) if has_bias else (None, None)

    def function(tape: Tape) -> Any:
        return forward.attention(qkv, OFFSETS, H, bias, tape)

    tape = Tape(Rates(0, rate, ()), [1])
    y = function(tape)
    if not rate:
        np.testing.assert_allclose(y, ops.attention(qkv, OFFSETS, H, bias), atol=1e-14)
    found = [(qkv, gradients.attention(dy, tape.pop(), H, g_bias))]
    check(lambda: function(Tape(tape.rates, [1])), dy, found + ([(bias, g_bias)] if has_bias else []))


@pytest.mark.parametrize("mode", ops.POOLINGS)
def test_pool(mode: str) -> None:
    x, dy = numbers(N, D), numbers(len(OFFSETS) - 1, D)
    dx = gradients.pool(dy, x, OFFSETS, mode)
    dy[-1] = 0  # the maximum of no token is no number
    check(lambda: np.nan_to_num(ops.pool(x, OFFSETS, mode), neginf=0), dy, [(x, dx)])


def test_normalize() -> None:
    x, dy = numbers(N, D), numbers(N, D)
    check(lambda: ops.normalize(x), dy, [(x, gradients.normalize(dy, x))])
    assert np.array_equal(gradients.normalize(dy, np.zeros((N, D))), dy / 1e-12)


def test_mix() -> None:
    layers, w, g, dy = [numbers(N, D) for _ in range(3)], numbers(3) + 4, np.zeros(3), numbers(N, D)
    parts = gradients.mix(dy, layers, w, g)
    check(lambda: ops.mix(layers, w), dy, [(w, g), *zip(layers, parts, strict=True)])


def test_prelu() -> None:
    x, slope, g, dy = numbers(N, D), numbers(1), np.zeros(1), numbers(N, D)
    dx = gradients.prelu(dy, x, slope, g)
    check(lambda: ops.prelu(x, slope), dy, [(x, dx), (slope, g)])


def test_sum_rows() -> None:
    table, ids, dy = numbers(9, D), np.array([3, 1, 3, 3, 0, 8, 1]), numbers(7, D)
    g = np.zeros_like(table)
    rows, sums = gradients.sum_rows(dy, ids)
    g[rows] = sums
    check(lambda: table[ids], dy, [(table, g)])
    assert gradients.sum_rows(dy, ids, padding=1)[0].tolist() == [0, 3, 8]


@pytest.mark.parametrize("name", sorted(ACTIVATIONS.keys() - {"rrelu"}))
def test_activation(name: str) -> None:
    x, dy = 2 * numbers(N, 40), numbers(N, 40)
    y, dx = activations.activation(name, dy, x)
    np.testing.assert_allclose(y, ACTIVATIONS[name](x.copy()), atol=1e-14)
    check(lambda: ACTIVATIONS[name](x.copy()), dy, [(x, dx)])


def test_gelu_of_large_numbers() -> None:
    x = np.array([[-1e30, -50, -38, 0, 38, 50, 1e30]])
    for dtype in (np.float32, np.float64):
        _, slope = activations.activation("gelu", np.ones_like(x, dtype), x.astype(dtype))
        np.testing.assert_array_equal(slope, [[0, 0, 0, 0.5, 1, 1, 1]])


@pytest.mark.parametrize("similarity", losses.SIMILARITIES)
def test_multiple_negatives_ranking(similarity: str) -> None:
    vectors = numbers(15, D)

    def function() -> Any:
        return losses.multiple_negatives_ranking(vectors, 5, None, 3.0, similarity)

    value, found = function()
    logits = 3 * vectors[:5] @ vectors[5:].T
    if similarity == "cos_sim":
        norms = np.linalg.norm(vectors, axis=1)
        logits /= norms[:5, None] * norms[5:]
    expected = np.mean([np.log(np.exp(row).sum()) - row[i] for i, row in enumerate(logits)])
    assert value == pytest.approx(expected, rel=1e-12)
    check(lambda: function()[0], 1, [(vectors, found)])


def test_cosine_similarity() -> None:
    vectors, scores = numbers(10, D), numbers(5)
    _, found = losses.cosine_similarity(vectors, 5, scores, 0.0, "")
    check(lambda: losses.cosine_similarity(vectors, 5, scores, 0.0, "")[0], 1, [(vectors, found)])


# --- whole checkpoints ----------------------------------------------------------------------------------------


def check_checkpoint(folder: Path, loss: str, rate: float) -> None:
    """Compare along directions in which every seventh tensor is changed; rows of padding are never trained."""
    trained = Trained(folder, rate)
    rows = scored_rows(4) if loss == losses.SCORED else some_rows(4, 3)
    _, found = trained.gradient(rows, loss)
    triples = []
    for role, gradient in found.items():
        direction = random.standard_normal(gradient.shape)
        if role in ("embeddings.word", "embeddings.position"):
            direction[~gradient.any(axis=1)] = 0
        triples.append((trained.parameters.view(trained.model.weights, role), gradient.copy(), direction))
    for first in range(7):
        check_along(lambda: trained.gradient(rows, loss)[0], 1, triples[first::7])


@pytest.mark.parametrize("loss", [RANKING, losses.SCORED])
def test_all_tensors_of_a_checkpoint(tiny: Path, loss: str) -> None:
    check_checkpoint(tiny, loss, 0.0 if loss == RANKING else 0.2)


STACKS = [
    "pooling again", "dense after dense", "dense residual, other width", "dense PReLU", "dense of tokens, mish",
    "normalize before pooling", "layers over dense", "layers from the embeddings", "dropout", "dense without bias",
]  # fmt: skip


@pytest.mark.parametrize("name", STACKS)
def test_all_tensors_of_a_pipeline(tmp_path: Path, name: str) -> None:
    folder = pipelines.build(tmp_path / "model", DATA / "tiny-bert", pipelines.CASES[name].modules)
    check_checkpoint(folder, RANKING, 0.2)


# --- a batch in parts -----------------------------------------------------------------------------------------


def test_what_is_kept_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "TOKENS", 10)
    found = []
    for room in (200_000, 1_500_000, 1 << 30):
        monkeypatch.setattr(steps, "ROOM", room)
        value, gradient = Trained(DATA / "tiny-bert", 0.2).gradient(some_rows(12, 2), RANKING)
        found.append([value, *(array.tobytes() for array in gradient.values())])
    assert found[0] == found[1] == found[2]


def test_micro_batches_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for tokens in (20, 1000):
        monkeypatch.setattr(steps, "TOKENS", tokens)
        value, gradient = Trained(DATA / "tiny-bert").gradient(some_rows(12, 2), RANKING)
        found.append((value, gradient))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-13)
    for role, gradient in found[0][1].items():
        np.testing.assert_allclose(gradient, found[1][1][role], atol=1e-13, err_msg=role)


def test_dropout_keeps_as_many_as_it_should() -> None:
    mask = Tape(NO_DROPOUT, [1, 2]).mask((1000, 1000), 0.1)
    assert mask is not None
    assert mask.kept.mean() == pytest.approx(0.9, abs=0.001)
    assert mask.kept.mean() * mask.scale == pytest.approx(1, abs=0.002)
