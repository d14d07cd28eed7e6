"""Attention of some heads over one sentence, on the same tile as the matrix multiply.

Both multiplies of ``softmax(q k.T / sqrt(K) + bias) v`` are small: T x K x T and T x T x K, with K = 32 or 64 and T up
to 512. So the scores of a block of QUERIES are made, turned into weights and used up before those of the next
block: they take at most 131 kB and never leave the second-level cache.

They are made transposed, as ``k q.T``, with a row for each key and a lane for each query. Softmax goes down columns:
each lane has its own maximum and sum, where along a row all lanes would have to be joined in either, and those that the
sentence does not fill be masked. And the numbers that a step of the second multiply takes of the weights, one for each
query, stand side by side. Packed are the queries of a block, transposed, and all values; keys are read in place.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minisbert.kernels.compiler import floats_at, kernel, part, row_bytes
from minisbert.kernels.gemm import copy, tile, tile_of_columns, zero
from minisbert.kernels.shape import COLUMNS, LANES, QUERIES, ROWS, VECTORS
from minisbert.kernels.simd import copy_vector, softmax, transpose


@part
def add_bias(T: int, K: int, count: int, bias: int, scores: int) -> None:
    """Add what T keys are favoured by, to scores that are still to be divided by sqrt(K): one less for each query."""
    root = np.float32(math.sqrt(K))
    for j in range(T):
        row, added = floats_at(scores + j * QUERIES * 4), floats_at(bias + j * 4)
        for i in range(count):
            row[i] += added[-i] * root


@part
def scale_row(K: int, x: int, factor: Any, y: int) -> None:
    """``y = factor * x``, of K numbers."""
    row, to = floats_at(x), floats_at(y)
    for j in range(K):
        to[j] = row[j] * factor


@part
def pack_queries(count: int, K: int, step: int, q: int, queries: int) -> None:
    """Copy `count` queries of a head, transposed: panel p holds p * COLUMNS and following, as (K, COLUMNS).

    The last query fills up the last panel: its scores there are computed, and left out.
    """
    squares = K // LANES * LANES
    for first in range(0, (count + COLUMNS - 1) // COLUMNS * COLUMNS, LANES):
        left = max(1, count - first)
        source = q + min(first, count - 1) * step
        panel = queries + (first // COLUMNS * K * COLUMNS + first % COLUMNS) * 4
        for j in range(0, squares, LANES):
            transpose(source + j * 4, step, left, panel + j * COLUMNS * 4, COLUMNS * 4)
        for j in range(squares, K):
            to = floats_at(panel + j * COLUMNS * 4)
            for t in range(LANES):
                to[t] = floats_at(source + min(t, left - 1) * step)[j]


@part
def pack_values(T: int, K: int, step: int, v: int, values: int) -> None:
    """Copy the values of a head: panel p holds columns p * COLUMNS and following, as (T, COLUMNS), and then zeros."""
    for p in range((K + COLUMNS - 1) // COLUMNS):
        count = min(COLUMNS, K - p * COLUMNS)
        for t in range(T):
            row, to = v + t * step + p * COLUMNS * 4, values + (p * T + t) * COLUMNS * 4
            if count == COLUMNS:
                for j in range(VECTORS):
                    copy_vector(row + j * LANES * 4, to + j * LANES * 4)
            else:
                copy(row, 0, to, 0, 1, count)
                zero(to + count * 4, COLUMNS - count)


@kernel(*["i8"] * 7)
def make_scores(T: int, K: int, count: int, k: int, k_step: int, queries: int, scores: int) -> None:
    """``scores = k q.T`` (T, QUERIES), for `count` queries in panels."""
    tiles, step = (T + ROWS - 1) // ROWS, QUERIES * 4
    for p in range((count + COLUMNS - 1) // COLUMNS):
        panel, row = queries + p * K * COLUMNS * 4, 0
        for t in range(tiles):
            height = (T - row) // (tiles - t)
            to = scores + row * step + p * COLUMNS * 4
            tile((height, k + row * k_step, k_step, panel, K, to, step, 0, 0, 0))
            row += height


@kernel(*["i8"] * 6)
def weigh(T: int, K: int, count: int, weights: int, values: int, found: int) -> None:
    """``found = weights.T v`` for `count` of the QUERIES columns of weights, (T, QUERIES); found and v are padded."""
    tiles, panels = (count + ROWS - 1) // ROWS, (K + COLUMNS - 1) // COLUMNS
    for p in range(panels):
        panel, row = values + p * T * COLUMNS * 4, 0
        for t in range(tiles):
            height = (count - row) // (tiles - t)
            to, step = found + (row * panels + p) * COLUMNS * 4, panels * COLUMNS * 4
            tile_of_columns((height, weights + row * 4, QUERIES * 4, panel, T, to, step, 0, 0, 0))
            row += height


@kernel(*["i8"] * 10)
def attend(
    D: int,
    num_heads: int,
    T: int,
    qkv: int,
    bias: int,
    span: int,
    context: int,
    start: int,
    stop: int,
    room: int,
) -> None:
    """Fill the part of `context` (T, D) that heads start to stop of one sentence make, of its qkv (T, 3D).

    Rows of both stand `shape.row_bytes` apart. `room` is for the floats that `shape.attention_room` counts. Bias
    (H, span) is as in the definition; a span of 0 stands for none.
    """
    K, step, value_panels = D // num_heads, row_bytes(3 * D), (D // num_heads + COLUMNS - 1) // COLUMNS
    queries, values = room, room + K * QUERIES * 4
    scores = values + value_panels * T * COLUMNS * 4
    found = scores + T * QUERIES * 4
    inverses = found + QUERIES * value_panels * COLUMNS * 4
    scale = np.float32(1 / math.sqrt(K))
    for h in range(start, stop):
        q, k, v = qkv + h * K * 4, qkv + (D + h * K) * 4, qkv + (2 * D + h * K) * 4
        pack_values(T, K, step, v, values)
        for first in range(0, T, QUERIES):
            count = min(QUERIES, T - first)
            pack_queries(count, K, step, q + first * step, queries)
            make_scores((T, K, count, k, step, queries, scores))
            if span > 0:
                add_bias(T, K, count, bias + (h * span + span // 2 - first) * 4, scores)
            for lane in range(0, count, LANES):
                softmax(scores + lane * 4, T, scale, inverses + lane * 4)
            weigh((T, K, count, scores, values, found))
            for i in range(count):
                place = context + (first + i) * row_bytes(D) + h * K * 4
                scale_row(K, found + i * value_panels * COLUMNS * 4, floats_at(inverses)[i], place)
