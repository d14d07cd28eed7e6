"""The definition of each operation, in plain NumPy: written to be read, for any float dtype.

Run in float64 these functions are the oracle that every faster kernel is tested against. A micro-batch is
ragged: the tokens of all its sentences laid end to end as the rows of one matrix, sentence ``s`` being the
rows ``offsets[s]:offsets[s + 1]``. Nothing is padded, so there is no mask. Letters for dimensions are
those of `minisbert.model`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from minisbert.arrays import Floats, Ints
from minisbert.kernels.reference import narrow
from minisbert.kernels.reference.activations import ACTIVATIONS, softmax
from minisbert.kernels.reference.blas import one_blas_thread

NAME = "reference"

# BLAS adds up hundreds of products in the order that it likes: in float32 that was more than half of all error. With
# accumulation blocks of so many products it is torch's error, or less, in 10 % more time.
K_SUM = 96


def arithmetic(dtype: str, K: int) -> str:
    """Return what rows of K numbers are multiplied as."""
    return {"int8": "integers, by float64", "float64": "float64"}.get(dtype, "float32")


def threads(count: int) -> AbstractContextManager[None]:
    """Let each operation of the calling thread use so many threads: one is enforced, more are the BLAS's affair."""
    return one_blas_thread() if count == 1 else nullcontext()


def record(function: Callable[..., Any]) -> Callable[[Ints, Ints, Ints], Floats]:
    """Return ``(ids, types, offsets) -> function(ids, types, offsets, kernels)``; what overflows is infinite.

    NumPy has nothing to record: each call is a run of the function.
    """

    def replay(ids: Ints, types: Ints, offsets: Ints) -> Floats:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            result: Floats = function(ids, types, offsets, sys.modules[__name__])
        return result

    return replay


class Dense(NamedTuple):
    """The weights of ``y = x @ weight.T + bias``: weight (O, I) as checkpoints store it, and bias (O,).

    In fewer bits, `narrow` says what the weight is; that of int8 has a scale for each output, (O,).
    """

    weight: Any
    bias: Floats
    dtype: str
    scales: Floats | None = None


def pack(weight: Floats, bias: Floats, dtype: str) -> Dense:
    """Hold a weight (O, I) in `dtype`, and its bias (O,): no copy where they are float32 or float64 already."""
    if dtype in ("float32", "float64"):
        return Dense(np.asarray(weight, dtype), np.asarray(bias, dtype), dtype)
    bias = np.asarray(bias, np.float32)
    if dtype == "int8":
        integers, scales = narrow.integers_of_weight(weight)
        return Dense(integers, bias, dtype, scales)
    return Dense({"float16": narrow.to_float16, "bfloat16": narrow.to_bfloat16}[dtype](weight), bias, dtype)


def linear(x: Floats, dense: Dense, activation: str | None = None, residual: Floats | None = None) -> Floats:
    """``activation(x @ weight.T + bias) + residual``: (N, I) -> (N, O); in fewer bits as `narrow` says."""
    y = _multiply(x, dense)
    if activation is not None:
        y = ACTIVATIONS[activation](y)
    if residual is not None:
        y += residual
    return y


def _multiply(x: Floats, dense: Dense) -> Floats:
    """``x @ weight.T + bias``: (N, I) -> (N, O)."""
    if dense.scales is not None:
        integers, scales = narrow.quantise(narrow.rotate(x)[0])
        return narrow.multiply_integers(integers, scales, dense.weight, dense.scales, dense.bias)
    if dense.dtype == "bfloat16":
        x = narrow.to_bfloat16(x)
    w = dense.weight.T  # (I, O)
    y: Floats = x[:, :K_SUM] @ w[:K_SUM]  # (N, O)
    for i in range(K_SUM, len(w), K_SUM):
        y += x[:, i : i + K_SUM] @ w[i : i + K_SUM]
    y += dense.bias
    return y


def positions(ids: Ints, offsets: Ints, padding: int | None) -> Ints:
    """Number the tokens of each sentence from 0: (N,) -> (N,).

    With the id of a padding token: from that id plus 1, leaving out padding, which gets that id itself.
    """
    starts = np.repeat(offsets[:-1], offsets[1:] - offsets[:-1])  # (N,): where each token's sentence does
    if padding is None:
        return np.arange(len(ids)) - starts
    is_token = ids != padding
    count = np.concatenate([[0], np.cumsum(is_token)])  # (N + 1,): tokens before each place
    return np.where(is_token, count[1:] - count[starts] + padding, padding)


def embed(
    ids: Ints, positions: Ints, types: Ints, word: Floats, position: Floats, token_type: Floats | None
) -> Floats:
    """``word[ids] + token_type[types] + position[positions]``: (N,) -> (N, D).

    A family may have no token types. The word table may be a map of the file in a narrower dtype: only the
    rows that occur are read.
    """
    x: Floats = word[ids].astype(position.dtype)  # (N, D)
    if token_type is not None:
        x += token_type[types]
    x += position[positions]
    return x


def layer_norm(x: Floats, weight: Floats, bias: Floats, eps: float) -> Floats:
    """``(x - mean) / sqrt(variance + eps) * weight + bias`` by row: (N, D) -> (N, D) [1]_.

    The variance is the mean of the squared deviations, in a second pass: the one-pass form
    ``mean(x**2) - mean(x)**2`` cancels.

    References
    ----------
    .. [1] Ba, Kiros and Hinton, Layer Normalization, 2016, equations 3 and 4.
    """
    y: Floats = x - x.mean(axis=-1, keepdims=True)
    variance = np.square(y).mean(axis=-1, keepdims=True)  # (N, 1)
    y *= 1 / np.sqrt(variance + y.dtype.type(eps))
    y *= weight
    y += bias
    return y


def attention(qkv: Floats, offsets: Ints, num_heads: int, bias: Floats | None = None) -> Floats:
    """``softmax(q @ k.T / sqrt(K) + bias) @ v`` by sentence and head: (N, 3D) -> (N, D) [1]_.

    The bias (H, 2P - 1), P >= T, is that of a key by its distance from the query: column P - 1 is for distance 0.

    References
    ----------
    .. [1] Vaswani et al., Attention Is All You Need, 2017, equation 1.
    """
    N, D = qkv.shape[0], qkv.shape[1] // 3
    K = D // num_heads
    heads = qkv.reshape(N, 3, num_heads, K).transpose(1, 2, 0, 3)  # (3, H, N, K)
    context = np.empty((N, num_heads, K), qkv.dtype)
    scale = qkv.dtype.type(1 / np.sqrt(K))
    for start, stop in pairwise(offsets):
        q, k, v = heads[:, :, start:stop]  # (H, T, K) each
        scores = (q * scale) @ k.swapaxes(1, 2)  # (H, T, T)
        if bias is not None:
            places = np.arange(stop - start)
            scores += bias[:, bias.shape[1] // 2 + places - places[:, None]]
        context[start:stop] = (softmax(scores) @ v).swapaxes(0, 1) if stop > start else 0  # (T, H, K)
    return context.reshape(N, D)


def mix(layers: Sequence[Floats], weights: Floats) -> Floats:
    """``sum(weights[l] * layers[l]) / sum(weights)``: the states of some layers, (N, D) each, -> (N, D)."""
    y = layers[0] * weights[0]
    for layer, weight in zip(layers[1:], weights[1:], strict=True):
        y += layer * weight
    y /= weights.sum()
    return y


def pool(x: Floats, offsets: Ints, mode: str, skip: int = 0) -> Floats:
    """One vector a sentence, of its tokens from `skip` on, as `POOLINGS` says: (N, D) -> (S, D) [1]_.

    References
    ----------
    .. [1] Reimers and Gurevych, Sentence-BERT, 2019, section 3.
    """
    vectors = np.empty((len(offsets) - 1, x.shape[1]), x.dtype)
    for s, (start, stop) in enumerate(pairwise(offsets)):
        vectors[s] = POOLINGS[mode](x[start:stop], skip)
    return vectors


def _first(tokens: Floats, skip: int) -> Floats:
    """Return the first token (D,); of a sentence that ends before `skip` its very first, and zeros without any."""
    T, D = tokens.shape
    return tokens[skip if skip < T else 0] if T else np.zeros(D, tokens.dtype)


def _last(tokens: Floats, skip: int) -> Floats:
    """Return the last token (D,), or zeros."""
    T, D = tokens.shape
    return tokens[-1] if skip < T else np.zeros(D, tokens.dtype)


def _maximum(tokens: Floats, skip: int) -> Floats:
    """Return the largest value of each component (D,); minus infinity without any token."""
    return np.asarray(tokens[skip:].max(axis=0, initial=-np.inf))


# Summed in float64: adding hundreds of rows one by one in float32 would cost up to three digits.


def _mean(tokens: Floats, skip: int) -> Floats:
    """Return ``sum(tokens) / T`` (D,), or zeros."""
    kept = tokens[skip:]
    return np.asarray(kept.sum(axis=0, dtype=np.float64) / max(len(kept), 1))


def _mean_sqrt_len(tokens: Floats, skip: int) -> Floats:
    """Return ``sum(tokens) / sqrt(T)`` (D,), or zeros."""
    kept = tokens[skip:]
    return np.asarray(kept.sum(axis=0, dtype=np.float64) / np.sqrt(max(len(kept), 1)))


def _weighted_mean(tokens: Floats, skip: int) -> Floats:
    """Return the mean (D,) with the weights 1, 2, 3, ... counted from the sentence's start, or zeros."""
    weights = np.arange(1.0, len(tokens) + 1)[skip:, None]
    return np.asarray((tokens[skip:] * weights).sum(axis=0) / max(weights.sum(), 1))


# From the tokens (T, D) of one sentence, and how many of them to skip, to a vector (D,); by the checkpoints' names.
POOLINGS: dict[str, Callable[[Floats, int], Floats]] = {
    "cls": _first,
    "max": _maximum,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt_len,
    "weightedmean": _weighted_mean,
    "lasttoken": _last,
}


def prelu(x: Floats, slope: Floats) -> Floats:
    """``x`` where it is positive, else ``slope * x``; slope (1,)."""
    return np.maximum(x, 0) + slope * np.minimum(x, 0)


def normalize(x: Floats) -> Floats:
    """``x / max(norm(x), 1e-12)`` by row, norm being the Euclidean one: (S, D) -> (S, D)."""
    norms = np.sqrt(np.square(x).sum(axis=-1, keepdims=True))  # (S, 1)
    return np.asarray(x / np.maximum(norms, x.dtype.type(1e-12)))
