"""The compiled kernels against their definitions, and their promise: a row's bits depend on that row alone."""

from __future__ import annotations

import importlib
import itertools
import math
from typing import Any

import numpy as np
import pytest

from minisbert.kernels import tuning
from minisbert.kernels.reference import ops as reference
from minisbert.kernels.reference.activations import ACTIVATIONS
from tests.conftest import largest
from tests.support.backends import compiled

EPS = 2.0**-23
ROWS, BLOCK = tuning.MR, tuning.MC
ROW_COUNTS = sorted({1, 2, 3, ROWS - 1, ROWS, ROWS + 1, 2 * ROWS, 2 * ROWS + 5, 100, BLOCK, BLOCK + 1})
SHAPES = [
    (384, 96),
    (75, 31),
    (33, 300),
    (1, 1),
    (tuning.NR, tuning.K_SUM),
    (tuning.NR + 1, tuning.K_SUM + 1),
    (tuning.NR + 1, tuning.KC + tuning.K_SUM + 1),
    (tuning.NARROW_NR, tuning.KC + 1),
    (tuning.NR + tuning.LANES, tuning.K_SUM // 2),  # four vectors in two narrow panels, or three and one
    (tuning.NR + 2 * tuning.LANES, tuning.KC + 1),
]


def random(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


@pytest.fixture(scope="module")
def vector() -> Any:
    """What vector code is made with: for the tests of functions that are no operation."""
    pytest.importorskip("numba", reason="Numba is not installed, which compiles single functions")
    return importlib.import_module("minisbert.kernels.source.vector")


def loop(emit: Any) -> Any:
    """Make a function of an array from what `source.vector` emits for a vector."""
    import numba

    from minisbert.kernels.source import vector

    in_place = vector._in_place(emit)

    @numba.njit
    def apply(y: Any) -> None:
        for i in range(0, len(y), tuning.LANES):
            in_place(y.ctypes.data + 4 * i)

    def padded(x: Any) -> Any:
        y = np.zeros(-(-len(x) // tuning.LANES) * tuning.LANES, np.float32)
        y[: len(x)] = x
        apply(y)
        return y[: len(x)]

    return padded


def every_kind_of_float() -> Any:
    """Return a million float32 from the whole range: every 4099th bit pattern."""
    return np.arange(0, 2**32, 4099, dtype=np.uint32).view(np.float32)


def ulps(found: Any, exact: Any) -> Any:
    return np.abs(found.astype(np.float64) - exact) / np.spacing(np.abs(exact).astype(np.float32)).astype(
        np.float64
    )


def test_exp2_over_the_whole_range(vector: Any) -> None:
    x = every_kind_of_float()
    x = x[(x >= -126) & (x <= 127)]
    assert ulps(loop(vector.exp2)(x), np.exp2(x.astype(np.float64))).max() <= 2
    assert np.isnan(loop(vector.exp2)(np.array([np.nan, -np.nan], np.float32))).all()


def test_sigmoid_over_the_whole_range(vector: Any) -> None:
    """What exp2 is not made for, its callers keep from it: the power stays between -126 and 127."""
    x = every_kind_of_float()
    x = x[np.isfinite(x)]
    found = loop(vector._sigmoid)(x)
    with np.errstate(over="ignore"):
        exact = 1 / (1 + np.exp(-x.astype(np.float64)))
    assert largest(found - exact) <= EPS
    assert (found[x < -88] <= 2e-38).all()
    assert np.isnan(loop(vector._sigmoid)(np.array([np.nan, -np.nan], np.float32))).all()


def test_softmax_gives_hopeless_scores_no_weight() -> None:
    q, k, v = np.ones((40, 4)), np.full((40, 4), -1e4), np.ones((40, 4))
    k[7], v[7] = 0, 2  # one key that is far above all others
    qkv = np.concatenate([q, k, v], axis=1).astype(np.float32)
    np.testing.assert_array_equal(
        compiled.attention(qkv, np.array([0, 40]), 1), np.full((40, 4), 2, np.float32)
    )


def exact_gelu(x: float) -> float:
    return x * math.erfc(-x / math.sqrt(2)) / 2


def test_gelu_over_the_whole_range(vector: Any) -> None:
    x = every_kind_of_float()
    x = x[np.isfinite(x)]
    found = loop(vector._gelu)(x).astype(np.float64)
    exact = np.array([exact_gelu(float(value)) for value in x])
    positive = x > 1e-37  # and so the result no subnormal number
    assert ulps(found[positive], exact[positive]).max() <= 4
    # Left of zero the result is a small difference of larger terms in the textbook form; here it is their tail.
    assert np.abs(found - exact)[~positive].max() <= EPS / 2
    near = (x < -1e-37) & (x > -0.5)
    assert ulps(found[near], exact[near]).max() <= 5
    outside = loop(vector._gelu)(np.array([np.inf, -np.inf, np.nan], np.float32))
    assert outside[0] == np.inf
    assert abs(outside[1]) <= 1e-9
    assert np.isnan(outside[2])


@pytest.mark.parametrize("name", ["gelu_new", "quick_gelu", "relu", "silu", "tanh"])
def test_other_activations(name: str, vector: Any) -> None:
    x = np.concatenate([np.linspace(-30, 30, 9999), [0, -0.0, 1e-30, -1e-30, 88, -88, 1e30, -1e30]]).astype(
        np.float32
    )
    function = {
        "gelu_new": vector._gelu_tanh,
        "quick_gelu": vector._quick_gelu,
        "relu": vector._relu,
        "silu": vector._silu,
        "tanh": vector._tanh,
    }[name]
    with np.errstate(over="ignore"):
        exact = ACTIVATIONS[name](x.astype(np.float64)[None].copy())[0]
    found = loop(function)(x)
    # exp stops at exp(-87), which times -1e30 is not quite 0.
    assert (np.abs(found - exact) <= 4 * EPS * np.abs(exact) + 2e-8).all()


def rounding(depth: int) -> float:
    """Return how far a sum of so many products may be off, in units of EPS times the largest sum.

    A part of it is rounded once a term, and then parts and bias are added up. Each time, that is up to half a unit in
    the last place of a sum that is at most as large as the largest: where both are so for all of n roundings, the
    error is spread by sqrt(n / 12). Sums grow to what they are, so theirs is at most half of that, of which the largest
    of some thousand errors are four: up to 1.4 times sqrt(n / 12) were seen on vectors of all lengths.
    """
    n = min(depth, tuning.K_SUM) + -(-depth // tuning.K_SUM) + 1
    return 2 * math.sqrt(n / 12)


@pytest.mark.parametrize("activation", [None, "gelu", "gelu_new", "quick_gelu", "relu", "silu", "tanh"])
@pytest.mark.parametrize(("width", "depth"), SHAPES)
def test_linear(width: int, depth: int, activation: str | None) -> None:
    weight, bias = random(width, depth) / np.float32(math.sqrt(depth)), random(width)
    exact = reference.pack(weight, bias, "float64")
    packed = compiled.pack(weight, bias, "float32")
    allowed = rounding(depth) + (activation is not None)
    for rows in ROW_COUNTS:
        x, residual = random(rows, depth, seed=1), random(rows, width, seed=2)
        expected = reference.linear(x.astype(np.float64), exact, activation)
        tolerance = allowed * EPS * max(1.0, largest(reference.linear(x.astype(np.float64), exact)))
        assert largest(compiled.linear(x, packed, activation) - expected) <= tolerance
        if activation is None:
            kept = residual.copy()
            assert (
                largest(compiled.linear(x, packed, residual=residual) - (expected + residual))
                <= 2 * tolerance
            )
            np.testing.assert_array_equal(residual, kept)


@pytest.mark.parametrize(("width", "depth"), [*SHAPES, (tuning.LANES * 7, tuning.LANES * 2)])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", ">f4"])
def test_panels_hold_the_weight_and_zeros(width: int, depth: int, dtype: str) -> None:
    weight = random(width, depth).astype(dtype)
    packed = compiled.pack(weight, random(width), "float32")
    wide, P = tuning.count_panels(width)
    for p in range(P):
        start, stop = (tuning.start_of_panel(i, wide) for i in (p, p + 1))
        panel = packed.panels[start * depth : stop * depth].reshape(depth, stop - start)
        rows = weight[start:stop].astype(np.float32)
        np.testing.assert_array_equal(panel[:, : len(rows)], rows.T)
        assert not panel[:, len(rows) :].any()


@pytest.mark.parametrize(("width", "depth"), SHAPES)
def test_a_row_of_linear_does_not_depend_on_the_others(width: int, depth: int) -> None:
    packed = compiled.pack(random(width, depth), random(width), "float32")
    # So many that the tallest tiles go several steps in a turn of their loop, which a few rows alone don't.
    x, residual = random(BLOCK, depth, seed=1), random(BLOCK, width, seed=2)
    together = compiled.linear(x, packed, "gelu"), compiled.linear(x, packed, residual=residual)
    for first in range(BLOCK):
        for count in (1, 2, tuning.MR, tuning.MR + 1):
            rows = slice(first, first + count)
            alone = (
                compiled.linear(x[rows], packed, "gelu"),
                compiled.linear(x[rows], packed, residual=residual[rows]),
            )
            for one, all_ in zip(alone, together, strict=True):
                np.testing.assert_array_equal(one, all_[rows])


@pytest.mark.parametrize("activation", ["gelu", "relu", "sigmoid"])  # the last is NumPy's
def test_a_residual_is_added_after_the_activation(activation: str) -> None:
    packed, x, residual = compiled.pack(random(40, 75), random(40), "float32"), random(9, 75), random(9, 40)
    found = compiled.linear(x, packed, activation, residual)
    np.testing.assert_array_equal(found, compiled.linear(x, packed, activation) + residual)


@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e15])
def test_linear_of_extreme_magnitudes(scale: float) -> None:
    weight, bias, x = (
        random(40, 300),
        random(40) * np.float32(scale),
        random(9, 300, seed=1) * np.float32(scale),
    )
    expected = reference.linear(x.astype("float64"), reference.pack(weight, bias, "float64"))
    found = compiled.linear(x, compiled.pack(weight, bias, "float32"))
    assert largest(found - expected) <= 8 * EPS * largest(expected)


def test_what_is_not_finite_stays_so() -> None:
    packed = compiled.pack(np.eye(3, dtype="float32"), np.zeros(3, "float32"), "float32")
    x = np.array([[np.nan, 1, 2], [1, np.inf, 2]], np.float32)
    found = compiled.linear(x, packed, "gelu")
    assert np.isnan(found[0]).all()
    assert np.isnan(found[1]).any() or np.isinf(found[1]).any()
    assert np.isnan(compiled.layer_norm(x, x[1], x[1], 1e-5)).all()


@pytest.mark.parametrize(("heads", "width"), [(12, 32), (3, 25), (2, 64), (1, 1), (2, tuning.NARROW_NR + 3)])
@pytest.mark.parametrize(
    "lengths",
    [
        [1],
        [5, 0, 1],
        [tuning.NARROW_NR, tuning.NARROW_NR + 1, 3],
        [tuning.QUERY_ROWS - 1, tuning.QUERY_ROWS + 1],
        [vectors * tuning.LANES - 3 for vectors in range(3, 9)],  # all mixtures of wide and narrow panels
        [300, 2, 512],
    ],
)
def test_attention(heads: int, width: int, lengths: list[int]) -> None:
    offsets = np.cumsum([0, *lengths])
    qkv = random(int(offsets[-1]), 3 * heads * width)
    biases = (None, random(heads, 2 * max(lengths) - 1, seed=1), random(heads, 2 * max(lengths) + 7, seed=2))
    for bias in biases:
        wide = None if bias is None else bias.astype(np.float64)
        expected = reference.attention(qkv.astype(np.float64), offsets, heads, wide)
        plain = largest(reference.attention(qkv, offsets, heads, bias) - expected)
        assert largest(compiled.attention(qkv, offsets, heads, bias) - expected) <= 2 * plain + 4 * EPS


def test_a_sentence_s_attention_does_not_depend_on_the_others() -> None:
    lengths = [3, 70, 1, 0, 33, 200, 12]
    offsets = np.cumsum([0, *lengths])
    qkv = random(int(offsets[-1]), 3 * 4 * 20)
    for bias in (None, random(4, 401)):
        together = compiled.attention(qkv, offsets, 4, bias)
        for start, stop in itertools.pairwise(offsets):
            alone = compiled.attention(qkv[start:stop], np.array([0, stop - start]), 4, bias)
            np.testing.assert_array_equal(alone, together[start:stop])


def test_attention_survives_large_scores() -> None:
    qkv = random(40, 3 * 8) * np.float32(40)
    expected = reference.attention(qkv.astype(np.float64), np.array([0, 40]), 1)
    assert (
        largest(compiled.attention(qkv, np.array([0, 40]), 1) - expected) <= 1e-2
    )  # scores of thousands: 1e-4 each
    assert np.isfinite(compiled.attention(qkv * np.float32(100), np.array([0, 40]), 1)).all()
    qkv[:, : qkv.shape[1] // 3] *= np.float32(1e10)  # so each query looks at one key alone
    expected = reference.attention(qkv.astype(np.float64), np.array([0, 40]), 1)
    assert largest(compiled.attention(qkv, np.array([0, 40]), 1) - expected) <= EPS * largest(qkv[:, -8:])


@pytest.mark.parametrize("width", [1, 7, 384, 769])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_layer_norm(width: int, scale: float) -> None:
    x = random(5, width) * np.float32(scale) + np.float32(3 * scale)
    weight, bias = random(width), random(width, seed=1)
    expected = reference.layer_norm(*(a.astype(np.float64) for a in (x, weight, bias)), 1e-5)
    plain = largest(reference.layer_norm(x, weight, bias, 1e-5) - expected)
    found = compiled.layer_norm(x, weight, bias, 1e-5)
    assert largest(found - expected) <= 2 * plain + 8 * EPS
    for i in range(5):
        np.testing.assert_array_equal(compiled.layer_norm(x[i : i + 1], weight, bias, 1e-5)[0], found[i])


@pytest.mark.parametrize("skip", [0, 1, 3])
@pytest.mark.parametrize("mode", reference.POOLINGS)
def test_pool(mode: str, skip: int) -> None:
    x, offsets = random(50, 33), np.array([0, 4, 5, 20, 50])
    expected = reference.pool(x.astype(np.float64), offsets, mode, skip)
    found = compiled.pool(x, offsets, mode, skip)
    assert found.dtype == np.float32
    finite = np.isfinite(expected)  # the maximum of no token is not
    assert largest(found[finite] - expected[finite]) <= 8 * EPS
    np.testing.assert_array_equal(found[~finite], expected[~finite])
    for i, (start, stop) in enumerate(itertools.pairwise(offsets)):
        alone = compiled.pool(x[start:stop], np.array([0, stop - start]), mode, skip)
        np.testing.assert_array_equal(alone[0], found[i])
    assert compiled.pool(x[:0], np.array([0]), mode, skip).shape == (0, 33)


def test_normalize() -> None:
    vectors = np.concatenate([random(5, 33), np.zeros((1, 33), np.float32)])
    assert largest(compiled.normalize(vectors) - reference.normalize(vectors.astype(np.float64))) <= EPS
    for i in range(len(vectors)):
        np.testing.assert_array_equal(
            compiled.normalize(vectors[i : i + 1])[0], compiled.normalize(vectors)[i]
        )


def test_mix_and_prelu() -> None:
    layers, weights = random(3, 20, 33), np.array([1, 0.5, 2], np.float32)
    expected = reference.mix(layers.astype(np.float64), weights)
    found = compiled.mix(list(layers), weights)
    assert largest(found - expected) <= 4 * EPS
    np.testing.assert_array_equal(compiled.mix(list(layers[:, 7:8]), weights)[0], found[7])
    x, slope = layers[0], np.array([0.25], np.float32)
    np.testing.assert_array_equal(compiled.prelu(x, slope), np.where(x > 0, x, x / 4))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_after_a_multiply(activation: str) -> None:
    weight, bias, x = random(31, 75) / 3, random(31), random(40, 75, seed=1)
    dense = compiled.pack(weight, bias, "float32")
    wide = reference.pack(weight, bias, "float64")
    found = compiled.linear(x, dense, activation)
    clear = reference.linear(x.astype(np.float64), wide)
    jump = np.abs(np.abs(clear) - 0.5) < 1e-4  # where Hardshrink jumps, no rounding may be expected to agree
    expected = reference.linear(x.astype(np.float64), wide, activation)
    assert largest((found - expected)[~jump]) <= 64 * EPS
    for i in (0, 7, 39):
        np.testing.assert_array_equal(compiled.linear(x[i : i + 1], dense, activation)[0], found[i])


@pytest.mark.parametrize("padding", [None, 0, 1])
def test_positions_are_the_reference_s(padding: int | None) -> None:
    ids, offsets = np.random.default_rng(0).integers(0, 3, 50), np.array([0, 4, 4, 20, 50])
    found = compiled.positions(ids, offsets, padding)
    np.testing.assert_array_equal(found, reference.positions(ids, offsets, padding))
    assert compiled.positions(ids[:0], np.array([0, 0]), padding).shape == (0,)


def test_embed_is_the_reference_s() -> None:
    word, position, types = random(9, 5), random(8, 5, seed=1), random(2, 5, seed=2)
    ids, places, kinds = np.array([8, 0, 3]), np.array([0, 1, 7]), np.array([0, 1, 0])
    for table in (types, None):
        found = compiled.embed(ids, places, kinds, word, position, table)
        np.testing.assert_array_equal(found, reference.embed(ids, places, kinds, word, position, table))


def test_arrays_of_any_layout_are_read_as_what_they_are() -> None:
    word, position, types = random(9, 5), random(8, 5, seed=1), random(2, 5, seed=2)
    ids, places, kinds = np.array([8, 0, 3]), np.array([0, 1, 7]), np.array([0, 1, 0], np.int32)
    expected = compiled.embed(ids, places, kinds, word, position, types)
    tables = (np.asfortranarray(word), np.asfortranarray(position), types.astype(np.float64))
    numbers = (np.repeat(array, 2)[::2] for array in (ids, places, kinds))
    np.testing.assert_array_equal(compiled.embed(*numbers, *tables), expected)
    ends = np.array([0, 2, 9])
    strided = np.repeat(ends, 2)[::2]
    np.testing.assert_array_equal(compiled.pool(word, strided, "mean"), compiled.pool(word, ends, "mean"))
    np.testing.assert_array_equal(
        compiled.attention(random(9, 6), strided, 1), compiled.attention(random(9, 6), ends, 1)
    )
