"""Attention of some heads over one sentence, by the micro-kernels of the matrix multiply.

Both multiplies of ``softmax(q k.T / sqrt(K) + bias) v`` are small: T x K x T and T x T x K, with K = 32 or 64 and T up
to 512. So the scores of QUERY_ROWS queries are made, turned into weights and used up before those of the next: they
take 31 kB for 230 tokens, at most 66 kB, and never leave the second-level cache. Keys and values are packed into panels
for each head, 65 kB each at most for K = 32, from where the query-key-value multiply left them; queries are read in
place. Of each token a head needs two or four cache lines, kilobytes from those of the next token, and no hardware
prefetcher foresees that. So the micro-tiles of one head prefetch the lines of the next head: each micro-tile the line
on the left, its neighbour, if there is one, the line on the right; every other panel of keys prefetches queries.

The panels of T keys are those of a matrix T wide: of 230 keys, 15 vectors, the scores of 240 are computed, in panels of
three. Values are two or four vectors wide: their panels are narrow.
"""

from __future__ import annotations

import numpy as np

from minisbert.kernels.runtime.compiler import (
    columns_of_scores,
    columns_of_values,
    count_panels,
    floats_at,
    kernel,
    row_bytes,
    start_of_panel,
)
from minisbert.kernels.source.gemm import copy, microkernel, zero
from minisbert.kernels.source.reductions import softmax_powers
from minisbert.kernels.source.vector import LOG2_E, copy_vector, square_root, transpose
from minisbert.kernels.tuning import (
    LANES,
    LINE,
    MR,
    NARROW_MR,
    NARROW_NR,
    NARROW_VECTORS,
    PREFETCH_L1,
    QUERY_ROWS,
    SOFTMAX_ROWS,
)


@kernel(*["i8"] * 5)
def add_bias(rows: int, T: int, bias: int, scores: int, s_step: int) -> None:
    """Add a bias to rows of T scores: that of the first row starts at `bias`, of each next row one number before."""
    unit = np.float32(LOG2_E)
    for i in range(rows):
        row, added = floats_at(scores + i * s_step), floats_at(bias - i * 4)
        for j in range(T):
            row[j] += added[j] * unit


@kernel(*["i8"] * 7)
def scale_rows(rows: int, K: int, x: int, x_step: int, factors: int, y: int, y_step: int) -> None:
    """``y = factors * x``, for rows of K numbers."""
    factor_of = floats_at(factors)
    for i in range(rows):
        row, to, factor = floats_at(x + i * x_step), floats_at(y + i * y_step), factor_of[i]
        for j in range(K):
            to[j] = row[j] * factor


@kernel(*["i8"] * 5)
def pack_keys(T: int, K: int, step: int, k: int, keys: int) -> None:
    """Copy the keys of a head, transposed: each panel, of as many keys as it has columns, as (K, its columns).

    They are scaled here, as they are fewer than the scores, and such that softmax takes powers of 2. The last panel is
    filled up with copies of the last key, whose scores are computed and left out.
    """
    squares, scale = K // LANES * LANES, np.float32(LOG2_E / square_root(np.float64(K)))
    wide, P = count_panels(T)
    for p in range(P):
        start = start_of_panel(p, wide)
        columns = start_of_panel(p + 1, wide) - start
        for first in range(start, start + columns, LANES):
            left = max(1, T - first)
            source = k + min(first, T - 1) * step
            panel = keys + (start * K + first - start) * 4
            for j in range(0, squares, LANES):
                transpose(source + j * 4, step, left, panel + j * columns * 4, columns * 4, scale)
            for j in range(squares, K):
                to = floats_at(panel + j * columns * 4)
                for t in range(LANES):
                    to[t] = floats_at(source + min(t, left - 1) * step)[j] * scale


@kernel(*["i8"] * 5)
def pack_values(T: int, K: int, step: int, v: int, values: int) -> None:
    """Copy the values of a head: each narrow panel p as (T, NARROW_NR), and then zeros."""
    for p in range(columns_of_values(K) // NARROW_NR):
        count, width = min(NARROW_NR, K - p * NARROW_NR), NARROW_NR * 4
        source, panel = v + p * width, values + p * T * width
        if count < NARROW_NR:
            zero(panel, T * NARROW_NR)
            copy(source, step, panel, width, T, count)
        else:
            for t in range(T):
                for j in range(NARROW_VECTORS):
                    copy_vector(source + t * step + j * LANES * 4, panel + t * width + j * LANES * 4)


@kernel(*["i8"] * 12)
def multiply_panels(
    count: int,
    steps: int,
    wide: int,
    P: int,
    a: int,
    a_step: int,
    b: int,
    c: int,
    c_step: int,
    later: int,
    apart: int,
    later_step: int,
) -> None:
    """``c = A B``: `count` rows of `steps` numbers from address a, a_step bytes apart, times all P panels of B.

    Meanwhile rows from `later` on are prefetched, later_step bytes apart; by every other panel, those `apart` bytes on.
    """
    for p in range(P):
        start = start_of_panel(p, wide)
        row, wanted = 0, later + p % 2 * apart
        rows = MR if p < wide else NARROW_MR
        tiles = (count + rows - 1) // rows
        for t in range(tiles):
            height = (count - row) // (tiles - t)
            panel, to, x = b + start * steps * 4, c + row * c_step + start * 4, a + row * a_step
            there = wanted + row * later_step + t % 2 * LINE
            given = height, x, a_step, panel, steps, to, c_step, 0, 0, 0, 0, PREFETCH_L1, there, later_step
            microkernel(p < wide, given)
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

    Rows of both stand `tuning.row_bytes` apart. `room` is for the floats that `tuning.attention_room` counts. Bias
    (H, span) is as in the definition; a span of 0 stands for none.
    """
    K, step = D // num_heads, row_bytes(3 * D)
    wide, key_panels = count_panels(T)
    key_columns, value_columns = start_of_panel(key_panels, wide), columns_of_values(K)
    value_panels = value_columns // NARROW_NR
    keys = room
    values = keys + key_columns * K * 4
    scores, s_step = values + value_columns * T * 4, columns_of_scores(key_columns) * 4
    found, f_step = scores + QUERY_ROWS * s_step, value_columns * 4
    inverses = found + QUERY_ROWS * f_step
    for h in range(start, stop):
        pack_keys(T, K, step, qkv + (D + h * K) * 4, keys)
        pack_values(T, K, step, qkv + (2 * D + h * K) * 4, values)
        for first in range(0, T, QUERY_ROWS):
            count = min(QUERY_ROWS, T - first)
            q = qkv + first * step + h * K * 4
            q_later = q + K * 4
            if h + 1 == num_heads:  # the first head of the next sentence
                q_later = qkv + (T + first) * step
            k_later, v_later = q_later + D * 4, q_later + 2 * D * 4
            multiply_panels(
                count, K, wide, key_panels, q, step, keys, scores, s_step, k_later, q_later - k_later, step
            )
            if span > 0:
                add_bias(count, T, bias + (h * span + span // 2 - first) * 4, scores, s_step)
            for i in range(0, count, SOFTMAX_ROWS):
                softmax_powers(scores + i * s_step, s_step, T, inverses + i * 4)
            multiply_panels(
                count, T, 0, value_panels, scores, s_step, values, found, f_step, v_later, 2 * LINE, step
            )
            place = context + first * row_bytes(D) + h * K * 4
            scale_rows(count, K, found, f_step, inverses, place, row_bytes(D))
