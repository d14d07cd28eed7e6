"""Attention of some heads over one sentence, on the narrower tile of the matrix multiply.

Both multiplies of ``softmax(q k.T / sqrt(K) + bias) v`` are small: T x K x T and T x T x K, with K = 32 or 64 and T up
to 512. So the scores of a block of queries are made, turned into weights and used up before those of the next block:
they take at most 115 kB and never leave the second-level cache. What the tile needs of k and v is packed for each head,
65 kB each at most for K = 32, from where the query-key-value multiply left them; q is read in place. Of each token a
head needs two or four cache lines, kilobytes from those of the next token, and no prefetcher sees that coming. So the
tiles of one head ask for the lines of the next: one tile for those on the left, its neighbour, if there
is one, for those on the right.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minisbert.kernels.compiler import floats_at, kernel, part, row_bytes
from minisbert.kernels.elementary import LOG2_E
from minisbert.kernels.gemm import copy, zero
from minisbert.kernels.gemm import narrow_tile as tile
from minisbert.kernels.shape import ABREAST, LANES, LINE, QUERIES
from minisbert.kernels.shape import NARROW_COLUMNS as COLUMNS
from minisbert.kernels.shape import NARROW_ROWS as ROWS
from minisbert.kernels.shape import NARROW_VECTORS as VECTORS
from minisbert.kernels.simd import copy_vector, softmax, transpose


@part
def add_bias(T: int, bias: int, scores: int) -> None:
    """Add what T keys are favoured by to scores."""
    row, added, unit = floats_at(scores), floats_at(bias), np.float32(LOG2_E)
    for j in range(T):
        row[j] += added[j] * unit


@part
def scale_row(K: int, x: int, factor: Any, y: int) -> None:
    """``y = factor * x``, of K numbers."""
    row, to = floats_at(x), floats_at(y)
    for j in range(K):
        to[j] = row[j] * factor


@part
def pack_keys(T: int, K: int, step: int, k: int, keys: int) -> None:
    """Copy the keys of a head, transposed: panel p holds keys p * COLUMNS and following, as (K, COLUMNS).

    They are scaled here, as they are fewer than scores: such that softmax takes powers of 2. The last key fills up the
    last panel: its scores there are computed, and left out.
    """
    squares, scale = K // LANES * LANES, np.float32(LOG2_E / math.sqrt(K))
    for first in range(0, (T + COLUMNS - 1) // COLUMNS * COLUMNS, LANES):
        left = max(1, T - first)
        source = k + min(first, T - 1) * step
        panel = keys + (first // COLUMNS * K * COLUMNS + first % COLUMNS) * 4
        for j in range(0, squares, LANES):
            transpose(source + j * 4, step, left, panel + j * COLUMNS * 4, COLUMNS * 4, scale)
        for j in range(squares, K):
            to = floats_at(panel + j * COLUMNS * 4)
            for t in range(LANES):
                to[t] = floats_at(source + min(t, left - 1) * step)[j] * scale


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


@kernel(*["i8"] * 10)
def multiply_panels(
    count: int,
    steps: int,
    panels: int,
    a: int,
    a_step: int,
    b: int,
    c: int,
    far: int,
    apart: int,
    far_step: int,
) -> None:
    """``c = A B``: `count` rows of `steps` numbers from address a, a_step bytes apart, times all panels of B.

    Meanwhile memory is asked for rows from `far` on, far_step bytes apart; every other panel asks `apart` bytes on.
    """
    tiles = (count + ROWS - 1) // ROWS
    b_step, c_step = COLUMNS * 4, panels * COLUMNS * 4
    for p in range(panels):
        row, wanted = 0, far + p % 2 * apart
        for t in range(tiles):
            height = (count - row) // (tiles - t)
            panel, to = b + p * steps * b_step, c + row * c_step + p * b_step
            there = wanted + row * far_step + t % 2 * LINE
            tile((height, a + row * a_step, a_step, panel, steps, to, c_step, 0, 0, 0, 0, there, far_step))
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
    K, step = D // num_heads, row_bytes(3 * D)
    key_panels, value_panels = (T + COLUMNS - 1) // COLUMNS, (K + COLUMNS - 1) // COLUMNS
    keys = room
    values = keys + key_panels * K * COLUMNS * 4
    scores, s_step = values + value_panels * T * COLUMNS * 4, key_panels * COLUMNS * 4
    found = scores + QUERIES * s_step
    inverses = found + QUERIES * value_panels * COLUMNS * 4
    for h in range(start, stop):
        pack_keys(T, K, step, qkv + (D + h * K) * 4, keys)
        pack_values(T, K, step, qkv + (2 * D + h * K) * 4, values)
        for first in range(0, T, QUERIES):
            count = min(QUERIES, T - first)
            q = qkv + first * step + h * K * 4
            q_later = q + K * 4
            if h + 1 == num_heads:  # the first head of the next sentence
                q_later = qkv + (T + first) * step
            k_later, v_later = q_later + D * 4, q_later + 2 * D * 4
            multiply_panels((count, K, key_panels, q, step, keys, scores, k_later, q_later - k_later, step))
            if span > 0:
                for i in range(count):
                    add_bias(T, bias + (h * span + span // 2 - first - i) * 4, scores + i * s_step)
            for i in range(0, count, ABREAST):
                softmax(scores + i * s_step, s_step, T, inverses + i * 4)
            multiply_panels(
                (count, T, value_panels, scores, s_step, values, found, v_later, COLUMNS * 4, step)
            )
            for i in range(count):
                place = context + (first + i) * row_bytes(D) + h * K * 4
                scale_row(K, found + i * value_panels * COLUMNS * 4, floats_at(inverses)[i], place)
