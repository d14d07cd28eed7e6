"""The definition of a linear in fewer bits, in plain NumPy: what is rounded, when, and to what.

Each format says how a weight is held, and what is done to the rows that are multiplied by it:

- float16: weights are rounded to float16; rows stay as they are.
- bfloat16: weights and rows are rounded to bfloat16, a float32 without its lower half.
- int8: weights and rows are rotated, and then rounded to integers, each output's weights by a scale of their own, and
  each row likewise. Sums of integers are exact, in any order.

Rotating is what makes int8 exact enough. A few channels of a transformer are tens of times as large as the others, and
would leave these a few of the 255 steps. A Hadamard matrix H of 1 and -1, with ``H H = B I``, mixes B = 128 channels
evenly: ``x w = (x H) (H w) / B``, and in x H no channel stands out. `rotate` is the product with H, in log2(B)
stages of sums and differences; the weights are rotated, and divided by B, once. The errors of n products, each of two
numbers rounded evenly to within half a step, add up like a random walk: a relative error of
``sqrt(1/3) / 127 * max / rms``, about, in which the rotation takes max / rms from 10 or 20 to 3 or 4.

The sums are in float32, or exact; activation and residual follow in float32, as in `ops.linear`.

References
----------
Ashkboos et al., QuaRot: Outlier-Free 4-Bit Inference in Rotated LLMs, 2024: rotation by Hadamard matrices.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from minisbert.arrays import Floats, Int8Rows, Ints

__all__ = [
    "attention",
    "integers_of_weight",
    "multiply_integers",
    "quantise",
    "rotate",
    "to_bfloat16",
    "to_float16",
]

BLOCK = 128  # channels that a rotation mixes, or the largest power of two that divides their number
TINY = 1e-30  # a row whose largest number is below this is a row of zeros


def to_float16(x: Floats) -> Floats:
    """Round to the nearest float16, ties to even; in float32."""
    return x.astype(np.float16).astype(np.float32)


def to_bfloat16(x: Floats) -> Floats:
    """Round to the nearest bfloat16, ties to even; in float32, the lower 16 bits of which are 0."""
    bits = x.astype(np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + (bits >> 16 & 1)
    rounded = np.where(np.isnan(x), bits, rounded) & np.uint32(0xFFFF0000)
    return np.asarray(rounded.view(np.float32))


def rotate(x: Floats) -> tuple[Floats, int]:
    """Multiply rows (N, K) by a Hadamard matrix, in blocks of B channels; return B too.

    Stages go over channels 1, 2, 4 ... apart, in this order: so all roundings are defined.
    """
    B, h = min(BLOCK, x.shape[1] & -x.shape[1]), 1
    y = x.reshape(-1, B).T.copy()  # a channel of all blocks in a row: whole rows are added
    while h < B:
        pairs = y.reshape(B // (2 * h), 2, h, -1)
        pairs[:, 0], pairs[:, 1] = pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]
        h *= 2
    return np.ascontiguousarray(y.T).reshape(x.shape), B


def quantise(x: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Round rows (N, K) of float32 to integers from -127 to 127, and return their scales (N,): ``x = q * scale``.

    The scale is the largest magnitude through 127. A row with a number that is not finite has the scale NaN.
    """
    largest = np.abs(x).max(axis=1, initial=0)  # (N,)
    is_zero, is_finite = largest < TINY, np.isfinite(largest)
    factors = np.divide(np.float32(127), largest, out=np.zeros_like(largest), where=is_finite & ~is_zero)
    scaled = np.multiply(x, factors[:, np.newaxis], out=np.zeros_like(x), where=is_finite[:, np.newaxis])
    scales = np.where(is_finite, largest / np.float32(127), np.float32(np.nan))
    return np.rint(scaled).astype(np.int8), np.where(is_zero, np.float32(0), scales)


def integers_of_weight(weight: Floats | Int8Rows) -> tuple[NDArray[np.int8], Floats]:
    """Rotate a weight (O, K), in float64, and round it; so that rows that are rotated can be multiplied by it."""
    if isinstance(weight, Int8Rows):  # a checkpoint's, for which all that was done when it was converted
        return weight.numbers, weight.scales
    rotated, B = rotate(weight.astype(np.float64))
    return quantise((rotated / B).astype(np.float32))


def multiply_integers(
    x: NDArray[np.int8], x_scales: Floats, weight: NDArray[np.int8], scales: Floats, bias: Floats
) -> Floats:
    """``x_scales * scales * (x @ weight.T) + bias``: (N, K) -> (N, O), the scales (N,) and (O,).

    The product is exact: float64, which BLAS multiplies fast, holds all integers below 2**53.
    """
    sums: Ints = (x.astype(np.float64) @ weight.T.astype(np.float64)).astype(np.int32)  # (N, O)
    y: Floats = sums.astype(np.float32) * x_scales[:, np.newaxis]
    return y * scales + bias


def attention(qkv: Floats, offsets: Ints, num_heads: int, bias: Floats | None = None) -> Floats:
    """Twin of `ops.attention` whose products are of bfloat16: (N, 3D) -> (N, D).

    Queries, scaled keys, values, and powers are rounded; the sums of the powers are those before. Processors with a
    matrix unit compute this where weights are bfloat16; all others, attention in float32.
    """
    N, D = qkv.shape[0], qkv.shape[1] // 3
    K = D // num_heads
    q, k, v = qkv.reshape(N, 3, num_heads, K).transpose(1, 2, 0, 3)  # (H, N, K) each
    log2_e = 1 / np.log(2)
    q, v, k = to_bfloat16(q), to_bfloat16(v), to_bfloat16(k * np.float32(log2_e / np.sqrt(K)))
    context = np.empty((N, num_heads, K), np.float32)
    for start, stop in pairwise(offsets):
        scores = q[:, start:stop] @ k[:, start:stop].swapaxes(1, 2)  # (H, T, T)
        if bias is not None:
            T, middle = int(stop - start), bias.shape[1] // 2
            distances = np.arange(T) - np.arange(T)[:, np.newaxis]
            scores += bias[:, middle + distances] * np.float32(log2_e)
        if stop > start:
            powers = np.exp2(scores - scores.max(axis=-1, keepdims=True))
            found = to_bfloat16(powers) @ v[:, start:stop] / powers.sum(axis=-1, keepdims=True)  # (H, T, K)
            context[start:stop] = found.transpose(1, 0, 2)
    return context.reshape(N, D)
