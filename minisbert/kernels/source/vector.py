"""Vector code: arithmetic, GELU and its like, transposing; LLVM instructions, as in `microkernel`.

Each function takes and gives a vector, without a branch or a table: every lane goes the same way. As a rule it has
LANES numbers, as a register has. LLVM takes a longer one apart, and makes each step for all of its pieces before the
next one: while a piece waits for the result of its last step, the others go on.
Where the exact function has no instruction, a polynomial stands for it; its error is told beside its coefficients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minisbert.kernels.tuning import FUSES, LANES, SUM_LANES

Value = Any  # an LLVM value: llvmlite has no types for mypy

FLOAT = ir.FloatType()
INT = ir.IntType(32)
LONG = ir.IntType(64)
VECTOR = ir.VectorType(FLOAT, LANES)
INTEGERS = ir.VectorType(INT, LANES)
SUMS = ir.VectorType(FLOAT, SUM_LANES)


def constant(number: float, like: Value = None) -> Value:
    """Return a vector of equal numbers: LANES, or as many as another one has."""
    kind = VECTOR if like is None else like.type
    return ir.Constant(kind, [number] * kind.count)


def fma(b: Any, x: Value, y: Value, z: Value) -> Value:
    """``x * y + z``, rounded once; on the one level that can't do that, twice."""
    kind = "f32" if x.type == FLOAT else f"v{x.type.count}f32"
    return call(b, f"llvm.{'fma' if FUSES else 'fmuladd'}.{kind}", x.type, x, y, z)


def call(b: Any, name: str, result: Any, *arguments: Value) -> Value:
    """Call a function that LLVM knows."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return b.call(cgutils.get_or_insert_function(b.module, kind, name), arguments)


def splat(b: Any, number: Value, lanes: int = LANES) -> Value:
    """Copy one number into all lanes."""
    empty = ir.Constant(ir.VectorType(number.type, lanes), ir.Undefined)
    lane = b.insert_element(empty, number, ir.Constant(INT, 0))
    return b.shuffle_vector(lane, empty, ir.Constant(ir.VectorType(INT, lanes), [0] * lanes))


def joined(b: Any, vectors: list[Value]) -> Value:
    """Return one long vector of several, the number of which is a power of two."""
    while len(vectors) > 1:
        count = 2 * vectors[0].type.count
        places = ir.Constant(ir.VectorType(INT, count), list(range(count)))
        vectors = [b.shuffle_vector(x, y, places) for x, y in zip(vectors[::2], vectors[1::2], strict=True)]
    return vectors[0]


def pieces(b: Any, x: Value) -> list[Value]:
    """Return the vectors of SUM_LANES numbers that a long one is made of."""
    kind, starts = ir.VectorType(INT, SUM_LANES), range(0, x.type.count, SUM_LANES)
    return [b.shuffle_vector(x, x, ir.Constant(kind, list(range(i, i + SUM_LANES)))) for i in starts]


def polynomial(b: Any, coefficients: tuple[float, ...], x: Value) -> Value:
    """``c[0] + c[1] x + c[2] x**2 + ...`` by Horner's rule."""
    y = constant(coefficients[-1], x)
    for c in coefficients[-2::-1]:
        y = fma(b, y, x, constant(c, x))
    return y


def at_most(b: Any, x: Value, limit: float) -> Value:
    """The smaller of the two; NaN stays NaN."""
    bound = constant(limit, x)
    return b.select(b.fcmp_ordered(">", x, bound), bound, x)


def at_least(b: Any, x: Value, limit: float) -> Value:
    """The larger of the two; NaN stays NaN."""
    bound = constant(limit, x)
    return b.select(b.fcmp_ordered("<", x, bound), bound, x)


# 2**f for abs(f) <= 1/2: our fit, relative error 3e-9.
_EXP2 = (1.0, 0.6931472, 0.24022648, 0.0555036, 0.009618506, 0.0013390806, 0.00015326471)
# 1.5 * 2**23, so large that it has no bits for fractions, and 127, which a float's exponent counts from.
_ROUNDER = 12582912.0 + 127
LOG2_E = 1.4426950408889634


def exp2(b: Any, x: Value, times: float = 1.0) -> Value:
    """``times * 2**x`` for -126 <= x <= 127, as ``2**n * 2**f`` with ``x = n + f``; no branch, no table.

    Adding _ROUNDER rounds x to an integer n, and leaves n + 127 in the lowest bits of the sum. Shifted to where a float
    keeps its exponent, these are 2**n. NaN stays NaN, because f is.
    """
    rounder, integers = constant(_ROUNDER, x), ir.VectorType(INT, x.type.count)
    shifted = b.fadd(x, rounder)
    f = b.fsub(x, b.fsub(shifted, rounder))
    power = b.shl(b.bitcast(shifted, integers), ir.Constant(integers, [23] * integers.count))
    return b.fmul(polynomial(b, tuple(times * c for c in _EXP2), f), b.bitcast(power, x.type))


# log2(2 Q(t)) / t for 0 <= t <= 6.5, Q being the upper tail of the normal distribution: our fit, whose error changes
# gelu by at most 1.2e-8.
_LOG2_TAIL = (
    -1.1511079,
    -0.45918176,
    -0.05258179,
    0.0071921768,
    -0.00023825624,
    -0.00014336237,
    3.0219075e-05,
    -2.060131e-06,
)


def _gelu(b: Any, x: Value) -> Value:
    """``max(x, 0) - t Q(t)`` with ``t = abs(x)``, as in the reference, but Q without a division.

    Q(t) = 2**(t p(t)) / 2 with a polynomial p. From t = 6.5 on ``t Q(t)`` is below 3e-10, and stays there.
    """
    t = at_most(b, call(b, f"llvm.fabs.v{LANES}f32", VECTOR, x), 6.5)
    tail = exp2(b, b.fmul(t, polynomial(b, _LOG2_TAIL, t)), times=-0.5)
    return fma(b, t, tail, _relu(b, x))


def _sigmoid(b: Any, x: Value) -> Value:
    """``1 / (1 + exp(-x))``."""
    one = constant(1.0)
    power = at_least(b, at_most(b, b.fmul(x, constant(-LOG2_E)), 127.0), -126.0)
    return b.fdiv(one, b.fadd(one, exp2(b, power)))


def _silu(b: Any, x: Value) -> Value:
    return b.fmul(x, _sigmoid(b, x))


def _quick_gelu(b: Any, x: Value) -> Value:
    return b.fmul(x, _sigmoid(b, b.fmul(x, constant(1.702))))


def _gelu_tanh(b: Any, x: Value) -> Value:
    """``x / 2 * (1 + tanh(u))`` is ``x * sigmoid(2 u)``."""
    inner = fma(b, b.fmul(x, x), constant(0.044715 * 1.5957691216057308), constant(1.5957691216057308))
    return b.fmul(x, _sigmoid(b, b.fmul(x, inner)))


def _relu(b: Any, x: Value) -> Value:
    return at_least(b, x, 0.0)


# tanh(x) = x + x**3 * (...) for abs(x) <= 0.625, where 1 - 2 / (exp(2 x) + 1) would cancel: the Taylor series.
_TANH = (-1 / 3, 2 / 15, -17 / 315, 62 / 2835, -1382 / 155925, 21844 / 6081075, -929569 / 638512875)


def _tanh(b: Any, x: Value) -> Value:
    square = b.fmul(x, x)
    small = fma(b, b.fmul(x, square), polynomial(b, _TANH, square), x)
    large = fma(b, _sigmoid(b, b.fmul(x, constant(2.0))), constant(2.0), constant(-1.0))
    return b.select(b.fcmp_ordered("<", square, constant(0.625**2)), small, large)


def _in_place(emit: Callable[[Any, Value], Value]) -> Any:
    """Make a function of an address that replaces the vector of floats there by its values."""

    @intrinsic
    def function(_typing: Any, address: Any) -> Any:
        def emit_in_place(context: Any, b: Any, _signature: Any, arguments: Any) -> Value:
            pointer = b.inttoptr(arguments[0], VECTOR.as_pointer())
            b.store(emit(b, b.load(pointer, align=4)), pointer, align=4)
            return context.get_dummy_value()

        return types.void(types.intp), emit_in_place

    return function


gelu, gelu_tanh, quick_gelu = map(_in_place, (_gelu, _gelu_tanh, _quick_gelu))
silu, relu, tanh = map(_in_place, (_silu, _relu, _tanh))


# --- Moving vectors ---------------------------------------------------------------------------------------


@intrinsic
def copy_vector(_typing: Any, source: Any, target: Any) -> Any:
    """Copy LANES floats from one address to another."""

    def emit(context: Any, b: Any, _signature: Any, arguments: Any) -> Value:
        source, target = (b.inttoptr(address, VECTOR.as_pointer()) for address in arguments)
        b.store(b.load(source, align=4), target, align=4)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), emit


def _transposing(kind: Any) -> Any:
    """Make a function that copies a square of LANES x LANES numbers of 32 bits, its rows as columns.

    The last of `count` rows stands for those missing. Floats are multiplied by a factor, words are left as they are.

    It is done in registers: blocks of 1 x 1, then of 2 x 2 and so on change places across the diagonal, and each such
    change is one shuffle of two rows.
    """

    @intrinsic
    def transpose(
        _typing: Any, source: Any, source_step: Any, count: Any, target: Any, target_step: Any, factor: Any
    ) -> Any:
        def emit(context: Any, b: Any, _signature: Any, arguments: Any) -> Value:
            source, source_step, count, target, target_step, factor = arguments
            factor = splat(b, factor)

            def at(address: Value, step: Value, row: Value) -> Value:
                return b.inttoptr(b.add(address, b.mul(step, row)), kind.as_pointer())

            last = b.sub(count, LONG(1))
            numbers = [b.select(b.icmp_signed("<", last, LONG(i)), last, LONG(i)) for i in range(LANES)]
            rows = [b.load(at(source, source_step, number), align=4) for number in numbers]
            for i, row in enumerate(_transposed(b, rows)):
                row = b.fmul(row, factor) if kind == VECTOR else row
                b.store(row, at(target, target_step, LONG(i)), align=4)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 5, types.float32), emit

    return transpose


def _transposed(b: Any, rows: list[Value]) -> list[Value]:
    size, lanes = 1, range(LANES)
    while size < LANES:
        upper = ir.Constant(INTEGERS, [j if not j & size else LANES + j - size for j in lanes])
        lower = ir.Constant(INTEGERS, [j + size if not j & size else LANES + j for j in lanes])
        for i in lanes:
            if not i & size:
                x, y = rows[i], rows[i + size]
                rows[i], rows[i + size] = b.shuffle_vector(x, y, upper), b.shuffle_vector(x, y, lower)
        size *= 2
    return rows


transpose, transpose_words = _transposing(VECTOR), _transposing(INTEGERS)


# --- Single numbers ---------------------------------------------------------------------------------------


@intrinsic
def fused(_typing: Any, x: Any, y: Any, z: Any) -> Any:
    """``x * y + z`` of three float32, as `fma`; LLVM makes vectors of it."""

    def emit(_context: Any, b: Any, _signature: Any, arguments: Any) -> Value:
        return fma(b, *arguments)

    return types.float32(types.float32, types.float32, types.float32), emit


@intrinsic
def square_root(_typing: Any, x: Any) -> Any:
    """The square root of a float64: an instruction, where `math.sqrt` may be a call."""

    def emit(_context: Any, b: Any, _signature: Any, arguments: Any) -> Value:
        return call(b, "llvm.sqrt.f64", ir.DoubleType(), *arguments)

    return types.float64(types.float64), emit
