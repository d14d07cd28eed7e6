"""The multiply by instructions that sum two or four products: VNNI, pmaddwd or ARM's sdot for int8, BF16 for bfloat16.

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

Processors of x86 without it have pmaddwd, which sums two products of 16 bits a lane: weights are widened to these as
they are loaded, and another instruction adds the sums to the others. By AVX2 a Xeon (Emerald Rapids) starts three of
these two in a cycle, and two of float32's multiply-adds: on registers alone that came to 1.4 times as many products. By
AVX-512 it starts two of either, and came to 0.9 times: what is won there is not to widen to float32 first.

ARM's tiles have micro-kernels of their own, in `smmla`; the loop over rows is this one.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from minisbert.kernels.runtime.compiler import (
    branch,
    count_panels,
    inlined,
    kernel,
    row_bytes,
    scratch,
    start_of_panel,
    words,
)
from minisbert.kernels.source import smmla
from minisbert.kernels.source.microkernel import Sums, loop_over
from minisbert.kernels.source.narrow import CODES, finish
from minisbert.kernels.source.vector import INT, INTEGERS, LONG, VECTOR, Value, call, splat
from minisbert.kernels.tuning import (
    DOTS,
    LANES,
    MR,
    NARROW_MR,
    NARROW_VECTORS,
    NR,
    OFFSET,
    VECTORS,
    word_bytes,
)

BYTES, SHORTS = ir.VectorType(ir.IntType(8), 4 * LANES), ir.VectorType(ir.IntType(16), 2 * LANES)
_MADD = {16: "x86.avx512.pmaddw.d.512", 8: "x86.avx2.pmadd.wd", 4: "x86.sse2.pmadd.wd"}
# Of each arithmetic its instruction, what the sums are, and what words are to it.
INSTRUCTIONS = {
    "int8 pairs": (_MADD[LANES], INTEGERS, SHORTS),
    "int8 dot": (f"x86.avx512.vpdpbusd.{32 * LANES}", INTEGERS, INTEGERS)
    if OFFSET
    else ("aarch64.neon.sdot.v4i32.v16i8", INTEGERS, BYTES),
    "bfloat16 dot": (f"x86.avx512bf16.dpbf16ps.{32 * LANES}", VECTOR, INTEGERS),
}


def _make(arithmetic: str, rows: int, vectors: int) -> Any:
    """Make ``C = A B + d`` for so many rows, and vectors of columns; d is a row that is added to each row of C."""
    name, kind, words = INSTRUCTIONS[arithmetic]
    is_widened, size = arithmetic == "int8 pairs", word_bytes(CODES[arithmetic]) * LANES  # of a vector of B
    stored = ir.VectorType(ir.IntType(8), size) if is_widened else words
    places = [(i, v) for i in range(rows) for v in range(vectors)]

    @intrinsic
    def microkernel(
        _typing: Any, a: Any, a_step: Any, panel: Any, steps: Any, c: Any, c_step: Any, d: Any
    ) -> Any:
        def emit(context: Any, b: Any, _signature: Any, arguments: Any) -> Value:
            a, a_step, panel, steps, c, c_step, d = arguments

            def at(address: Value, step: Value, times: int, offset: int, kind: Any) -> Value:
                there = b.add(address, b.add(b.mul(step, LONG(times)), LONG(offset)))
                return b.inttoptr(there, kind.as_pointer())

            def column(k: Value, v: int) -> Value:
                x = b.load(at(panel, k, size * vectors, size * v, stored), align=4)
                return b.sext(x, words) if is_widened else x

            def plus_products(total: Value, *factors: Value) -> Value:
                if is_widened:
                    return b.add(total, call(b, f"minisbert.{name}", kind, *factors))
                return call(b, f"minisbert.{name}", kind, total, *factors)

            def add_products(k: Value, step: int, sums: Sums) -> Sums:
                b_of_column, news = [column(k, v) for v in range(vectors)], {}
                for i in range(rows):
                    word = b.load(at(b.add(a, b.mul(k, LONG(4))), a_step, i, 0, INT), align=4)
                    number = b.bitcast(splat(b, word), words)
                    for v in range(vectors):
                        news[i, v] = plus_products(sums[i, v], number, b_of_column[v])
                return news

            start = {(i, v): b.load(at(d, LONG(0), 0, 4 * LANES * v, kind), align=4) for i, v in places}
            _, sums = loop_over(b, LONG(0), steps, 1, start, add_products)
            for (i, v), total in sums.items():
                b.store(total, at(c, c_step, i, 4 * LANES * v, kind), align=4)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 7), emit

    return microkernel


@cache
def _of_any_height(arithmetic: str, rows: int, vectors: int) -> Any:
    """Compile the micro-kernels of 1 to `rows` rows as one kernel."""
    if arithmetic == "int8 tiles":
        return smmla.of_any_height(rows, vectors)
    given = "a, a_step, b, steps, c, c_step, d"
    heights = {h: _make(arithmetic, h, vectors) for h in range(rows, 0, -1)}
    calls = {h: f"height_{h}({given})" for h in heights}
    scope = {f"height_{h}": function for h, function in heights.items()} | {"__name__": __name__}
    dtype, _, how = arithmetic.partition(" ")
    return kernel(*["i8"] * 8)(branch(f"{how}_{dtype}_{vectors}", f"height, {given}", calls, scope))


_GIVEN = "height, a, a_step, b, steps, c, c_step, d"
_SIZES = ((NARROW_MR, NARROW_VECTORS), (MR, VECTORS))
_WAYS = {2 * CODES[name] + i: _of_any_height(name, *size) for name in DOTS for i, size in enumerate(_SIZES)}
_CALLS = {number: f"way_{number}({_GIVEN})" for number in _WAYS}
_SCOPE = {f"way_{number}": function for number, function in _WAYS.items()}
multiply_tile = inlined(branch("multiply_tile", f"way, {_GIVEN}", _CALLS, _SCOPE))
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
    start = scales + start_of_panel(P, wide) * 4 if arithmetic & 1 else bias
    for t in range(tiles):
        height = (N - row) // (tiles - t)
        a, above = z + row * z_step, row * y_step
        multiply_tile(2 * arithmetic + (p < wide), height, a, z_step, panel, count, c, c_step, start)
        added = residual + above if residual else 0
        finish(arithmetic, c, c_step, height, columns, a + count * 4, z_step, scales, bias, added, activation,
               y + above, y_step)  # fmt: skip
        row += height
