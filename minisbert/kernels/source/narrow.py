"""The multiply by weights of fewer bits: `reference.narrow` says what is computed.

On any processor weights are *widened*: KC_NARROW steps of a panel become float32 in the first-level cache, and then the
micro-kernel of float32 multiplies all rows by them. So half the bytes come from memory, or a quarter, and the widening
is paid once for a hundred rows. Integers are exact so, too: a product is at most 127 * 127, and a float32 holds every
integer up to 2**24, which is 1040 of them. Sums of KC_NARROW products are then added as integers.

Processors that multiply narrow numbers do that instead, as any x86 does with int8: see `dot`, `amx` and `smmla`. Sums
are left, float32 or int32: `finish` makes results of them with scales, bias, activation and residual.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minisbert.kernels.operations import ARITHMETICS
from minisbert.kernels.runtime.compiler import (
    branch,
    count_panels,
    floats_at,
    inlined,
    kernel,
    operation,
    per_word,
    row_bytes,
    scratch,
    start_of_panel,
    words,
)
from minisbert.kernels.runtime.compiler import word_bytes as bytes_of_word
from minisbert.kernels.source import conversions
from minisbert.kernels.source.conversions import (
    add_columns,
    add_to_integers,
    copy_columns,
    largest_magnitude,
    rotate_block,
    scale_columns,
    set_integers,
)
from minisbert.kernels.source.gemm import activate, copy, microkernel
from minisbert.kernels.tuning import (
    KC_NARROW,
    LANES,
    MC,
    MR,
    NARROW_MR,
    NARROW_VECTORS,
    NR,
    OFFSET,
    PREFETCH_L1,
    VECTORS,
    WIDEST,
    word_bytes,
)

rotated = scratch(WIDEST)
block, sums, tile = scratch(KC_NARROW * NR), scratch(MC * max(NR, NARROW_VECTORS * LANES)), scratch(MR * NR)

CODES = {name: code for code, name in enumerate(ARITHMETICS)}
INT8, INT8_TILES = CODES["int8"], CODES["int8 tiles"]
BLOCK = 128  # numbers that are rotated together
TINY = np.float32(1e-30)

# --- Rows, made ready to be multiplied --------------------------------------------------------------------

_CONVERSIONS = {
    "bfloat16": "to_bfloat16",
    "int8": "to_integers",
    "int8 pairs": "to_shorts",
    "bfloat16 dot": "to_bfloat16_bits",
    "int8 dot": "to_offset_bytes" if OFFSET else "to_bytes",
    "bfloat16 tiles": "to_bfloat16_bits",
    "int8 tiles": "to_bytes",
}
_CALLS = {
    CODES[name]: f"{function}(source, count, room, factor, target)" for name, function in _CONVERSIONS.items()
}
convert = inlined(
    branch("convert", "arithmetic, source, count, room, factor, target", _CALLS, vars(conversions))
)


@kernel("i8", "i8", "i8")
def rotate(K: int, x: int, y: int) -> None:
    """Multiply a row of K numbers by a Hadamard matrix, block by block."""
    size = min(BLOCK, K & -K)
    if size == BLOCK:
        for k in range(0, K, BLOCK):
            rotate_block(x + k * 4, y + k * 4)
        return
    to, h = floats_at(y), 1
    copy(x, 0, y, 0, 1, K)
    while h < size:
        for k in range(0, K, h):
            if k & h == 0:
                for j in range(k, k + h):
                    first, second = to[j], to[j + h]
                    to[j], to[j + h] = first + second, first - second
        h *= 2


@kernel("i8", "i8", "i8", "i8")
def narrow_row(K: int, arithmetic: int, row: int, to: int) -> None:
    """Round a row to what is multiplied: to bfloat16, or a rotated one to integers, with their scale behind them."""
    count, room, left, factor, scale = words(K, arithmetic), rotated(), K, np.float32(1), np.float32(0)
    numbers = count * per_word(arithmetic)
    if arithmetic & 1:
        if arithmetic == INT8:
            room = to
        rotate(K, row, room)
        row, largest = room, largest_magnitude(room, K)
        scale, factor = largest / np.float32(127), np.float32(127) / largest
        if not largest < np.float32(np.inf):
            scale, left, factor = np.float32(np.nan), 0, np.float32(0)
        elif largest < TINY:
            scale, left, factor = np.float32(0), 0, np.float32(0)
    convert(arithmetic, row, left, numbers, factor, to)  # whole vectors, the last of which may reach beyond
    if arithmetic & 1:
        floats_at(to)[count] = scale


@operation("narrow")
def narrow(N: int, K: int, arithmetic: int, x: int, z: int) -> None:
    """Round rows as `narrow_row` does."""
    z_step = row_bytes(words(K, arithmetic) + (arithmetic & 1))
    for i in range(N):
        narrow_row(K, arithmetic, x + i * row_bytes(K), z + i * z_step)


# --- After the product ------------------------------------------------------------------------------------


@kernel(*["i8"] * 5)
def add_rows(x: int, y: int, step: int, height: int, columns: int) -> None:
    """``y += x`` for rows of so many columns."""
    for i in range(height):
        added, to = floats_at(x + i * step), floats_at(y + i * step)
        for j in range(columns):
            to[j] += added[j]


@kernel(*["i8"] * 13)
def finish(
    arithmetic: int,
    c: int,
    c_step: int,
    height: int,
    columns: int,
    z_scale: int,
    z_step: int,
    scales: int,
    bias: int,
    residual: int,
    activation: int,
    y: int,
    y_step: int,
) -> None:
    """Turn `height` rows of sums at address c into rows of y: scales, bias, activation, residual.

    They are int32 for int8; for all else float32, begin with the bias, and may be in y already. Rows of a residual, if
    there is one, are as far apart as those of y. Sums are overwritten.
    """
    vectors, is_whole = (columns + LANES - 1) // LANES, columns % LANES == 0
    to, to_step = (y, y_step) if is_whole else (c, c_step)  # whole vectors go where they belong at once
    for j in range(0, vectors * LANES * 4, LANES * 4):
        if arithmetic & 1:
            scale_columns(height, c + j, c_step, z_scale, z_step, scales + j, bias + j, to + j, to_step)
        elif to != c:
            copy_columns(height, c + j, c_step, to + j, to_step)
        if is_whole and residual:
            add_columns(height, residual + j, y_step, to + j, to_step)
    if activation:
        activate(to, to_step, height, vectors, activation)
    if not is_whole:
        copy(c, c_step, y, y_step, height, columns)
        if residual:
            add_rows(residual, y, y_step, height, columns)


# --- Widened ----------------------------------------------------------------------------------------------


def _widening(name: str) -> Any:
    """Compile the loop that turns so many numbers, whole vectors, into float32."""
    widen_vector, size = getattr(conversions, f"widen_{name}"), word_bytes(CODES[name])

    def widen(count: int, source: int, target: int) -> None:
        for j in range(0, count, LANES):
            widen_vector(source + j * size, target + j * 4)

    return kernel("i8", "i8", "i8")(widen)


_LOOPS = {f"widen_{name}": _widening(name) for name in ("float16", "bfloat16", "int8")}
_CALLS = {CODES[name]: f"widen_{name}(count, source, target)" for name in ("float16", "bfloat16", "int8")}
widen = inlined(branch("widen", "arithmetic, count, source, target", _CALLS, _LOOPS))


@kernel(*["i8"] * 5)
def add_integers(height: int, columns: int, found: int, to: int, is_first: int) -> None:
    """Add integers that float32 numbers are, rows of so many columns next to each other, to int32."""
    for j in range(0, height * columns * 4, LANES * 4):
        if is_first:
            set_integers(found + j, to + j)
        else:
            add_to_integers(found + j, to + j)


@kernel(*["i8"] * 12)
def multiply_widened(
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
    """Compute the columns of panel p for N rows, MC at most: what is at `scales`, `bias` and `panel` is the panel's."""
    wide, _ = count_panels(width)
    rows, vectors = (MR, VECTORS) if p < wide else (NARROW_MR, NARROW_VECTORS)
    columns, left, size = vectors * LANES, start_of_panel(p, wide), bytes_of_word(arithmetic)
    z_step, y_step, c_step = row_bytes(K + (arithmetic & 1)), row_bytes(width), columns * 4
    tiles, of_block, of_sums, of_tile = (N + rows - 1) // rows, block(), sums(), tile()
    # Sums of a full panel of floats are made where they belong; all others beside it.
    is_direct = arithmetic != INT8 and columns <= width - left
    if is_direct:
        of_sums, c_step = y, y_step
    for k in range(0, K, KC_NARROW):
        steps, row, is_last = min(KC_NARROW, K - k), 0, k + KC_NARROW >= K
        widen(arithmetic, steps * columns, panel + k * columns * size, of_block)
        later, later_step = panel + (k + KC_NARROW) * columns * size, (columns * size + tiles - 1) // tiles
        for t in range(tiles):
            height = (N - row) // (tiles - t)
            a, c, added = z + row * z_step + k * 4, of_sums + row * c_step, 0
            d, d_step = (c, c_step) if k else (bias, 0)
            if arithmetic == INT8:
                d = 0
            elif is_direct and is_last and residual:
                added = residual + row * y_step
            to = of_tile if arithmetic == INT8 else c
            given = (height, a, z_step, of_block, steps, to, c_step, d, d_step, added, y_step, PREFETCH_L1, later,
                     later_step)  # fmt: skip
            microkernel(p < wide, given)
            if arithmetic == INT8:
                add_integers(height, columns, of_tile, c, 0 if k else 1)
            elif is_direct and is_last and activation:
                activate(c, c_step, height, vectors, activation)
            row, later = row + height, later + steps * later_step
    if not is_direct:
        finish(arithmetic, of_sums, c_step, N, min(columns, width - left), z + K * 4, z_step, scales,
               bias if arithmetic == INT8 else 0, residual, activation, y, y_step)  # fmt: skip
