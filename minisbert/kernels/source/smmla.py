"""The multiply by ARM's instruction for tiles of int8, smmla, of processors that have I8MM: Neoverse V1 and N2, say.

A tile is a vector register, seen as 2 x 8 bytes: eight numbers of two rows, or of two columns. One instruction makes
all 2 x 2 sums of eight products each: twice as many products as `dot` with sdot. Here, too, sums of all of K stay in
registers, and the micro-tile is that of float32, MR x NR = 8 x 12. A step of eight k loads 4 tiles of A and 6 of B, for
24 instructions; each of B is let go when all of A has been multiplied by it, so 24 + 4 + 4 of 32 registers do::

                          B: c0 c1     c2 c3     c4 c5   ...
    A: rows 0 and 1    ->   s00 s01   s02 s03   s04 s05
                            s10 s11   s12 s13   s14 s15
       rows 2 and 3    ->     ...

Panels have eight numbers of a column next to each other. Rows are as `narrow` leaves them: those of one are loaded into
half a register, and those of the next into its other half. The last of an odd number is its own neighbour, and what is
made of that is left unread. In the end the two halves of sums go to two rows.

It has not been timed, only emulated. Its loop makes 18 products an instruction, where that of sdot makes 10.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from minisbert.kernels.runtime.compiler import branch, inlined, kernel
from minisbert.kernels.source.microkernel import Sums, loop_over
from minisbert.kernels.source.vector import INT, INTEGERS, LONG, Value, call
from minisbert.kernels.tuning import LANES

BYTES = ir.VectorType(ir.IntType(8), 16)
# Eight numbers, or two sums. As integers LLVM would load some of them into a register of the other kind.
HALF = ir.DoubleType()
HALVES = ir.VectorType(HALF, 2)
SMMLA = "minisbert.aarch64.neon.smmla.v4i32.v16i8"


def _joined(b: Any, first: Value, second: Value) -> Value:
    """Make a register of two halves."""
    x = b.insert_element(ir.Constant(HALVES, ir.Undefined), first, INT(0))
    return b.bitcast(b.insert_element(x, second, INT(1)), BYTES)


def _half(b: Any, x: Value, which: int) -> Value:
    """Return the lower half of a register, or the upper one."""
    return b.extract_element(b.bitcast(x, HALVES), INT(which))


def _make(count: int, vectors: int) -> Any:
    """Make ``C = A B`` for so many pairs of rows, up to row `last`, and vectors of columns; `steps` tiles a pair."""
    pairs, columns = range(count), range(vectors * LANES // 2)
    start = {(i, j): ir.Constant(INTEGERS, [0] * LANES) for i in pairs for j in columns}

    @intrinsic
    def microkernel(
        _typing: Any, last: Any, a: Any, a_step: Any, panel: Any, steps: Any, c: Any, c_step: Any
    ) -> Any:
        def emit(context: Any, b: Any, _signature: Any, arguments: Any) -> Value:
            last, a, a_step, panel, steps, c, c_step = arguments
            rows = [*map(LONG, range(2 * count - 1)), last]

            def at(address: Value, offset: Value, kind: Any) -> Value:
                return b.inttoptr(b.add(address, offset), kind.as_pointer())

            def add_products(k: Value, step: int, sums: Sums) -> Sums:
                offsets = [b.add(b.mul(a_step, row), b.mul(k, LONG(8))) for row in rows]
                halves = [b.load(at(a, offset, HALF), align=4) for offset in offsets]
                a_of_pair = [_joined(b, halves[2 * i], halves[2 * i + 1]) for i in pairs]
                news = {}
                for j in columns:
                    offset = b.add(b.mul(k, LONG(16 * len(columns))), LONG(16 * j))
                    b_of_pair = b.load(at(panel, offset, BYTES), align=4)
                    for i in pairs:
                        news[i, j] = call(b, SMMLA, INTEGERS, sums[i, j], a_of_pair[i], b_of_pair)
                return news

            _, sums = loop_over(b, LONG(0), steps, 1, start, add_products)
            for i in range(2 * count):
                for j in columns[::2]:
                    first, second = (_half(b, sums[i // 2, j + n], i % 2) for n in (0, 1))
                    offset = b.add(b.mul(c_step, LONG(i)), LONG(8 * j))
                    b.store(_joined(b, first, second), at(c, offset, BYTES), align=4)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 7), emit

    return microkernel


def of_any_height(rows: int, vectors: int) -> Any:
    """Compile the micro-kernels of 1 to `rows` rows as one kernel.

    It is called as those of `dot` are; but sums begin with zero, whatever is at d.
    """
    given = "a, a_step, b, steps, c, c_step"
    pairs = {count: _make(count, vectors) for count in range(rows // 2, 0, -1)}
    calls = {count: f"pairs_{count}(height - 1, {given})" for count in pairs}
    scope = {f"pairs_{count}": function for count, function in pairs.items()} | {"__name__": __name__}
    of_pairs = kernel(*["i8"] * 8)(branch(f"smmla_{vectors}", f"pairs, height, {given}", calls, scope))

    @inlined
    def of_rows(height: int, a: int, a_step: int, b: int, words: int, c: int, c_step: int, d: int) -> None:
        of_pairs((height + 1) // 2, height, a, a_step, b, words // 2, c, c_step)

    return of_rows
