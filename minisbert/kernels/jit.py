"""The operations of `minisbert.kernels.reference`, compiled: the same names and meanings, for float32.

Everything is computed row by row or sentence by sentence, in an order that depends on that row or sentence alone.
So a sentence's vector is the same, bit for bit, in any company.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from minisbert.kernels import Floats, Ints, gemm, team
from minisbert.kernels.cache import kernel
from minisbert.kernels.gemm import Packed

NAME = "numba"

# Sums may be taken in another order than written, so that LLVM can keep partial sums in the lanes of a vector; which
# order is a matter of the row's length alone. NaN and infinity keep their meaning.
SUMS = {"reassoc", "nsz", "contract"}

_NONE = np.empty((0, 0), np.float32)


def threads(count: int) -> AbstractContextManager[None]:
    """Let each operation of the calling thread use so many threads, for as long as nobody else has the helpers."""
    return team.helpers(count - 1)


def pack(weight: Floats, bias: Floats, dtype: DTypeLike) -> Packed:
    """Twin of `reference.pack`: the weights in the panels of `minisbert.kernels.gemm`."""
    return gemm.pack(weight, bias)


def linear(x: Floats, dense: Packed, activation: str | None = None, residual: Floats | None = None) -> Floats:
    """Twin of `reference.linear`."""
    y = np.empty((len(x), dense.width), np.float32)
    code = gemm.ACTIVATIONS[activation]
    added = _NONE if residual is None else residual
    team.linear(x, dense.panels, dense.bias, added, code, y)
    return y


def embed(
    ids: Ints, positions: Ints, types: Ints, word: Floats, position: Floats, token_type: Floats
) -> Floats:
    """Twin of `reference.embed`, and as simple: it only moves rows."""
    x = word[ids].astype(np.float32, copy=False)  # (N, D)
    x += token_type[types]
    x += position[positions]
    return x


def layer_norm(x: Floats, weight: Floats, bias: Floats, eps: float) -> Floats:
    """Twin of `reference.layer_norm`."""
    y = np.empty_like(x)
    _layer_norm(x, weight, bias, eps, y)
    return y


@kernel("void(f4[:,::1], f4[::1], f4[::1], f8, f4[:,::1])", fastmath=SUMS)
def _layer_norm(x: Any, weight: Any, bias: Any, eps: float, y: Any) -> None:
    N, D = x.shape
    for i in range(N):
        total = np.float32(0)
        for j in range(D):
            total += x[i, j]
        mean = total / np.float32(D)
        squares = np.float32(0)
        for j in range(D):
            deviation = x[i, j] - mean
            squares += deviation * deviation
        scale = np.float32(1 / np.sqrt(np.float64(squares) / D + eps))
        for j in range(D):
            y[i, j] = (x[i, j] - mean) * scale * weight[j] + bias[j]


def attention(qkv: Floats, offsets: Ints, num_heads: int) -> Floats:
    """Twin of `reference.attention`."""
    context = np.empty((len(qkv), qkv.shape[1] // 3), np.float32)
    team.attention(qkv, offsets, num_heads, context)
    return context


def mean_pool(x: Floats, offsets: Ints) -> Floats:
    """Twin of `reference.mean_pool`."""
    means = np.empty((len(offsets) - 1, x.shape[1]), np.float32)
    _mean_pool(x, offsets, means)
    return means


@kernel("void(f4[:,::1], i8[::1], f4[:,::1])")
def _mean_pool(x: Any, offsets: Any, means: Any) -> None:
    S, D = means.shape
    for s in range(S):
        start, stop = offsets[s], offsets[s + 1]
        sums = np.zeros(D, np.float64)
        for t in range(start, stop):
            for j in range(D):
                sums[j] += x[t, j]
        for j in range(D):
            means[s, j] = sums[j] / max(stop - start, 1)


def normalize(x: Floats) -> Floats:
    """Twin of `reference.normalize`, one row at a time: NumPy may sum a block in another order than a row."""
    norms = [np.sqrt(np.square(row).sum()) for row in x]
    return x / np.maximum(np.array(norms, np.float32).reshape(len(x), 1), np.float32(1e-12))
