"""The operations that go through the rows of a matrix one by one: embedding, layer norm, mean pooling, normalising.

Rows of tokens, (N, D), stand `shape.row_bytes` apart; those of sentences, (S, D), and of tables follow each other.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minisbert.kernels.compiler import doubles_at, floats_at, ints_at, kernel, longs_at, part, row_bytes

# Sums may be taken in another order than written, so that LLVM can keep partial sums in the lanes of a vector; which
# order is a matter of the row's length alone. NaN and infinity keep their meaning.
SUMS = frozenset({"reassoc", "nsz", "contract"})


@kernel(*["i8"] * 9)
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

    That the tables have rows for the ids and types was checked by `tokenization.check_id` and `check_limits`.
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


@kernel("i8", "i8", "i8", "i8", "i8", "f8", "i8", fastmath=SUMS)
def layer_norm(N: int, D: int, x: int, weight: int, bias: int, eps: float, y: int) -> None:
    """``y = (x - mean) / sqrt(variance + eps) * weight + bias`` by row; the variance in a second pass."""
    w, b = floats_at(weight), floats_at(bias)
    step = row_bytes(D)
    for i in range(N):
        row, to = floats_at(x + i * step), floats_at(y + i * step)
        total = np.float32(0)
        for j in range(D):
            total += row[j]
        mean = total / np.float32(D)
        squares = np.float32(0)
        for j in range(D):
            deviation = row[j] - mean
            squares += deviation * deviation
        scale = np.float32(1 / np.sqrt(np.float64(squares) / D + eps))
        for j in range(D):
            to[j] = (row[j] - mean) * scale * w[j] + b[j]


@part
def add_rows(D: int, x: int, start: int, stop: int, total: Any) -> None:
    """Add up rows start to stop of x."""
    for j in range(D):
        total[j] = 0
    for t in range(start, stop):
        row = floats_at(x + t * row_bytes(D))
        for j in range(D):
            total[j] += row[j]


@kernel("i8", "i8", "i8", "i8", "i8", "i8")
def mean_pool(S: int, D: int, x: int, offsets: int, sums: int, means: int) -> None:
    """Average the rows of each sentence, in float64, as hundreds are added one by one; `sums` is room for that."""
    ends, total = longs_at(offsets), doubles_at(sums)
    for s in range(S):
        add_rows(D, x, ends[s], ends[s + 1], total)
        mean, count = floats_at(means + s * D * 4), max(ends[s + 1] - ends[s], 1)
        for j in range(D):
            mean[j] = total[j] / count


@kernel("i8", "i8", "i8", "i8", fastmath=SUMS)
def normalize(S: int, D: int, x: int, y: int) -> None:
    """Divide each row by its length; one shorter than 1e-12 by that."""
    for s in range(S):
        row, to = floats_at(x + s * D * 4), floats_at(y + s * D * 4)
        squares = np.float32(0)
        for j in range(D):
            squares += row[j] * row[j]
        length = max(np.sqrt(squares), np.float32(1e-12))
        for j in range(D):
            to[j] = row[j] / length
