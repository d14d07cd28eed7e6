"""The operations that go through tokens or sentences one by one: positions, embedding, norms, mean pooling.

Rows of tokens and of sentences stand `tuning.row_bytes` apart; those of tables follow each other.
"""

from __future__ import annotations

import numpy as np

from minisbert.kernels.runtime.compiler import (
    doubles_at,
    floats_at,
    inlined,
    ints_at,
    longs_at,
    operation,
    row_bytes,
    scratch,
    words,
)
from minisbert.kernels.source.narrow import narrow_row
from minisbert.kernels.source.reductions import sum_of, sum_of_squares
from minisbert.kernels.source.vector import fused, square_root


@operation("positions")
def positions(S: int, ids: int, offsets: int, padding: int, y: int) -> None:
    """Number each sentence's tokens, as `reference.positions` does; a padding of -1 stands for none."""
    ends, numbers, to = longs_at(offsets), ints_at(ids), ints_at(y)
    for s in range(S):
        number = 0 if padding < 0 else padding + 1
        for i in range(ends[s], ends[s + 1]):
            if padding >= 0 and numbers[i] == padding:
                to[i] = padding
            else:
                to[i] = number
                number += 1


@operation("embed")
def embed(
    N: int,
    D: int,
    ids: int,
    positions: int,
    types: int,
    word: int,
    position: int,
    token_type: int,
    y: int,
) -> None:
    """``y = word[ids] + token_type[types] + position[positions]``; tables are contiguous, token_type may be at 0.

    The tables have rows for all ids and types: `text.base.check_id` and `text.tokenizer.check_limits` saw to that.
    """
    of_word, of_position, of_type = ints_at(ids), ints_at(positions), ints_at(types)
    for i in range(N):
        w, p = floats_at(word + of_word[i] * D * 4), floats_at(position + of_position[i] * D * 4)
        to = floats_at(y + i * row_bytes(D))
        if token_type != 0:
            t = floats_at(token_type + of_type[i] * D * 4)
            for j in range(D):
                to[j] = w[j] + t[j] + p[j]
        else:
            for j in range(D):
                to[j] = w[j] + p[j]


@operation("layer_norm")
def layer_norm(
    N: int, D: int, x: int, weight: int, bias: int, eps: float, y: int, arithmetic: int, z: int
) -> None:
    """``y = (x - mean) * scale * weight + bias`` by row, with ``scale = 1 / sqrt(variance + eps)``.

    The variance is taken in a second pass. If z is not 0 rows go there, too, as `narrow` makes them: while they are in
    the first-level cache.
    """
    w, b = floats_at(weight), floats_at(bias)
    step, z_step = row_bytes(D), row_bytes(words(D, arithmetic) + (arithmetic & 1))
    for i in range(N):
        row, to = floats_at(x + i * step), floats_at(y + i * step)
        mean = sum_of(x + i * step, D) / np.float32(D)
        variance = np.float64(sum_of_squares(x + i * step, D, mean)) / D
        scale = np.float32(1 / square_root(variance + eps))
        for j in range(D):
            to[j] = fused((row[j] - mean) * scale, w[j], b[j])
        if z:
            narrow_row(D, arithmetic, y + i * step, z + i * z_step)


SUMMED = 128  # columns whose sums are made at once
sums = scratch(2 * SUMMED)


@inlined
def mean_of_columns(x: int, step: int, T: int, columns: int, total: int, y: int) -> None:
    """Average some columns of T rows; `total` is room for their sums."""
    total_of, mean = doubles_at(total), floats_at(y)
    for j in range(columns):
        total_of[j] = 0
    for t in range(T):
        row = floats_at(x + t * step)
        for j in range(columns):
            total_of[j] += row[j]
    for j in range(columns):
        mean[j] = total_of[j] / max(T, 1)


@operation("mean_pool")
def mean_pool(S: int, D: int, x: int, offsets: int, y: int) -> None:
    """Average the rows of each sentence: in float64, as hundreds are added one by one."""
    ends, step, total = longs_at(offsets), row_bytes(D), sums()
    for s in range(S):
        first, T = x + ends[s] * step, ends[s + 1] - ends[s]
        for left in range(0, D, SUMMED):
            columns = min(SUMMED, D - left)
            mean_of_columns(first + left * 4, step, T, columns, total, y + s * step + left * 4)


@operation("normalize")
def normalize(N: int, D: int, x: int, y: int) -> None:
    """Divide each row by its length; one shorter than 1e-12 by that."""
    step = row_bytes(D)
    for i in range(N):
        row, to = floats_at(x + i * step), floats_at(y + i * step)
        squares = np.float64(sum_of_squares(x + i * step, D, np.float32(0)))
        length = max(np.float32(square_root(squares)), np.float32(1e-12))
        for j in range(D):
            to[j] = row[j] / length
