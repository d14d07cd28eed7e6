"""Each operation of the reference kernels against its definition, written out in float64 and Python."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from minisbert.kernels.reference import activations
from minisbert.kernels.reference import ops as k
from tests.conftest import largest

DTYPES = ["float32", "float64"]
EPS = {"float32": 2.0**-23, "float64": 2.0**-52}
EXTREMES = [
    0.0,
    -0.0,
    1e-38,
    -1e-38,
    1e-30,
    0.4,
    -0.4,
    3.0,
    -3.0,
    9.0,
    -9.0,
    40.0,
    -40.0,
    1e4,
    -1e4,
    3e38,
    -3e38,
]


def exact_gelu(x: float) -> float:
    return x * math.erfc(-x / math.sqrt(2)) / 2


@pytest.mark.parametrize("dtype", DTYPES)
def test_gelu_is_exact_to_the_rounding_of_its_dtype(dtype: str) -> None:
    x = np.concatenate([np.linspace(-14, 14, 20_001), np.geomspace(1e-30, 14, 2_000), EXTREMES]).astype(dtype)
    exact = np.array([exact_gelu(float(value)) for value in x])
    error = np.abs(activations.gelu(x).astype(np.float64) - exact)
    positive = x > 0
    assert (error[positive] <= 4 * EPS[dtype] * exact[positive]).all()
    # For x < 0 the result is far smaller than x: the error is bounded by 4 roundings of the terms that make
    # it, and falls with the result, where the form with 1 + erf(x / sqrt(2)) stays at half a rounding of x.
    near = (x <= 0) & (x > -2)
    assert (error[near] <= 8 * EPS[dtype] * np.abs(exact[near])).all()
    far = x <= -2
    assert (error[far] <= (8 + x[far].astype(float) ** 2) * EPS[dtype] * np.abs(exact[far]) + 1e-40).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_gelu_of_what_is_not_finite(dtype: str) -> None:
    found = activations.gelu(np.array([np.nan, np.inf, -np.inf], dtype))
    np.testing.assert_array_equal(found, np.array([np.nan, np.inf, 0], dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "exact"),
    [
        ("gelu", exact_gelu),
        ("gelu_new", lambda x: x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))),
        (
            "gelu_pytorch_tanh",
            lambda x: x / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        ),
        ("quick_gelu", lambda x: x / (1 + math.exp(-1.702 * x))),
        ("relu", lambda x: max(x, 0.0)),
        ("silu", lambda x: x / (1 + math.exp(-x))),
        ("swish", lambda x: x / (1 + math.exp(-x))),
        ("tanh", math.tanh),
    ],
)
def test_activations(name: str, exact: object, dtype: str) -> None:
    x = np.linspace(-20, 20, 999).reshape(27, 37).astype(dtype)
    expected = np.array([exact(float(value)) for value in x.ravel()]).reshape(x.shape)  # type: ignore[operator]
    assert largest(activations.ACTIVATIONS[name](x.copy()) - expected) <= 16 * EPS[dtype]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "exact"),
    [
        ("celu", lambda x: x if x > 0 else math.expm1(x)),
        ("elu", lambda x: x if x > 0 else math.expm1(x)),
        ("hardshrink", lambda x: x if abs(x) > 0.5 else 0),
        ("hardsigmoid", lambda x: min(max(x / 6 + 0.5, 0), 1)),
        ("hardswish", lambda x: x * min(max(x / 6 + 0.5, 0), 1)),
        ("hardtanh", lambda x: min(max(x, -1), 1)),
        ("leakyrelu", lambda x: x if x > 0 else 0.01 * x),
        ("logsigmoid", lambda x: math.log(sigmoid(x))),
        ("mish", lambda x: x * math.tanh(math.log1p(math.exp(x)))),
        ("relu6", lambda x: min(max(x, 0), 6)),
        ("rrelu", lambda x: x if x > 0 else 11 / 48 * x),
        ("selu", lambda x: 1.0507009873554805 * (x if x > 0 else 1.6732632423543772 * math.expm1(x))),
        ("sigmoid", sigmoid),
        ("softplus", lambda x: x if x > 20 else math.log1p(math.exp(x))),
        ("softshrink", lambda x: math.copysign(max(abs(x) - 0.5, 0), x)),
        ("softsign", lambda x: x / (1 + abs(x))),
        ("tanhshrink", lambda x: x - math.tanh(x)),
    ],
)
def test_activations_of_dense_modules(name: str, exact: object, dtype: str) -> None:
    x = np.linspace(-30, 30, 999).reshape(27, 37).astype(dtype)
    expected = np.array([exact(float(value)) for value in x.ravel()]).reshape(x.shape)  # type: ignore[operator]
    found = activations.ACTIVATIONS[name](x.copy())
    assert largest(found - expected) <= 32 * EPS[dtype]
    assert found.dtype == dtype
    extremes = activations.ACTIVATIONS[name](np.array([EXTREMES], dtype))  # warnings are errors
    assert np.isfinite(extremes).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_activations_along_a_row(dtype: str) -> None:
    x = np.array([[1, 2, 4], [-1e4, 1e4, 0], [0, 0, 0]], dtype)
    shares = np.array([[math.exp(value - max(row)) for value in row] for row in x.tolist()])
    shares /= shares.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(activations.ACTIVATIONS["softmax"](x.copy()), shares, rtol=8 * EPS[dtype])
    np.testing.assert_allclose(activations.ACTIVATIONS["softmin"](-x), shares, rtol=8 * EPS[dtype])
    found = activations.ACTIVATIONS["logsoftmax"](x.copy())
    np.testing.assert_allclose(found[[0, 2]], np.log(shares[[0, 2]]), rtol=8 * EPS[dtype])
    np.testing.assert_array_equal(found[1], [-2e4, 0, -1e4])
    assert k.prelu(x, np.array([0.5], dtype)).tolist()[1] == [-5e3, 1e4, 0]


def test_activations_in_pieces_equal_those_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).standard_normal((7, 5))
    whole = activations.gelu(x)
    monkeypatch.setattr(activations, "_ELEMENTS_IN_CACHE", 12)
    np.testing.assert_array_equal(activations.ACTIVATIONS["gelu"](x.copy()), whole)


@pytest.mark.parametrize("dtype", DTYPES)
def test_linear(dtype: str) -> None:
    rng = np.random.default_rng(1)
    x, weight, bias, residual = (rng.standard_normal(s).astype(dtype) for s in ((5, 7), (3, 7), (3,), (5, 3)))
    expected = np.array([[math.fsum([*(a * b for a, b in zip(r, w, strict=True)), c]) for w, c in
                          zip(weight.tolist(), bias.tolist(), strict=True)] for r in x.tolist()])  # fmt: skip
    dense = k.pack(weight, bias, dtype)
    tolerance = 32 * EPS[dtype]
    kept = residual.copy()
    assert largest(k.linear(x, dense) - expected) <= tolerance
    assert largest(k.linear(x, dense, residual=residual) - (expected + residual)) <= tolerance
    assert largest(k.linear(x, dense, activation="relu") - np.maximum(expected, 0)) <= tolerance
    np.testing.assert_array_equal(residual, kept)
    assert k.linear(x, dense).dtype == dtype


@pytest.mark.parametrize("depth", [384, 3072, 3 * k.K_SUM + 1])
def test_the_error_of_linear_hardly_grows_with_its_depth(depth: int) -> None:
    """The sums are about sqrt(depth), of terms of about 1: BLAS by itself is off by 3 EPS of that."""
    rng = np.random.default_rng(depth)
    x, weight = (rng.standard_normal((rows, depth)).astype(np.float32) for rows in (40, 60))
    exact = x.astype(np.float64) @ weight.astype(np.float64).T
    error = k.linear(x, k.pack(weight, np.zeros(60), "float32")) - exact
    assert np.sqrt(np.square(error).mean()) <= 2.2 * EPS["float32"] * np.sqrt(depth)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_layer_norm(dtype: str, scale: float) -> None:
    rng = np.random.default_rng(2)
    x = (rng.standard_normal((4, 33)) * scale + 3 * scale).astype(dtype)
    weight, bias = (rng.standard_normal(33).astype(dtype) for _ in range(2))
    wide = x.astype(np.float64)
    deviation = wide - wide.mean(axis=1, keepdims=True)
    expected = deviation / np.sqrt((deviation**2).mean(axis=1, keepdims=True) + 1e-12) * weight + bias
    kept = x.copy()
    assert largest(k.layer_norm(x, weight, bias, 1e-12) - expected) <= 64 * EPS[dtype]
    np.testing.assert_array_equal(x, kept)


def test_layer_norm_of_a_constant_row_is_the_bias() -> None:
    bias = np.arange(5, dtype=np.float32)
    np.testing.assert_array_equal(
        k.layer_norm(np.full((2, 5), 7, np.float32), bias, bias, 1e-5), [bias, bias]
    )


def test_softmax_survives_large_scores() -> None:
    found = activations.softmax(np.array([[1e4, 1e4 - 1, -1e4], [-1e30, 0, 1e30]], np.float32))
    expected = [[1 / (1 + math.exp(-1)), 1 / (1 + math.e), 0], [0, 0, 1]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_stays_within_its_sentence(dtype: str) -> None:
    rng = np.random.default_rng(3)
    offsets, heads, K = np.array([0, 1, 1, 4, 9]), 2, 3
    D = heads * K
    qkv = rng.standard_normal((9, 3 * D)).astype(dtype)
    bias = rng.standard_normal((heads, 13)).astype(dtype)
    expected, biased = np.zeros((9, D)), np.zeros((9, D))
    q, keys, v = (part.astype(np.float64) for part in np.split(qkv, 3, axis=1))
    for start, stop in pairwise(offsets):
        for h in range(0, D, K):
            for t in range(start, stop):
                scores = q[t, h : h + K] @ keys[start:stop, h : h + K].T / math.sqrt(K)
                for result, added in ((expected, 0), (biased, bias[h // K, 6 - t + start : 6 - t + stop])):
                    weights = np.exp(scores + added)
                    result[t, h : h + K] = weights @ v[start:stop, h : h + K] / weights.sum()
    assert largest(k.attention(qkv, offsets, heads, bias) - biased) <= 32 * EPS[dtype]
    assert largest(k.attention(qkv, offsets, heads) - expected) <= 32 * EPS[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("mode", "skip", "expected"),
    [
        ("mean", 0, [[0, 1], [0, 0], [6, 7]]),
        ("mean", 1, [[0, 0], [0, 0], [7, 8]]),
        ("mean_sqrt_len_tokens", 1, [[0, 0], [0, 0], [14, 16]]),
        ("max", 0, [[0, 1], [-np.inf] * 2, [10, 11]]),
        ("max", 5, [[-np.inf] * 2] * 3),
        ("weightedmean", 0, [[0, 1], [0, 0], [(2 + 8 + 18 + 32 + 50) / 15, (3 + 10 + 21 + 36 + 55) / 15]]),
        ("weightedmean", 3, [[0, 0], [0, 0], [(32 + 50) / 9, (36 + 55) / 9]]),
        ("cls", 0, [[0, 1], [0, 0], [2, 3]]),
        ("cls", 2, [[0, 1], [0, 0], [6, 7]]),  # where nothing is left, the first token as if all were
        ("lasttoken", 0, [[0, 1], [0, 0], [10, 11]]),
        ("lasttoken", 2, [[0, 0], [0, 0], [10, 11]]),
    ],
)
def test_pool(mode: str, skip: int, expected: object, dtype: str) -> None:
    x = np.arange(12, dtype=dtype).reshape(6, 2)
    found = k.pool(x, np.array([0, 1, 1, 6]), mode, skip)
    np.testing.assert_allclose(found, expected, rtol=4 * EPS[dtype])
    assert found.dtype == dtype
    assert k.pool(x[:0], np.array([0]), mode, skip).shape == (0, 2)


@pytest.mark.parametrize("dtype", DTYPES)
def test_normalize(dtype: str) -> None:
    unit = k.normalize(np.array([[3, 4], [0, 0], [1e-20, 0]], dtype))
    np.testing.assert_allclose(unit, [[0.6, 0.8], [0, 0], [1e-8, 0]], rtol=4 * EPS[dtype])
    assert unit.dtype == dtype


@pytest.mark.parametrize("dtype", DTYPES)
def test_mix(dtype: str) -> None:
    layers = np.arange(12, dtype=dtype).reshape(3, 2, 2)
    found = k.mix(list(layers), np.array([1, 2, 5], dtype))
    np.testing.assert_allclose(found, [[6, 7], [8, 9]], rtol=4 * EPS[dtype])
    assert found.dtype == dtype
    np.testing.assert_array_equal(layers, np.arange(12).reshape(3, 2, 2))


def test_embed_widens_the_rows_of_a_narrow_table() -> None:
    rng = np.random.default_rng(4)
    word = rng.standard_normal((5, 3)).astype(np.float16)
    position, token_type = rng.standard_normal((4, 3)), rng.standard_normal((2, 3))
    found = k.embed(np.array([4, 0]), np.array([1, 3]), np.array([0, 1]), word, position, token_type)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, word[[4, 0]].astype(float) + position[[1, 3]] + token_type, rtol=1e-15)
