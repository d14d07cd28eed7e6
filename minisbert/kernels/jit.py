"""The operations of `minisbert.kernels.reference`, compiled: the same names and meanings, for float32.

Everything is computed row by row or sentence by sentence, in an order that depends on that row or sentence alone.
So a sentence's vector is the same, bit for bit, in any company.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import DTypeLike

from minisbert.kernels import Floats, Ints, gemm
from minisbert.kernels.cache import kernel
from minisbert.kernels.gemm import TILE, Packed
from minisbert.kernels.simd import COLUMNS, ROWS, call_tile, exp, larger

NAME = "numba"

# Sums may be taken in another order than written, so that LLVM can keep partial sums in the lanes of a vector; which
# order is a matter of the row's length alone. NaN and infinity keep their meaning.
SUMS = {"reassoc", "nsz", "contract"}

# So many rows of attention scores are in work at once: with 512 keys they take 110 kB, and stay in cache.
QUERIES = 4 * ROWS

_NONE = np.empty((0, 0), np.float32)


def pack(weight: Floats, bias: Floats, dtype: DTypeLike) -> Packed:
    """Twin of `reference.pack`: the weights in the panels of `minisbert.kernels.gemm`."""
    return gemm.pack(weight, bias)


def linear(x: Floats, dense: Packed, activation: str | None = None, residual: Floats | None = None) -> Floats:
    """Twin of `reference.linear`."""
    y = np.empty((len(x), dense.width), np.float32)
    code = gemm.ACTIVATIONS[activation]
    added = _NONE if residual is None else residual
    gemm.multiply(TILE, x, dense.panels, dense.bias, added, code, y, 0, len(dense.panels))
    return y


def embed(ids: Ints, positions: Ints, types: Ints, word: Floats, position: Floats, token_type: Floats) -> Floats:
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
    _attention(TILE, qkv, offsets, num_heads, context)
    return context


@njit(fastmath=SUMS)
def _pack_head(qkv: Any, start: int, stop: int, left: int, K: int, D: int, keys: Any, values: Any) -> None:
    """Copy one head of a sentence: k transposed, so that a panel holds COLUMNS keys, and v as it is."""
    for t in range(stop - start):
        panel, lane = t // COLUMNS, t % COLUMNS
        for j in range(K):
            keys[panel, j, lane] = qkv[start + t, D + left + j]
    for p in range(values.shape[0]):
        for t in range(stop - start):
            for j in range(min(COLUMNS, K - p * COLUMNS)):
                values[p, t, j] = qkv[start + t, 2 * D + left + p * COLUMNS + j]


@njit(fastmath=SUMS)
def _multiply_panels(tile: int, a: int, a_step: int, count: int, panels: Any, steps: int, used: int, zeros: int, c: Any) -> None:
    """``c = A B``: `count` rows at address `a`, `steps` long, times the first `used` panels."""
    tiles = (count + ROWS - 1) // ROWS
    b_panel, c_step = panels.shape[1] * COLUMNS * 4, c.shape[1] * 4
    for p in range(used):
        b = panels.ctypes.data + p * b_panel
        row = 0
        for t in range(tiles):
            height = (count - row) // (tiles - t)
            to = c.ctypes.data + row * c_step + p * COLUMNS * 4
            call_tile(tile, height, a + row * a_step, a_step, b, COLUMNS * 4, steps, to, c_step, zeros, zeros, 0, zeros)
            row += height


@njit(fastmath=SUMS)
def _softmax_unscaled(row: Any, T: int, scale: float) -> float:
    """``exp(scale * (row - max(row)))`` in place; return 1 / its sum, which is cheaper to apply to what follows."""
    most = row[0]
    for j in range(1, T):
        most = larger(most, row[j])
    total = np.float32(0)
    for j in range(T):
        row[j] = exp((row[j] - most) * scale)
        total += row[j]
    return np.float32(1) / total


@njit(fastmath=SUMS)
def _finish(
    tile: int, scores: Any, totals: Any, count: int, T: int, values: Any, zeros: int, found: Any,
    context: Any, first: int, left: int, K: int,
) -> None:
    """Weigh the values of a head by the softmax of the scores, and write the block to its place."""
    _multiply_panels(tile, scores.ctypes.data, scores.shape[1] * 4, count, values, T, len(values), zeros, found)
    for i in range(count):
        for j in range(K):
            context[first + i, left + j] = found[i, j] * totals[i]


@kernel("void(i8, f4[:,::1], i8[::1], i8, f4[:,::1])", fastmath=SUMS)
def _attention(tile: int, qkv: Any, offsets: Any, num_heads: int, context: Any) -> None:
    """Sentence by sentence, head by head, QUERIES rows at a time: scores, softmax, weighted sum of values.

    Both multiplies are tiles. The scores of a block are used up before the next are made, and never leave the cache.
    """
    D = context.shape[1]
    K = D // num_heads
    S = len(offsets) - 1
    longest = 0
    for s in range(S):
        longest = max(longest, offsets[s + 1] - offsets[s])
    key_panels, value_panels = (longest + COLUMNS - 1) // COLUMNS, (K + COLUMNS - 1) // COLUMNS
    keys = np.zeros((key_panels, K, COLUMNS), np.float32)
    values = np.zeros((value_panels, longest, COLUMNS), np.float32)
    scores = np.empty((QUERIES, key_panels * COLUMNS), np.float32)
    found = np.empty((QUERIES, value_panels * COLUMNS), np.float32)
    totals = np.empty(QUERIES, np.float32)
    none = np.zeros(COLUMNS, np.float32)
    zeros = none.ctypes.data
    scale = np.float32(1 / np.sqrt(K))
    for s in range(S):
        start, stop = offsets[s], offsets[s + 1]
        T = stop - start
        for h in range(num_heads):
            _pack_head(qkv, start, stop, h * K, K, D, keys, values)
            for first in range(start, stop, QUERIES):
                count = min(QUERIES, stop - first)
                q = qkv.ctypes.data + (first * 3 * D + h * K) * 4
                used = (T + COLUMNS - 1) // COLUMNS
                _multiply_panels(tile, q, 3 * D * 4, count, keys, K, used, zeros, scores)
                for i in range(count):
                    totals[i] = _softmax_unscaled(scores[i], T, scale)
                _finish(tile, scores, totals, count, T, values, zeros, found, context, first, h * K, K)


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
