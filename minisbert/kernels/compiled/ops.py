"""The operations of `minisbert.kernels.reference.ops`, compiled: the same names and meanings, for float32.

Everything is computed row by row or sentence by sentence, in an order that depends on that row or sentence alone.
So a sentence's vector is the same, bit for bit, in any company.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from minisbert.arrays import Floats, Ints
from minisbert.kernels import layout
from minisbert.kernels.compiled import packing
from minisbert.kernels.compiled.packing import Packed
from minisbert.kernels.compiled.plan import NO_PADDING, PER_SENTENCE, PER_TOKEN, Program
from minisbert.kernels.layout import address
from minisbert.kernels.reference import ops as reference
from minisbert.kernels.runtime import helpers, load
from minisbert.kernels.runtime.helpers import ATTEND, GROUPS, JOB, MULTIPLY
from minisbert.kernels.tuning import BLOCK, attention_room

NAME = "numba"


def prepare() -> None:
    """Get the kernels ready, which otherwise happens at the first use; weights can be packed in the meantime."""
    load.kernels()


def threads(count: int) -> AbstractContextManager[None]:
    """Let each operation of the calling thread use so many threads, for as long as nobody else has the helpers."""
    return helpers.helpers(count - 1)


def _rows(x: Floats) -> Floats:
    """Return the array as the kernels read it, which as a rule it is: they can't check it, and would read elsewhere."""
    if layout.is_laid_out(x):
        return x
    y = layout.rows(*x.shape)
    y[:] = x
    return y


def pack(weight: Floats, bias: Floats, dtype: DTypeLike) -> Packed:
    """Twin of `reference.pack`: the weights in the panels of `minisbert.kernels.compiled.packing`."""
    return packing.pack(weight, bias)


def linear(x: Floats, dense: Packed, activation: str | None = None, residual: Floats | None = None) -> Floats:
    """Twin of `reference.linear`."""
    N, K = len(x), dense.K
    if x.shape != (N, K) or (residual is not None and residual.shape != (N, dense.width)):
        raise ValueError(f"x of shape {x.shape}, or a residual, does not fit weights ({dense.width}, {K})")
    if activation is not None and residual is not None:  # a tile would add the residual before the activation
        y = linear(x, dense, activation)
        y += residual
        return y
    if activation not in packing.ACTIVATIONS:
        y = linear(x, dense)
        function = reference.ACTIVATIONS[activation or ""]
        for i in range(len(y)):  # by row: NumPy may treat the last elements of a block another way
            function(y[i : i + 1])
        return y
    x, y = _rows(x), layout.rows(N, dense.width)
    added = 0 if residual is None else address(residual := _rows(residual))
    places = address(x), dense.address, dense.bias_address, added
    code = packing.ACTIVATIONS[activation]
    helpers.post(MULTIPLY, dense.P * -(-N // BLOCK), N, K, dense.width, *places, code, address(y))
    return y


def positions(ids: Ints, offsets: Ints, padding: int | None) -> Ints:
    """Twin of `reference.positions`."""
    numbers = np.empty(len(ids), np.int32)
    ids, offsets = np.ascontiguousarray(ids, np.int32), np.ascontiguousarray(offsets, np.int64)
    places = address(ids), address(offsets), NO_PADDING if padding is None else padding, address(numbers)
    load.kernels().positions(len(offsets) - 1, *places)
    return numbers


def embed(
    ids: Ints, positions: Ints, types: Ints, word: Floats, position: Floats, token_type: Floats | None
) -> Floats:
    """Twin of `reference.embed`."""
    N, D = len(ids), word.shape[1]
    if not layout.is_table(word):
        word, ids = _converted(word, ids)
    ids, positions, types = (np.ascontiguousarray(numbers, np.int32) for numbers in (ids, positions, types))
    position, y = np.ascontiguousarray(position, np.float32), layout.rows(N, D)
    if token_type is not None:
        token_type = np.ascontiguousarray(token_type, np.float32)
    tables = address(word), address(position), 0 if token_type is None else address(token_type)
    load.kernels().embed(N, D, address(ids), address(positions), address(types), *tables, address(y))
    return y


def _converted(word: Floats, ids: Ints) -> tuple[Floats, Ints]:
    """Return a float32 table of the rows that are needed of one of another dtype, and the ids in that."""
    return word[ids].astype(np.float32), np.arange(len(ids), dtype=np.int32)


def layer_norm(x: Floats, weight: Floats, bias: Floats, eps: float) -> Floats:
    """Twin of `reference.layer_norm`."""
    N, D = x.shape
    x, y = _rows(x), layout.rows(N, D)
    load.kernels().layer_norm(N, D, address(x), address(weight), address(bias), eps, address(y))
    return y


def attention(qkv: Floats, offsets: Ints, num_heads: int, bias: Floats | None = None) -> Floats:
    """Twin of `reference.attention`."""
    N, D, S = len(qkv), qkv.shape[1] // 3, len(offsets) - 1
    qkv, offsets, context = _rows(qkv), np.ascontiguousarray(offsets, np.int64), layout.rows(N, D)
    room = attention_room(N, D // num_heads)  # no sentence has more than all tokens
    rooms = layout.room_for(room * helpers.threads())
    table, span = (0, 0) if bias is None else (address(bias), bias.shape[1])
    arrays = (address(qkv), address(offsets), table, span, address(context))
    helpers.post(ATTEND, S * GROUPS, D, num_heads, *arrays, address(rooms), room * 4)
    return context


def pool(x: Floats, offsets: Ints, mode: str, skip: int = 0) -> Floats:
    """Twin of `reference.pool`, which goes sentence by sentence; the mean of whole sentences is compiled."""
    if mode != "mean" or skip:
        return reference.pool(x, offsets, mode, skip)
    S, D = len(offsets) - 1, x.shape[1]
    x, offsets = _rows(x), np.ascontiguousarray(offsets, np.int64)
    means = layout.rows(S, D)
    load.kernels().mean_pool(S, D, address(x), address(offsets), address(means))
    return means


@dataclass(frozen=True)
class Ready:
    """Twin of `reference.Ready`: all operations of a function in one call."""

    program: Program

    def __call__(self, ids: Ints, types: Ints, offsets: Ints) -> Floats:
        """Return the result for a micro-batch."""
        program, N, S = self.program, len(ids), len(offsets) - 1
        ids, types = np.ascontiguousarray(ids, np.int32), np.ascontiguousarray(types, np.int32)
        offsets = np.ascontiguousarray(offsets, np.int64)
        numbers = 0, N, -(-N // BLOCK), S, *map(address, (ids, types, offsets))
        room = attention_room(N, program.head_width)  # for each thread
        y = layout.rows(N if program.y.of == PER_TOKEN else S, program.y.width)
        sizes = (
            N * program.arena_width[PER_TOKEN],
            S * program.arena_width[PER_SENTENCE],
            room * helpers.threads(),
            2 * len(program.table) * JOB,
        )
        arena = layout.room_for(sum(sizes))
        *rooms, jobs = (address(arena) + 4 * n for n in accumulate((0, *sizes[:-1])))
        others = () if program.other_word is None else _converted(program.other_word, ids)
        places = address(y), *rooms, 4 * room, *map(address, others)
        helpers.run(program.table, (*numbers, *places), jobs)
        return y


def program(function: Callable[..., Any]) -> Ready:
    """Twin of `reference.program`."""
    return Ready(Program(function))


# Each component by itself, from exact products and sums: nothing that the number of rows could change.
mix, prelu = reference.mix, reference.prelu


def normalize(x: Floats) -> Floats:
    """Twin of `reference.normalize`."""
    S, D = x.shape
    x, y = _rows(x), layout.rows(S, D)
    load.kernels().normalize(S, D, address(x), address(y))
    return y
