"""The gradient of each operation of `minisbert.kernels.reference.ops`, by the same names, for any float dtype.

`dy` stands for the gradient of the loss by an operation's result, and `dx` for that by what goes in. An operation y =
f(x) hands it on by its equation, which stands first in each docstring. The gradients of weights are added to records
of the same kind as the weights' own (`g`), as one micro-batch comes after another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from minisbert.arrays import Floats, Ints
from minisbert.kernels.reference.ops import Dense
from minisbert.weights import LayerNorm

__all__ = [
    "Mask", "Norm", "attention", "by_head", "dropout", "groups", "layer_norm", "linear", "linear_weights",
    "mix", "normalize", "pieces", "pool", "prelu", "sum_rows",
]  # fmt: skip

PIECE = 1 << 15  # elements: all passes over a piece of some rows are made in the processor's cache
SCORES = 1 << 18  # of a group of sentences: they stay there too


class Norm(NamedTuple):
    """What a layer norm keeps: the rows (N, D) that it gave to its weight, and 1 / sqrt(variance + eps) (N, 1)."""

    z: Floats
    rstd: Floats


class Mask(NamedTuple):
    """Which elements dropout keeps, and what they are multiplied by."""

    kept: Any
    scale: float


# S neighbouring sentences, whose attention is computed at once: their rows, and the T tokens that each has.
Group: TypeAlias = tuple[slice, int]
# What attention keeps: queries, keys and values (N, 3D), and the probabilities (S, H, T, T) of groups before dropout.
KeptAttention: TypeAlias = "tuple[Floats, list[tuple[Group, Floats, Mask | None]]]"


def groups(offsets: Ints, num_heads: int) -> Iterator[Group]:
    """Yield sentences of equal length together, as far as they are neighbours and their scores fit in the cache."""
    lengths = np.diff(offsets).tolist()
    start = 0
    for T, same in groupby(lengths):
        count, most = len(list(same)), max(1, SCORES // max(1, num_heads * T * T))
        while count and T:
            taken = min(count, most)
            yield slice(start, start := start + taken * T), T
            count -= taken


def pieces(x: Floats) -> Iterator[slice]:
    """Yield the rows of (N, D) a few at a time."""
    rows = max(1, PIECE // max(1, x.shape[1]))
    return (slice(start, start + rows) for start in range(0, len(x), rows))


def accumulate(g: Floats, value: Floats) -> None:
    """``g += value``, for a field of a record."""
    np.add(g, value, out=g)


# --- by row ----------------------------------------------------------------------------------------------------


def linear(dy: Floats, x: Floats, w: Dense, g: Dense) -> Floats:
    """``y = x @ weight.T + bias``: ``dweight = dy.T @ x``, ``dbias = sum(dy)``, ``dx = dy @ weight``."""
    linear_weights(dy, x, g)
    dx: Floats = dy @ w.weight
    return dx


def linear_weights(dy: Floats, x: Floats, g: Dense) -> None:
    """``dweight`` and ``dbias`` of `linear`."""
    accumulate(g.weight, dy.T @ x)
    accumulate(g.bias, dy.sum(axis=0))


def dropout(dy: Floats, mask: Mask | None) -> Floats:
    """``y = x * kept / (1 - rate)``: ``dx = dy * kept / (1 - rate)``, in place; so y is computed by it too."""
    if mask is not None:
        for rows in pieces(dy.reshape(len(dy), -1)):
            dy[rows] *= mask.kept[rows]
            dy[rows] *= mask.scale
    return dy


def layer_norm(dy: Floats, kept: Norm, w: LayerNorm, g: LayerNorm) -> Floats:
    """``y = z * weight + bias`` with ``z = (x - mean) * rstd``: ``dx = (dz - mean(dz) - z * mean(dz * z)) * rstd``.

    And ``dz = dy * weight``, ``dweight = sum(dy * z)``, ``dbias = sum(dy)``.
    """
    dx = np.empty_like(dy)
    D = dy.shape[1]
    for rows in pieces(dy):
        z, dz = kept.z[rows], dx[rows]
        accumulate(g.weight, np.einsum("nd,nd->d", dy[rows], z))
        accumulate(g.bias, dy[rows].sum(axis=0))
        np.multiply(dy[rows], w.weight, out=dz)
        inner = np.einsum("nd,nd->n", dz, z)[:, np.newaxis] / D
        dz -= dz.mean(axis=-1, keepdims=True)
        dz -= z * inner
        dz *= kept.rstd[rows]
    return dx


def prelu(dy: Floats, x: Floats, slope: Floats, g: Floats) -> Floats:
    """``y = max(x, 0) + slope * min(x, 0)``: ``dslope = sum(dy * min(x, 0))``, ``dx = dy`` or ``slope * dy``."""
    accumulate(g, (dy * np.minimum(x, 0)).sum())
    return np.where(x > 0, dy, slope * dy)


def normalize(dy: Floats, x: Floats) -> Floats:
    """``y = x / n`` with ``n = max(norm(x), 1e-12)``: ``dx = (dy - y * sum(y * dy)) / n``, and ``dy / n`` at 1e-12."""
    norms = np.sqrt(np.square(x).sum(axis=-1, keepdims=True))
    n: Floats = np.maximum(norms, x.dtype.type(1e-12))
    y = x / n
    along = y * (y * dy).sum(axis=-1, keepdims=True)
    return np.asarray((dy - np.where(norms < n, 0, along)) / n)


# --- look-up ---------------------------------------------------------------------------------------------------


def sum_rows(dy: Floats, ids: Ints, padding: int | None = None) -> tuple[Ints, Floats]:
    """``y = table[ids]``: ``dtable[id] = sum(dy where ids == id)``, (N, D) -> the ids that occur (U,), and (U, D).

    By a multiply, which is fast and adds up in one order. The row of padding is never trained.
    """
    unique = np.unique(ids)
    unique = unique[unique != padding]
    return unique, (unique[:, np.newaxis] == ids).astype(dy.dtype) @ dy


# --- by sentence -----------------------------------------------------------------------------------------------


def attention(dy: Floats, kept: KeptAttention, num_heads: int, g_bias: Floats | None) -> Floats:
    """``y = dropout(p) @ v`` with ``p = softmax(s)``, ``s = q @ k.T / sqrt(K) + bias``: (N, D) -> dqkv (N, 3D).

    ``dv = dropout(p).T @ dy``, ``dp = dropout(dy @ v.T)``, ``ds = p * (dp - sum(dp * p))`` over the keys, ``dq = ds @
    k / sqrt(K)``, ``dk = ds.T @ q / sqrt(K)``, and dbias is the sum of ds at each distance of a key from its query.
    """
    qkv, each = kept
    D, dqkv = dy.shape[1], np.empty_like(qkv)
    scale = qkv.dtype.type(1 / np.sqrt(D // num_heads))
    for group, p, mask in each:
        q, k, v = by_head(qkv, group, num_heads, 3)  # (S, H, T, K) each
        dq, dk, dv = by_head(dqkv, group, num_heads, 3)
        [dc] = by_head(dy, group, num_heads, 1)
        np.matmul(dropout(p.copy(), mask).swapaxes(2, 3), dc, out=dv)
        ds = dropout(dc @ v.swapaxes(2, 3), mask)  # (S, H, T, T)
        ds -= np.einsum("shij,shij->shi", ds, p)[..., np.newaxis]
        ds *= p
        if g_bias is not None:
            _sum_distances(ds.sum(axis=0), g_bias)
        ds *= scale
        np.matmul(ds, k, out=dq)
        np.matmul(ds.swapaxes(2, 3), q, out=dk)
    return dqkv


def by_head(x: Floats, group: Group, num_heads: int, count: int) -> Floats:
    """Look at the rows of a group by head: (N, count * D) -> (count, S, H, T, K), without a copy."""
    (rows, T), K = group, x.shape[1] // (count * num_heads)
    return x[rows].reshape(-1, T, count, num_heads, K).transpose(2, 0, 3, 1, 4)


def _sum_distances(ds: Floats, g_bias: Floats) -> None:
    """Add ds (H, T, T) up along its diagonals, into (H, 2P - 1)."""
    T, middle = ds.shape[1], g_bias.shape[1] // 2
    for distance in range(1 - T, T):
        accumulate(g_bias[:, middle + distance], np.trace(ds, distance, 1, 2))


def mix(dy: Floats, layers: Sequence[Floats], weights: Floats, g: Floats) -> list[Floats]:
    """``y = sum(w[l] * x[l]) / sum(w)``: ``dx[l] = w[l] / sum(w) * dy``, ``dw[l] = sum(dy * (x[l] - y)) / sum(w)``."""
    total = weights.sum()
    inner = np.array([np.vdot(dy, x) for x in layers], dy.dtype)  # sum(dy * x[l])
    accumulate(g, (inner - weights @ inner / total) / total)
    return [dy * (weight / total) for weight in weights]


def pool(dy: Floats, x: Floats, offsets: Ints, mode: str) -> Floats:
    """``y[s] = sum(w[t] * x[t])`` over the tokens of a sentence: ``dx[t] = w[t] * dy[s]``, (S, D) -> (N, D)."""
    dx = np.zeros_like(x)
    for s, (start, stop) in enumerate(pairwise(offsets)):
        if stop > start:
            places = np.arange(1, stop - start + 1)[:, np.newaxis]
            dx[start:stop] = POOLINGS[mode](x[start:stop], places).astype(x.dtype) * dy[s]
    return dx


# The weights w (T, 1), or (T, D), of the modes of `ops.POOLINGS`, by the tokens (T, D) and their places from 1 (T, 1);
# for the maximum, of each component, 1 at the first largest one.
POOLINGS: dict[str, Callable[[Floats, Ints], Any]] = {
    "cls": lambda x, places: places == 1,
    "max": lambda x, places: places == 1 + x.argmax(axis=0),
    "mean": lambda x, places: np.full(places.shape, 1 / len(x)),
    "mean_sqrt_len_tokens": lambda x, places: np.full(places.shape, 1 / np.sqrt(len(x))),
    "weightedmean": lambda x, places: places / places.sum(),
    "lasttoken": lambda x, places: places == len(x),
}
