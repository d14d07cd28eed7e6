"""The operations that go through the rows of a matrix: layer norm and mean pooling."""

from __future__ import annotations

from typing import Any

import numpy as np

from minisbert.kernels.cache import kernel

# Sums may be taken in another order than written, so that LLVM can keep partial sums in the lanes of a vector; which
# order is a matter of the row's length alone. NaN and infinity keep their meaning.
SUMS = {"reassoc", "nsz", "contract"}


@kernel("void(f4[:,::1], f4[::1], f4[::1], f8, f4[:,::1])", fastmath=SUMS)
def layer_norm(x: Any, weight: Any, bias: Any, eps: float, y: Any) -> None:
    """Compute ``y = (x - mean) / sqrt(variance + eps) * weight + bias`` by row; the variance in a second pass."""
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


@kernel("void(f4[:,::1], i8[::1], f4[:,::1])")
def mean_pool(x: Any, offsets: Any, means: Any) -> None:
    """Average the rows of each sentence, in float64, as hundreds are added one by one."""
    S, D = means.shape
    for s in range(S):
        start, stop = offsets[s], offsets[s + 1]
        sums = np.zeros(D, np.float64)
        for t in range(start, stop):
            for j in range(D):
                sums[j] += x[t, j]
        for j in range(D):
            means[s, j] = sums[j] / max(stop - start, 1)
