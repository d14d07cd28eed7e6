"""What the work queue does: one unit of an operation that threads share, or the whole of a small one.

A unit of `linear` is one panel for one block of rows; one of `attention`, a few heads of one sentence.
"""

from __future__ import annotations

from typing import Any

from minisbert.kernels.operations import GROUPS, OPERATIONS
from minisbert.kernels.runtime.compiler import (
    branch,
    call_of,
    count_panels,
    inlined,
    longs_at,
    row_bytes,
    start_of_panel,
    unit_of,
    word_bytes,
    words,
)
from minisbert.kernels.source import rowwise
from minisbert.kernels.source.amx import ROWS_OF_TILES, attend_by_tiles, multiply_tiles
from minisbert.kernels.source.attention import attend
from minisbert.kernels.source.dot import multiply_dots
from minisbert.kernels.source.gemm import multiply_panel
from minisbert.kernels.source.narrow import CODES, multiply_widened, narrow
from minisbert.kernels.source.packing import pack_panel
from minisbert.kernels.tuning import DOTS, FIRST_TILES, MC, NARROW_NR, NR, TILES


@unit_of("linear")
def linear(
    unit: int,
    slot: int,
    N: int,
    K: int,
    width: int,
    x: int,
    panels: int,
    bias: int,
    residual: int,
    activation: int,
    y: int,
) -> None:
    """Do one panel for one block of rows; blocks are as even as they go."""
    wide, P = count_panels(width)
    blocks = (N + MC - 1) // MC
    i, p = unit // P, unit % P
    row, stop = N * i // blocks, N * (i + 1) // blocks
    panel, x, above = panels + start_of_panel(p, wide) * K * 4, x + row * row_bytes(K), row * row_bytes(width)
    added = residual + above if residual else 0
    multiply_panel(stop - row, K, width, x, panel, bias, added, activation, y + above, p)


GIVEN_BY = "N, K, width, arithmetic, z, panel, scales, bias, residual, activation, y, p"
WAYS = {
    "multiply_widened": multiply_widened,
    "multiply_dots": multiply_dots,
    "multiply_tiles": multiply_tiles,
}
WAY_OF = dict.fromkeys(("float16", "int8", "bfloat16"), "multiply_widened")
WAY_OF |= dict.fromkeys((f"{dtype} tiles" for dtype in TILES), "multiply_tiles")
WAY_OF |= dict.fromkeys(DOTS, "multiply_dots")  # as ARM's tiles are
MULTIPLIES = {CODES[name]: f"{function}({GIVEN_BY})" for name, function in WAY_OF.items()}
multiply_narrow = inlined(branch("multiply_narrow", f"code, {GIVEN_BY}", MULTIPLIES, WAYS))


@unit_of("linear_narrow")
def linear_narrow(
    unit: int,
    slot: int,
    N: int,
    K: int,
    width: int,
    arithmetic: int,
    z: int,
    panels: int,
    scales: int,
    bias: int,
    residual: int,
    activation: int,
    y: int,
) -> None:
    """Do one panel for one block of rows, as `linear` does; z has the rows as `narrow` made them."""
    wide = count_panels(width)[0] if arithmetic < FIRST_TILES else 0
    blocks, P = (N + MC - 1) // MC, wide + (width - wide * NR + NARROW_NR - 1) // NARROW_NR
    i, p = unit // P, unit % P
    even = ROWS_OF_TILES if arithmetic >= FIRST_TILES else 1  # so that blocks have whole micro-tiles
    row, stop = (N * i // blocks + even - 1) // even * even, (N * (i + 1) // blocks + even - 1) // even * even
    row, stop = min(row, N), min(stop, N)
    left = start_of_panel(p, wide)
    z_step, above = row_bytes(words(K, arithmetic) + (arithmetic & 1)), row * row_bytes(width) + left * 4
    added = residual + above if residual else 0
    multiply_narrow(
        arithmetic,
        stop - row,
        K,
        width,
        arithmetic,
        z + row * z_step,
        panels + left * words(K, arithmetic) * word_bytes(arithmetic),
        scales + left * 4,
        bias + left * 4,
        added,
        activation,
        y + above,
        p,
    )


@unit_of("pack")
def pack(unit: int, slot: int, width: int, K: int, weight: int, panels: int) -> None:
    """Pack one panel."""
    pack_panel(width, K, weight, panels, unit)


def of_heads(name: str, attend: Any) -> Any:
    """Make what does one group of heads of one sentence."""

    def attention(
        unit: int,
        slot: int,
        D: int,
        H: int,
        qkv: int,
        offsets: int,
        bias: int,
        span: int,
        context: int,
        room: int,
        room_bytes: int,
    ) -> None:
        s, g = unit // GROUPS, unit % GROUPS
        ends = longs_at(offsets + s * 8)
        first, T = ends[0], ends[1] - ends[0]
        start, stop = g * H // GROUPS, (g + 1) * H // GROUPS
        qkv, context = qkv + first * row_bytes(3 * D), context + first * row_bytes(D)
        attend(D, H, T, qkv, bias, span, context, start, stop, room + slot * room_bytes)

    return unit_of(name)(attention)


SHARERS = {
    "linear": linear,
    "linear_narrow": linear_narrow,
    "pack": pack,
    "attention": of_heads("attention", attend),
}
if "bfloat16" in TILES:
    SHARERS["attention_tiles"] = of_heads("attention_tiles", attend_by_tiles)
UNITS_OF = {OPERATIONS[name].code: f"{name}({call_of(name, 'unit', 'slot')})" for name in SHARERS}
do_unit = inlined(branch("do_unit", "code, unit, slot, a", UNITS_OF, SHARERS))
CALLS = {o.code: f"{name}({call_of(name)})" for name, o in OPERATIONS.items() if not o.is_shared}
do_whole = inlined(branch("do_whole", "code, a, reals", CALLS, vars(rowwise) | {"narrow": narrow}))
