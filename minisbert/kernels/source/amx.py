"""The multiply by the matrix unit of Intel's server processors, AMX: sums of products of whole tiles.

A tile is a register of 16 rows of 64 bytes. One instruction multiplies a tile of A, 16 rows of 32 bfloat16 or 64 int8,
by one of B, whose columns are words of two or four numbers, and adds the products to a tile of 16 x 16 sums: 8,192
multiply-adds of bfloat16 in 16 cycles, where vectors of float32 make 512.

Loading a tile takes 8 cycles, so each that is loaded has to be used twice: a micro-tile is 2 x 2 tiles of sums, 32 rows
and 32 columns, and a step loads 2 tiles of A and 2 of B for 4 products. With these all 8 tiles are in use::

                 6    7            0, 1, 2, 3   sums
            4    0    1            4, 5         of A
            5    2    3            6, 7         of B

The system has to be asked for leave before a process uses tiles (`compiled.arithmetic.has_tiles`), and each thread says
how large they are before it does: what is left of the rows is done by tiles of fewer rows. When tiles are released, a
thread that is put aside takes the system 8 kB less to save.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minisbert.kernels.runtime.compiler import kernel, longs_at, row_bytes, scratch, words
from minisbert.kernels.source.attention import add_bias, scale_rows
from minisbert.kernels.source.conversions import pair_bfloat16, to_bfloat16_bits
from minisbert.kernels.source.gemm import zero
from minisbert.kernels.source.narrow import CODES, INT8_TILES, finish
from minisbert.kernels.source.reductions import softmax_powers
from minisbert.kernels.source.vector import (
    LOG2_E,
    LONG,
    Value,
    call,
    square_root,
    transpose_words,
)
from minisbert.kernels.tuning import NARROW_NR, SOFTMAX_ROWS, TILE

BFLOAT16_TILES = CODES["bfloat16 tiles"]

BYTE, NOTHING = ir.IntType(8), ir.VoidType()
POINTER = BYTE.as_pointer()
ROW = 64  # bytes of a tile
B_STEP = NARROW_NR * 4  # bytes between rows of B, and of the sums


def _do(b: Any, name: str, *arguments: Value) -> None:
    """Emit one of AMX's instructions."""
    call(b, f"minisbert.x86.{name}", NOTHING, *arguments)


def _number(tile: int) -> Value:
    return ir.Constant(BYTE, tile)


def _make_microkernel(dot: str, row_tiles: int) -> Any:
    """Make ``C = A B + d`` for one or two tiles of rows and two of columns: `steps` tiles of A in each row of tiles.

    d is a row that is added to each row of C; at address 0, none is.
    """

    @intrinsic
    def microkernel(
        _typing: Any, a: Any, a_step: Any, panel: Any, steps: Any, c: Any, c_step: Any, d: Any
    ) -> Any:
        def emit(context: Any, b: Any, _signature: Any, arguments: Any) -> Value:
            a, a_step, panel, steps, c, c_step, d = arguments
            rows, columns = range(row_tiles), range(2)

            def load(tile: int, address: Value, step: Value) -> None:
                _do(b, "tileloadd64", _number(tile), b.inttoptr(address, POINTER), step)

            with b.if_else(b.icmp_signed("!=", d, LONG(0))) as (from_d, from_zeros):
                with from_d:  # every row of a tile is the same one
                    for i in rows:
                        for j in columns:
                            load(2 * i + j, b.add(d, LONG(ROW * j)), LONG(0))
                with from_zeros:
                    for i in rows:
                        for j in columns:
                            _do(b, "tilezero", _number(2 * i + j))
            with cgutils.for_range(b, steps) as loop:
                for i in rows:
                    offset = b.add(b.mul(loop.index, LONG(ROW)), b.mul(a_step, LONG(TILE * i)))
                    load(4 + i, b.add(a, offset), a_step)
                for j in columns:
                    offset = b.add(b.mul(loop.index, LONG(TILE * B_STEP)), LONG(ROW * j))
                    load(6 + j, b.add(panel, offset), LONG(B_STEP))
                    for i in rows:
                        _do(b, dot, _number(2 * i + j), _number(4 + i), _number(6 + j))
            for i in rows:
                for j in columns:
                    to = b.add(c, b.add(b.mul(c_step, LONG(TILE * i)), LONG(ROW * j)))
                    _do(b, "tilestored64", _number(2 * i + j), b.inttoptr(to, POINTER), c_step)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 7), emit

    return microkernel


two_bfloat16, one_bfloat16 = _make_microkernel("tdpbf16ps", 2), _make_microkernel("tdpbf16ps", 1)
two_int8, one_int8 = _make_microkernel("tdpbssd", 2), _make_microkernel("tdpbssd", 1)


@intrinsic
def configure(_typing: Any, address: Any) -> Any:
    """Set the sizes of all tiles."""

    def emit(context: Any, b: Any, _signature: Any, arguments: Any) -> Value:
        _do(b, "ldtilecfg", b.inttoptr(arguments[0], POINTER))
        return context.get_dummy_value()

    return types.void(types.intp), emit


@intrinsic
def release(_typing: Any) -> Any:
    """Let go of all tiles."""

    def emit(context: Any, b: Any, _signature: Any, _arguments: Any) -> Value:
        _do(b, "tilerelease")
        return context.get_dummy_value()

    return types.void(), emit


ROWS_OF_TILES = 2 * TILE  # of a micro-tile
settings, sums = scratch(16), scratch(ROWS_OF_TILES * NARROW_NR)


@kernel("i8", "i8")
def set_heights(at: int, height: int) -> None:
    """Write down sizes of tiles: 64 bytes a row; of the second tile of A, and its sums, the rows that are left."""
    numbers = longs_at(at)
    for i in range(8):
        numbers[i] = 0
    numbers[0] = 1  # the only palette
    numbers[2] = numbers[3] = 0x0040004000400040
    first, second = min(height, TILE), max(1, height - TILE)
    # Rows of tiles 0 to 7: sums 0 and 1 are of A's tile 4, sums 2 and 3 of tile 5.
    numbers[6] = (
        first
        | first << 8
        | second << 16
        | second << 24
        | first << 32
        | second << 40
        | TILE << 48
        | TILE << 56
    )
    configure(at)


@kernel(*["i8"] * 9)
def multiply_block(
    arithmetic: int, height: int, a: int, a_step: int, panel: int, steps: int, c: int, c_step: int, d: int
) -> None:
    """Multiply up to 32 rows by a panel, in tiles that are set for so many."""
    given = a, a_step, panel, steps, c, c_step, d
    if arithmetic == INT8_TILES:
        if height > TILE:
            two_int8(*given)
        else:
            one_int8(*given)
    elif height > TILE:
        two_bfloat16(*given)
    else:
        one_bfloat16(*given)


@kernel(*["i8"] * 12)
def multiply_tiles(
    N: int,
    K: int,
    width: int,
    arithmetic: int,
    z: int,
    panel: int,
    scales: int,
    bias: int,
    residual: int,
    activation: int,
    y: int,
    p: int,
) -> None:
    """Compute the columns of panel p for N rows: floats in place, integers, and the last columns, beside it."""
    count, of_sums, at = words(K, arithmetic), sums(), settings()
    z_step, step, columns = row_bytes(count + (arithmetic & 1)), row_bytes(width), width - p * NARROW_NR
    is_direct, row, before = arithmetic != INT8_TILES and columns >= NARROW_NR, 0, 0
    while row < N:
        height, above = min(ROWS_OF_TILES, N - row), row * step
        if height != before:
            set_heights(at, height)
        a, added = z + row * z_step, residual + above if residual else 0
        c, c_step = (y + above, step) if is_direct else (of_sums, B_STEP)
        d = 0 if arithmetic == INT8_TILES else bias
        multiply_block(arithmetic, height, a, z_step, panel, count // TILE, c, c_step, d)
        finish(arithmetic, c, c_step, height, min(NARROW_NR, columns), a + count * 4, z_step, scales, bias, added,
               activation, y + above, step)  # fmt: skip
        row, before = row + height, height
    release()


# --- Attention --------------------------------------------------------------------------------------------

nothing = scratch(TILE)


@kernel("i8", "i8", "i8", "i8", "i8", "f8", "i8")
def to_rows(height: int, K: int, count: int, x: int, step: int, factor: float, z: int) -> None:
    """Round rows of K floats, times a factor, to rows of `count` words of bfloat16, zeros behind them."""
    for i in range(height):
        to_bfloat16_bits(x + i * step, K, 2 * count, np.float32(factor), z + i * count * 4)


@kernel(*["i8"] * 10)
def attend_by_tiles(
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
    """Do what `attention.attend` does, with both products of bfloat16; powers are rounded, and their sums are not."""
    K, step = D // num_heads, row_bytes(3 * D)
    of_head, keys_wide = words(K, BFLOAT16_TILES), (T + NARROW_NR - 1) // NARROW_NR * NARROW_NR
    columns = (K + NARROW_NR - 1) // NARROW_NR * NARROW_NR
    keys = room
    values = keys + keys_wide * of_head * 4
    queries = values + keys_wide // 2 * columns * 4
    scores, s_step = queries + ROWS_OF_TILES * of_head * 4, keys_wide * 4
    powers, p_step = scores + ROWS_OF_TILES * s_step, keys_wide * 2
    found, inverses = (
        powers + ROWS_OF_TILES * p_step,
        powers + ROWS_OF_TILES * p_step + ROWS_OF_TILES * columns * 4,
    )
    before, at, zeros, scale = 0, settings(), nothing(), np.float32(LOG2_E / square_root(np.float64(K)))
    zero(zeros, TILE)
    for h in range(start, stop):
        q = qkv + h * K * 4
        for first in range(
            0, keys_wide, TILE
        ):  # `queries` is free: rows of words, and then their transposition
            count = max(1, min(TILE, T - first))
            to_rows(count, K, of_head, q + D * 4 + min(first, T - 1) * step, step, scale, queries)
            panel = keys + first // NARROW_NR * NARROW_NR * of_head * 4 + first % NARROW_NR * 4
            for j in range(0, of_head, TILE):
                transpose_words(
                    queries + j * 4, of_head * 4, count, panel + j * B_STEP, B_STEP, np.float32(1)
                )
        for t in range(0, keys_wide, 2):
            for j in range(0, columns, TILE):
                panel = values + j // NARROW_NR * NARROW_NR * keys_wide // 2 * 4 + j % NARROW_NR * 4
                v = q + 2 * D * 4 + t * step + j * 4
                other = v + step if t + 1 < T else zeros
                pair_bfloat16(
                    v if t < T and j < K else zeros, other if j < K else zeros, panel + t // 2 * B_STEP
                )
        for first in range(0, T, ROWS_OF_TILES):
            count = min(ROWS_OF_TILES, T - first)
            if count != before:
                set_heights(at, count)
                before = count
            to_rows(count, K, of_head, q + first * step, step, np.float32(1), queries)
            for p in range(0, keys_wide, NARROW_NR):
                multiply_block(
                    BFLOAT16_TILES,
                    count,
                    queries,
                    of_head * 4,
                    keys + p * of_head * 4,
                    of_head // TILE,
                    scores + p * 4,
                    s_step,
                    0,
                )
            if span > 0:
                add_bias(count, T, bias + (h * span + span // 2 - first) * 4, scores, s_step)
            for i in range(0, count, SOFTMAX_ROWS):
                softmax_powers(scores + i * s_step, s_step, T, inverses + i * 4)
            to_rows(count, T, keys_wide // 2, scores, s_step, np.float32(1), powers)
            for j in range(0, columns, NARROW_NR):
                multiply_block(
                    BFLOAT16_TILES,
                    count,
                    powers,
                    p_step,
                    values + j * keys_wide // 2 * 4,
                    keys_wide // NARROW_NR,
                    found + j * 4,
                    columns * 4,
                    0,
                )
            place = context + first * row_bytes(D) + h * K * 4
            scale_rows(count, K, found, columns * 4, inverses, place, row_bytes(D))
    release()
