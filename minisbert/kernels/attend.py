"""Attention of some heads over one sentence, on the same tile as the matrix multiply.

Both multiplies of ``softmax(q k.T / sqrt(K) + bias) v`` are small: T x K x T and T x T x K, with K = 32 or 64 and T
up to 512.
So the scores of a block of queries are made, turned into weights and used up before those of the next block: they
take at most 115 kB and never leave the second-level cache. What the tile needs packed of k and v is a few kilobytes,
read from where the query-key-value multiply left them. q is read in place, and the result written in place.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minisbert.kernels.cache import part
from minisbert.kernels.shape import COLUMNS, QUERIES, ROWS
from minisbert.kernels.simd import call, softmax


@part
def attend(
    tile: int, qkv: Any, offsets: Any, s: int, heads: Any, num_heads: int, bias: Any, context: Any
) -> None:
    """Fill the part of `context` (N, D) that these heads of sentence s make; a bias of no columns stands for none."""
    start, stop = offsets[s], offsets[s + 1]
    T, D = stop - start, context.shape[1]
    K = D // num_heads
    key_panels, value_panels = (T + COLUMNS - 1) // COLUMNS, (K + COLUMNS - 1) // COLUMNS
    keys = np.zeros((key_panels, K, COLUMNS), np.float32)
    values = np.zeros((value_panels, T, COLUMNS), np.float32)
    scores = np.empty((QUERIES, key_panels * COLUMNS), np.float32)
    found = np.empty((QUERIES, value_panels * COLUMNS), np.float32)
    totals = np.empty(QUERIES, np.float32)
    zeros = np.zeros(COLUMNS, np.float32)
    scale = np.float32(1 / np.sqrt(K))
    for h in heads:
        pack_head(qkv, start, stop, h * K, K, D, keys, values)
        for first in range(start, stop, QUERIES):
            count = min(QUERIES, stop - first)
            q = qkv.ctypes.data + (first * 3 * D + h * K) * 4
            multiply_panels(tile, q, 3 * D * 4, count, keys, K, zeros.ctypes.data, scores)
            for i in range(count):
                if bias.shape[1] > 0:
                    add_bias(
                        bias[h, bias.shape[1] // 2 - (first - start + i) :],
                        T,
                        np.float32(np.sqrt(K)),
                        scores[i],
                    )
                totals[i] = softmax(scores.ctypes.data + i * scores.shape[1] * 4, T, scale)
            weights = scores.ctypes.data
            multiply_panels(tile, weights, scores.shape[1] * 4, count, values, T, zeros.ctypes.data, found)
            for i in range(count):
                for j in range(K):
                    context[first + i, h * K + j] = found[i, j] * totals[i]


@part
def add_bias(bias: Any, T: int, root: Any, scores: Any) -> None:
    """Add what T keys are favoured by, to scores that are still to be divided by the root."""
    for j in range(T):
        scores[j] += bias[j] * root


@part
def pack_head(qkv: Any, start: int, stop: int, left: int, K: int, D: int, keys: Any, values: Any) -> None:
    """Copy one head of a sentence: k transposed, so that a panel holds COLUMNS keys, and v as it is.

    The zeros that fill up the last panels are computed with, and their results left out.
    """
    T = stop - start
    for t in range(T):
        panel, lane = t // COLUMNS, t % COLUMNS
        for j in range(K):
            keys[panel, j, lane] = qkv[start + t, D + left + j]
    for p in range(values.shape[0]):
        for t in range(T):
            for j in range(min(COLUMNS, K - p * COLUMNS)):
                values[p, t, j] = qkv[start + t, 2 * D + left + p * COLUMNS + j]


@part
def multiply_panels(
    tile: int, a: int, a_step: int, count: int, panels: Any, steps: int, zeros: int, c: Any
) -> None:
    """``c = A B``: `count` rows of `steps` numbers from address a, a_step bytes apart, times all panels."""
    tiles = (count + ROWS - 1) // ROWS
    b_step, c_step = COLUMNS * 4, c.shape[1] * 4
    for p in range(len(panels)):
        b = panels.ctypes.data + p * panels.shape[1] * b_step
        row = 0
        for t in range(tiles):
            height = (count - row) // (tiles - t)
            to = c.ctypes.data + row * c_step + p * b_step
            rows = a + row * a_step
            call(tile, (height, rows, a_step, b, b_step, steps, to, c_step, zeros, zeros, 0, zeros))
            row += height
