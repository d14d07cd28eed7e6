"""The multiply by instructions that sum two or four products: VNNI or ARM's sdot for int8, BF16 for bfloat16.

The micro-kernel is that of float32, with one instruction exchanged: where `microkernel` has a fused multiply-add of a
broadcast number of A and a vector of B, here a broadcast word of A, two bfloat16 or four int8, meets a vector of words
of B, and each lane adds the products of its own to its sum. So one instruction does the work of two, or of four.

Why four bytes are four times as fast: a register has 64 bytes, whatever they mean, and a core starts as many multiplies
in a cycle, whatever they multiply. 16 float32 make 16 products an instruction, 64 int8 make 64, and their sums by four
take the 32 bits each that float32's did: the micro-tile is the same one. All that comes from memory and caches is a
quarter, too. What does not shrink is around it: rounding the rows (`narrow`), making float32 of the sums (`finish`),
norms and attention. So a whole model is two to three times as fast, not four. What is lost is told, with its formula,
in `reference.narrow`.

The sums of all of K stay in registers: integers are exact in any order, and those of bfloat16 are of half as many terms
as float32's, whose products are a thousand times as inexact as a rounding of the sum.

On x86 the instruction for int8 takes unsigned numbers on one side. These are rows, as q + OFFSET; so 128 times the sum
of its weights is too much in each column, and sums begin with minus that.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from minisbert.kernels.runtime.compiler import (
    branch,
    count_panels,
    kernel,
    row_bytes,
    scratch,
    start_of_panel,
    words,
)
from minisbert.kernels.source.microkernel import Sums, loop_over
from minisbert.kernels.source.narrow import INT8_DOT, finish
from minisbert.kernels.source.vector import INT, INTEGERS, LONG, VECTOR, Value, call, splat
from minisbert.kernels.tuning import DOTS, LANES, MR, NARROW_MR, NARROW_VECTORS, NR, OFFSET, VECTORS

BYTES = ir.VectorType(ir.IntType(8), 4 * LANES)
# Of each dtype its instruction, what the sums are, and what words are to it.
INSTRUCTIONS = {
    "int8": (f"x86.avx512.vpdpbusd.{32 * LANES}", INTEGERS, INTEGERS)
    if OFFSET
    else ("aarch64.neon.sdot.v4i32.v16i8", INTEGERS, BYTES),
    "bfloat16": (f"x86.avx512bf16.dpbf16ps.{32 * LANES}", VECTOR, INTEGERS),
}


def _make(dtype: str, rows: int, vectors: int) -> Any:
    """Make ``C = A B + d`` for so many rows, and vectors of columns; d is a row that is added to each row of C."""
    name, kind, words = INSTRUCTIONS[dtype]
    places = [(i, v) for i in range(rows) for v in range(vectors)]

    @intrinsic
    def microkernel(
        _typing: Any, a: Any, a_step: Any, panel: Any, steps: Any, c: Any, c_step: Any, d: Any
    ) -> Any:
        def emit(context: Any, b: Any, _signature: Any, arguments: Any) -> Value:
            a, a_step, panel, steps, c, c_step, d = arguments

            def at(address: Value, step: Value, times: int, v: int, kind: Any) -> Value:
                offset = b.add(b.mul(step, LONG(times)), LONG(4 * LANES * v))
                return b.inttoptr(b.add(address, offset), kind.as_pointer())

            def add_products(k: Value, step: int, sums: Sums) -> Sums:
                here = b.add(panel, b.mul(k, LONG(4 * LANES * vectors)))
                b_of_column = [b.load(at(here, LONG(0), 0, v, words), align=4) for v in range(vectors)]
                news = {}
                for i in range(rows):
                    word = b.add(b.add(a, b.mul(a_step, LONG(i))), b.mul(k, LONG(4)))
                    number = b.bitcast(splat(b, b.load(b.inttoptr(word, INT.as_pointer()), align=4)), words)
                    for v in range(vectors):
                        news[i, v] = call(b, f"minisbert.{name}", kind, sums[i, v], number, b_of_column[v])
                return news

            start = {(i, v): b.load(at(d, LONG(0), 0, v, kind), align=4) for i, v in places}
            _, sums = loop_over(b, LONG(0), steps, 1, start, add_products)
            for (i, v), total in sums.items():
                b.store(total, at(c, c_step, i, v, kind), align=4)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 7), emit

    return microkernel


def _of_any_height(dtype: str, rows: int, vectors: int) -> Any:
    """Compile the micro-kernels of 1 to `rows` rows as one kernel."""
    given = "a, a_step, b, steps, c, c_step, d"
    heights = {h: _make(dtype, h, vectors) for h in range(rows, 0, -1)}
    calls = {h: f"height_{h}({given})" for h in heights}
    scope = {f"height_{h}": function for h, function in heights.items()}
    return kernel(*["i8"] * 8)(branch(f"dot_{dtype}_{vectors}", f"height, {given}", calls, scope))


wide_int8, narrow_int8 = wide_bfloat16, narrow_bfloat16 = (
    _of_any_height("int8", MR, VECTORS),
    _of_any_height("int8", NARROW_MR, NARROW_VECTORS),
)
if "bfloat16" in DOTS:
    wide_bfloat16 = _of_any_height("bfloat16", MR, VECTORS)
    narrow_bfloat16 = _of_any_height("bfloat16", NARROW_MR, NARROW_VECTORS)
tile = scratch(MR * NR)


@kernel(*["i8"] * 12)
def multiply_dots(
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
    """Compute the columns of panel p for N rows; the sums of int8 begin with what stands behind all scales."""
    wide, P = count_panels(width)
    rows, vectors = (MR, VECTORS) if p < wide else (NARROW_MR, NARROW_VECTORS)
    count, left, c, c_step = words(K, arithmetic), start_of_panel(p, wide), tile(), vectors * LANES * 4
    z_step, y_step = row_bytes(count + (arithmetic & 1)), row_bytes(width)
    columns, tiles, row = min(vectors * LANES, width - left), (N + rows - 1) // rows, 0
    starts = scales + start_of_panel(P, wide) * 4
    for t in range(tiles):
        height = (N - row) // (tiles - t)
        a, above = z + row * z_step, row * y_step
        if arithmetic == INT8_DOT:
            if p < wide:
                wide_int8(height, a, z_step, panel, count, c, c_step, starts)
            else:
                narrow_int8(height, a, z_step, panel, count, c, c_step, starts)
        elif p < wide:
            wide_bfloat16(height, a, z_step, panel, count, c, c_step, bias)
        else:
            narrow_bfloat16(height, a, z_step, panel, count, c, c_step, bias)
        added = residual + above if residual else 0
        finish(arithmetic, c, c_step, height, columns, a + count * 4, z_step, scales,
               bias if arithmetic == INT8_DOT else 0, added, activation, y + above, y_step)  # fmt: skip
        row += height
