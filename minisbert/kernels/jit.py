"""The operations of `minisbert.kernels.reference`, compiled: the same names and meanings, for float32.

Everything is computed row by row or sentence by sentence, in an order that depends on that row or sentence alone.
So a sentence's vector is the same, bit for bit, in any company.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from minisbert.kernels import Floats, Ints, packing, reference
from minisbert.kernels.packing import Packed

NAME = "numba"

_NONE = np.empty((0, 0), np.float32)


@cache
def _compiled() -> tuple[Any, Any]:
    """Import what is compiled, and Numba with it: a good part of a second."""
    from minisbert.kernels import rows, team

    return rows, team


def prepare() -> None:
    """Get the kernels ready, which otherwise happens at the first use; weights can be packed in the meantime."""
    _compiled()


def threads(count: int) -> AbstractContextManager[None]:
    """Let each operation of the calling thread use so many threads, for as long as nobody else has the helpers."""
    _, team = _compiled()
    helped: AbstractContextManager[None] = team.helpers(count - 1)
    return helped


def pack(weight: Floats, bias: Floats, dtype: DTypeLike) -> Packed:
    """Twin of `reference.pack`: the weights in the panels of `minisbert.kernels.packing`."""
    return packing.pack(weight, bias)


def linear(x: Floats, dense: Packed, activation: str | None = None, residual: Floats | None = None) -> Floats:
    """Twin of `reference.linear`; no layer has both an activation and a residual."""
    if activation not in packing.ACTIVATIONS:
        y = linear(x, dense)
        function = reference.ACTIVATIONS[activation or ""]
        for i in range(len(y)):  # by row: NumPy may treat the last elements of a block another way
            function(y[i : i + 1])
        return y
    y = np.empty((len(x), dense.width), np.float32)
    code = packing.ACTIVATIONS[activation]
    added = _NONE if residual is None else residual
    _, team = _compiled()
    team.linear(x, dense.panels, dense.bias, added, code, y)
    return y


def embed(
    ids: Ints, positions: Ints, types: Ints, word: Floats, position: Floats, token_type: Floats | None
) -> Floats:
    """Twin of `reference.embed`, and as simple: it only moves rows."""
    x = word[ids].astype(np.float32, copy=False)  # (N, D)
    if token_type is not None:
        x += token_type[types]
    x += position[positions]
    return x


def layer_norm(x: Floats, weight: Floats, bias: Floats, eps: float) -> Floats:
    """Twin of `reference.layer_norm`."""
    y = np.empty_like(x)
    rows, _ = _compiled()
    rows.layer_norm(x, weight, bias, eps, y)
    return y


def attention(qkv: Floats, offsets: Ints, num_heads: int, bias: Floats | None = None) -> Floats:
    """Twin of `reference.attention`."""
    context = np.empty((len(qkv), qkv.shape[1] // 3), np.float32)
    _, team = _compiled()
    team.attention(qkv, offsets, num_heads, _NONE if bias is None else bias, context)
    return context


def pool(x: Floats, offsets: Ints, mode: str, skip: int = 0) -> Floats:
    """Twin of `reference.pool`, which goes sentence by sentence; the mean of whole sentences is compiled."""
    if mode != "mean" or skip:
        return reference.pool(x, offsets, mode, skip)
    means = np.empty((len(offsets) - 1, x.shape[1]), np.float32)
    rows, _ = _compiled()
    rows.mean_pool(x, offsets, means)
    return means


# Each component by itself, from exact products and sums: nothing that the number of rows could change.
mix, prelu = reference.mix, reference.prelu


def normalize(x: Floats) -> Floats:
    """Twin of `reference.normalize`, one row at a time: NumPy may sum a block in another order than a row."""
    norms = [np.sqrt(np.square(row).sum()) for row in x]
    return x / np.maximum(np.array(norms, np.float32).reshape(len(x), 1), np.float32(1e-12))
