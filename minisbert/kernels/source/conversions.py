"""Numbers of fewer bits to float32 and back, a vector at a time: widening, rounding, rotating; see `narrow`.

Like `vector`, without a branch, and so that all processors give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minisbert.kernels.source.reductions import across, first_lanes, sums_of, vector_at
from minisbert.kernels.source.vector import (
    FLOAT,
    INT,
    INTEGERS,
    LONG,
    SUMS,
    VECTOR,
    Value,
    call,
    constant,
    fma,
    splat,
)
from minisbert.kernels.tuning import FUSES, LANES, SUM_LANES

# LLVM's halves need an instruction that every processor with a fused multiply-add has.
NARROW_TYPES = {
    "float16": ir.HalfType() if FUSES else ir.IntType(16),
    "bfloat16": ir.IntType(16),
    "int8": ir.IntType(8),
}


def _widening(dtype: str) -> Any:
    """Make a function that turns LANES numbers at an address into float32 at another one."""
    kind = ir.VectorType(NARROW_TYPES[dtype], LANES)

    @intrinsic
    def function(_typing: Any, source: Any, target: Any) -> Any:
        def emit(context: Any, b: Any, _signature: Any, arguments: Any) -> Value:
            x = b.load(b.inttoptr(arguments[0], kind.as_pointer()), align=1)
            if dtype == "float16":
                x = b.fpext(x, VECTOR) if FUSES else _from_half_bits(b, b.zext(x, INTEGERS))
            elif dtype == "int8":
                x = b.sitofp(b.sext(x, INTEGERS), VECTOR)
            else:
                x = b.bitcast(b.shl(b.zext(x, INTEGERS), ir.Constant(INTEGERS, [16] * LANES)), VECTOR)
            b.store(x, b.inttoptr(arguments[1], VECTOR.as_pointer()), align=4)
            return context.get_dummy_value()

        return types.void(types.intp, types.intp), emit

    return function


def _from_half_bits(b: Any, bits: Value) -> Value:
    """Turn the bits of float16 into float32: exponents count from 15 there, and from 127 here."""

    def of(number: int) -> Value:
        return ir.Constant(INTEGERS, [number] * LANES)

    magnitude, infinite = b.shl(b.and_(bits, of(0x7FFF)), of(13)), of(0x7C00 << 13)
    x = b.fmul(b.bitcast(magnitude, VECTOR), constant(2.0**112))
    x = b.select(b.icmp_signed(">=", magnitude, infinite), constant(float("inf")), x)
    sign = b.shl(b.and_(bits, of(0x8000)), of(16))
    return b.bitcast(b.or_(b.bitcast(x, INTEGERS), sign), VECTOR)


widen_float16, widen_bfloat16, widen_int8 = map(_widening, NARROW_TYPES)


@intrinsic
def rotate_block(_typing: Any, source: Any, target: Any) -> Any:
    """Multiply 128 numbers by a Hadamard matrix, in the stages of `reference.narrow.rotate`."""

    def emit(context: Any, b: Any, _signature: Any, arguments: Any) -> Value:
        source, target = arguments
        x = [b.load(vector_at(b, source, LONG(i)), align=4) for i in range(128 // SUM_LANES)]
        lanes, h = range(SUM_LANES), 1
        while h < SUM_LANES:  # within a vector: each lane is the sum, or the difference, of two
            others = [j ^ h for j in lanes]
            signs = ir.Constant(SUMS, [-1.0 if j & h else 1.0 for j in lanes])
            x = [fma(b, v, signs, _lanes(b, v, others)) for v in x]  # which is exact but for the addition
            h *= 2
        while h < 128:  # between vectors
            step, old = h // SUM_LANES, x
            x = [
                b.fsub(old[i - step], v) if i & step else b.fadd(v, old[i + step]) for i, v in enumerate(old)
            ]
            h *= 2
        for i, v in enumerate(x):
            b.store(v, vector_at(b, target, LONG(i)), align=4)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), emit


def _lanes(b: Any, x: Value, places: list[int]) -> Value:
    return b.shuffle_vector(x, x, ir.Constant(ir.VectorType(INT, len(places)), places))


@intrinsic
def largest_magnitude(_typing: Any, address: Any, count: Any) -> Any:
    """Return the largest magnitude of so many numbers; NaN if one is NaN, whose bits are larger than infinity's."""
    kind = ir.VectorType(INT, SUM_LANES)

    def emit(_context: Any, b: Any, _signature: Any, arguments: Any) -> Value:
        address, count = arguments
        zeros, magnitude = ir.Constant(kind, [0] * SUM_LANES), ir.Constant(kind, [0x7FFFFFFF] * SUM_LANES)

        def larger(x: Value, y: Value) -> Value:
            return b.select(b.icmp_signed(">", x, y), x, y)

        kept = cgutils.alloca_once_value(b, zeros)
        with cgutils.for_range(b, b.sdiv(b.add(count, LONG(SUM_LANES - 1)), LONG(SUM_LANES))) as loop:
            bits = b.bitcast(b.load(vector_at(b, address, loop.index), align=4), kind)
            counts = first_lanes(b, b.sub(count, b.mul(loop.index, LONG(SUM_LANES))))
            b.store(larger(b.select(counts, b.and_(bits, magnitude), zeros), b.load(kept)), kept)
        return b.bitcast(b.extract_element(across(b, b.load(kept), larger), INT(0)), FLOAT)

    return types.float32(types.intp, types.intp), emit


def _narrowing(emit_piece: Callable[[Any, Value, Value], Value]) -> Any:
    """Make a function that turns `count` numbers of a row, times a factor, into `room` others: zeros behind them.

    ``emit_piece(b, x, factor)`` emits how, for SUM_LANES of them. Nothing is read beyond the last whole vector.
    """

    @intrinsic
    def function(_typing: Any, source: Any, count: Any, room: Any, factor: Any, target: Any) -> Any:
        def emit(context: Any, b: Any, _signature: Any, arguments: Any) -> Value:
            source, count, room, factor, target = arguments
            factors = splat(b, factor, SUM_LANES)

            def convert(index: Value, where: Value, emit_x: Callable[[Value], Value]) -> None:
                y = emit_piece(b, emit_x(b.load(vector_at(b, source, where), align=4)), factors)
                size = y.type.count * y.type.element.width // 8 if y.type.element != FLOAT else 4 * SUM_LANES
                to = b.add(target, b.mul(index, LONG(size)))
                b.store(y, b.inttoptr(to, y.type.as_pointer()), align=1)

            whole = b.sdiv(count, LONG(SUM_LANES))
            with cgutils.for_range(b, whole) as loop:
                convert(loop.index, loop.index, lambda x: x)
            vectors = b.sdiv(b.add(room, LONG(SUM_LANES - 1)), LONG(SUM_LANES))
            with cgutils.for_range_slice(b, whole, vectors, LONG(1), LONG) as (index, _):
                left = b.sub(count, b.mul(index, LONG(SUM_LANES)))
                where = b.select(b.icmp_signed(">", left, LONG(0)), index, LONG(0))
                convert(index, where, lambda x: b.select(first_lanes(b, left), x, sums_of(0.0)))
            return context.get_dummy_value()

        return types.void(types.intp, types.intp, types.intp, types.float32, types.intp), emit

    return function


def _nearest(b: Any, x: Value, factor: Value) -> Value:
    """``x * factor`` as an integer, still in float32."""
    return call(b, f"llvm.rint.v{SUM_LANES}f32", SUMS, b.fmul(x, factor))


def _rounding(bits: int) -> Callable[[Any, Value, Value], Value]:
    """Make what emits ``x * factor`` as an integer of so many bits."""

    def emit(b: Any, x: Value, factor: Value) -> Value:
        wide = b.fptosi(_nearest(b, x, factor), ir.VectorType(INT, SUM_LANES))
        return b.trunc(wide, ir.VectorType(ir.IntType(bits), SUM_LANES))

    return emit


_bytes, _shorts = _rounding(8), _rounding(16)


def _offset_bytes(b: Any, x: Value, factor: Value) -> Value:
    """``x * factor + 128`` as uint8."""
    signed = _bytes(b, x, factor)
    return b.xor(signed, ir.Constant(signed.type, [0x80] * SUM_LANES))


def _bfloat16_bits(b: Any, x: Value, factor: Value) -> Value:
    """``x * factor`` as the nearest bfloat16, ties to even: its bits."""
    kind, x = ir.VectorType(INT, SUM_LANES), b.fmul(x, factor)

    def of(number: int) -> Value:
        return ir.Constant(kind, [number] * SUM_LANES)

    bits = b.bitcast(x, kind)
    odd = b.and_(b.lshr(bits, of(16)), of(1))
    rounded = b.add(b.add(bits, of(0x7FFF)), odd)
    rounded = b.select(b.fcmp_unordered("uno", x, x), bits, rounded)
    return b.trunc(b.lshr(rounded, of(16)), ir.VectorType(ir.IntType(16), SUM_LANES))


def _rounded(b: Any, x: Value, factor: Value) -> Value:
    """The nearest bfloat16, in float32."""
    kind = ir.VectorType(INT, SUM_LANES)
    halves = b.zext(_bfloat16_bits(b, x, factor), kind)
    return b.bitcast(b.shl(halves, ir.Constant(kind, [16] * SUM_LANES)), SUMS)


@intrinsic
def pair_bfloat16(_typing: Any, first: Any, second: Any, target: Any) -> Any:
    """Round SUM_LANES floats at each of two addresses to bfloat16, and put them side by side in words."""

    def emit(context: Any, b: Any, _signature: Any, arguments: Any) -> Value:
        kind, one = ir.VectorType(INT, SUM_LANES), sums_of(1.0)

        def words(address: Value) -> Value:
            return b.zext(
                _bfloat16_bits(b, b.load(b.inttoptr(address, SUMS.as_pointer()), align=4), one), kind
            )

        first, second, target = arguments
        low, high = words(first), b.shl(words(second), ir.Constant(kind, [16] * SUM_LANES))
        b.store(b.or_(low, high), b.inttoptr(target, kind.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), emit


to_integers, to_shorts = map(_narrowing, (_nearest, _shorts))
to_bytes, to_offset_bytes = map(_narrowing, (_bytes, _offset_bytes))
to_bfloat16, to_bfloat16_bits = _narrowing(_rounded), _narrowing(_bfloat16_bits)


# --- Sums, and what is made of them ------------------------------------------------------------------------


def _columns(is_added: bool) -> Any:
    """Make a function that copies LANES columns of so many rows, or adds them to others."""

    @intrinsic
    def function(
        _typing: Any, height: Any, source: Any, source_step: Any, target: Any, target_step: Any
    ) -> Any:
        def emit(context: Any, b: Any, _signature: Any, arguments: Any) -> Value:
            height, *places = arguments
            with cgutils.for_range(b, height) as loop:
                source, target = (
                    _row(b, address, step, loop.index, VECTOR) for address, step in (places[:2], places[2:])
                )
                x = b.load(source, align=4)
                b.store(b.fadd(b.load(target, align=4), x) if is_added else x, target, align=4)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 5), emit

    return function


def _row(b: Any, address: Value, step: Value, i: Value, kind: Any) -> Value:
    return b.inttoptr(b.add(address, b.mul(step, i)), kind.as_pointer())


copy_columns, add_columns = _columns(False), _columns(True)


@intrinsic
def scale_columns(
    _typing: Any,
    height: Any,
    source: Any,
    source_step: Any,
    factor: Any,
    factor_step: Any,
    factors: Any,
    added: Any,
    target: Any,
    target_step: Any,
) -> Any:
    """Turn LANES columns of int32 into float32 elsewhere: times their row's factor, times their own, plus their own."""

    def emit(context: Any, b: Any, _signature: Any, arguments: Any) -> Value:
        height, source, source_step, factor, factor_step, factors, added, target, target_step = arguments
        factors, added = (b.load(b.inttoptr(a, VECTOR.as_pointer()), align=4) for a in (factors, added))
        with cgutils.for_range(b, height) as loop:
            x = b.load(_row(b, source, source_step, loop.index, INTEGERS), align=4)
            of_row = b.load(_row(b, factor, factor_step, loop.index, FLOAT))
            x = b.fmul(b.fmul(b.sitofp(x, VECTOR), splat(b, of_row)), factors)
            b.store(b.fadd(x, added), _row(b, target, target_step, loop.index, VECTOR), align=4)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 9), emit


def _integers(is_added: bool) -> Any:
    """Make a function that turns LANES floats, which are integers, into int32 elsewhere, or adds them there."""

    @intrinsic
    def function(_typing: Any, source: Any, target: Any) -> Any:
        def emit(context: Any, b: Any, _signature: Any, arguments: Any) -> Value:
            source, target = (
                b.inttoptr(a, k.as_pointer()) for a, k in zip(arguments, (VECTOR, INTEGERS), strict=True)
            )
            x = b.fptosi(b.load(source, align=4), INTEGERS)
            b.store(b.add(x, b.load(target, align=4)) if is_added else x, target, align=4)
            return context.get_dummy_value()

        return types.void(types.intp, types.intp), emit

    return function


set_integers, add_to_integers = _integers(False), _integers(True)
