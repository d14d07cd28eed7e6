"""Reductions along a row: softmax's powers and their sums, sums of numbers and of squares.

Each is made in one order of additions, that of SUM_LANES lanes, whatever the length of a register: so that all
processors give the same bits. Like `vector`, these functions emit LLVM instructions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minisbert.kernels.source.vector import (
    FLOAT,
    INT,
    LONG,
    SUMS,
    Value,
    at_least,
    exp2,
    fma,
    joined,
    pieces,
    splat,
)
from minisbert.kernels.tuning import SOFTMAX_ROWS, SUM_LANES


@intrinsic
def softmax_powers(_typing: Any, address: Any, step: Any, count: Any, inverses: Any) -> Any:
    """``2**(x - max(x))`` in place, for SOFTMAX_ROWS rows of `count` numbers; writes 1 / their sums to `inverses`.

    This is softmax but for what `attention` does with its inputs and outputs: `pack_keys` scales by log2(e), and
    `scale_rows` divides by the sums.

    Within a row each step waits for the one before; side by side, as one long vector, the rows fill the time. They must
    have room for whole vectors; what follows their numbers is overwritten: by -inf, which no maximum is, and then by
    some 1e-38, which no sum of 1 or more changes by, so the loops need not know where the numbers end. NaN is lost in
    the maximum, and comes back in the sum. The sum is one number for each lane until the end, and so the same for the
    same row anywhere.
    """

    def emit(context: Any, b: Any, _signature: Any, arguments: Any) -> Value:
        address, step, count, inverses = arguments
        rows = [b.add(address, b.mul(step, LONG(i))) for i in range(SOFTMAX_ROWS)]
        vectors = b.sdiv(b.add(count, LONG(SUM_LANES - 1)), LONG(SUM_LANES))

        def places(vector: Value) -> list[Value]:
            return [vector_at(b, row, vector) for row in rows]

        def each(start: Value, update: Callable[[Value, list[Value], Value], Value]) -> list[Value]:
            """Go through the vectors of the rows, with one for each row that is updated."""
            kept = cgutils.alloca_once_value(b, joined(b, [start] * SOFTMAX_ROWS))
            with cgutils.for_range(b, vectors) as loop:
                here = places(loop.index)
                x = joined(b, [b.load(place, align=4) for place in here])
                b.store(update(x, here, b.load(kept)), kept)
            return pieces(b, b.load(kept))

        def larger(x: Value, y: Value) -> Value:
            return b.select(b.fcmp_ordered(">", x, y), x, y)

        least, last = sums_of(float("-inf")), b.sub(vectors, LONG(1))
        counts = first_lanes(b, b.sub(count, b.mul(last, LONG(SUM_LANES))))
        for place in places(last):
            b.store(b.select(counts, b.load(place, align=4), least), place, align=4)
        most = each(least, lambda x, _, most: larger(x, most))
        most = joined(b, [across(b, x, larger) for x in most])

        def add(x: Value, here: list[Value], total: Value) -> Value:
            y = exp2(b, at_least(b, b.fsub(x, most), -126.0))
            for piece, place in zip(pieces(b, y), here, strict=True):
                b.store(piece, place, align=4)
            return b.fadd(total, y)

        for i, total in enumerate(each(sums_of(0.0), add)):
            inverse = b.fdiv(ir.Constant(FLOAT, 1.0), b.extract_element(across(b, total, b.fadd), INT(0)))
            b.store(inverse, b.inttoptr(b.add(inverses, LONG(4 * i)), FLOAT.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp, types.intp), emit


@intrinsic
def sum_of(_typing: Any, address: Any, count: Any) -> Any:
    """Sum `count` numbers, in the one order of `_sum`; behind them there must be room for a whole vector."""

    def emit(_context: Any, b: Any, _signature: Any, arguments: Any) -> Value:
        address, count = arguments
        return _sum(b, address, count, lambda x, t, counts: b.fadd(t, b.select(counts, x, sums_of(0.0))))

    return types.float32(types.intp, types.intp), emit


@intrinsic
def sum_of_squares(_typing: Any, address: Any, count: Any, mean: Any) -> Any:
    """Sum ``(x - mean)**2``, as `sum_of` does."""

    def emit(_context: Any, b: Any, _signature: Any, arguments: Any) -> Value:
        address, count, mean = arguments
        means = splat(b, mean, SUM_LANES)

        def add(x: Value, total: Value, counts: Value) -> Value:
            deviation = b.select(counts, b.fsub(x, means), sums_of(0.0))
            return fma(b, deviation, deviation, total)

        return _sum(b, address, count, add)

    return types.float32(types.intp, types.intp, types.float32), emit


def _sum(b: Any, address: Value, count: Value, add: Callable[[Value, Value, Value], Value]) -> Value:
    """Emit a sum over a row in an order that is the same on every processor.

    Number j goes to lane ``j % SUM_LANES`` of vector ``j // SUM_LANES``, and vectors to four sums in turn, as an
    addition takes four cycles. In the end these are added up, and then the halves of the lanes, again and again.
    """
    kept = [cgutils.alloca_once_value(b, sums_of(0.0)) for _ in range(4)]
    vectors = b.sdiv(b.add(count, LONG(SUM_LANES - 1)), LONG(SUM_LANES))
    with cgutils.for_range(b, vectors) as loop:
        first, *others = (b.load(place) for place in kept)
        counts = first_lanes(b, b.sub(count, b.mul(loop.index, LONG(SUM_LANES))))
        total = add(b.load(vector_at(b, address, loop.index), align=4), first, counts)
        for value, place in zip((*others, total), kept, strict=True):
            b.store(value, place)
    s = [b.load(place) for place in kept]
    total = b.fadd(b.fadd(s[0], s[1]), b.fadd(s[2], s[3]))
    return b.extract_element(across(b, total, b.fadd), INT(0))


def sums_of(number: float) -> Value:
    """Return a vector of SUM_LANES equal numbers."""
    return ir.Constant(SUMS, [number] * SUM_LANES)


def vector_at(b: Any, row: Value, vector: Value) -> Value:
    """Return a pointer to a vector of SUM_LANES numbers of a row."""
    return b.inttoptr(b.add(row, b.mul(vector, LONG(4 * SUM_LANES))), SUMS.as_pointer())


def first_lanes(b: Any, count: Value) -> Value:
    """Return which lanes are among the first so many: a vector of booleans."""
    left = splat(b, b.trunc(count, INT), SUM_LANES)
    return b.icmp_signed(">", left, ir.Constant(left.type, list(range(SUM_LANES))))


def across(b: Any, x: Value, join: Callable[[Value, Value], Value]) -> Value:
    """Join all lanes of a vector, and return the result in every lane: each step rotates by half as much."""
    step = SUM_LANES // 2
    while step:
        lanes = [(i + step) % SUM_LANES for i in range(SUM_LANES)]
        x = join(x, b.shuffle_vector(x, x, ir.Constant(ir.VectorType(INT, SUM_LANES), lanes)))
        step //= 2
    return x
