"""Vector code for the fast kernels, emitted as LLVM instructions through Numba.

Numba compiles loops over scalars, and LLVM turns the simple ones into vector code by itself. For the one loop that
takes nine tenths of the time, the matrix multiply, it does not find the best form. So we write that loop in
LLVM's language, with llvmlite, as an *intrinsic*: a Python function that, while Numba compiles the kernel that
calls it, appends instructions to it. LLVM then allocates registers and schedules for the processor at hand.

Why `tile` looks as it does
---------------------------
A core of today can start two fused multiply-adds (FMA) of a whole vector in each cycle, and the result of one is
there four cycles later. Peak speed so asks for at least eight FMAs under way that do not wait for each other,
with all their inputs at hand. Inputs are the trouble: a core can load only two vectors a cycle, so an FMA that
needs two fresh loads runs at half speed, before any cache is missed.

The cure is to keep a *tile* of the result, ROWS x (VECTORS vectors), in registers. In step k, load VECTORS
vectors of B and, one after another, ROWS single numbers of A, each copied into all lanes of a vector. Every
loaded B vector then serves ROWS FMAs, and every number of A serves VECTORS::

              B[k]:   b0          b1            ROWS = 14, VECTORS = 2: 28 independent FMAs a step,
    A[0, k]  a0 ->  c00 += a0 b0  c01 += a0 b1   14 cycles' work, for 2 + 14 loads, 8 cycles' worth.
    A[1, k]  a1 ->  c10 += a1 b0  c11 += a1 b1
       ...                                       28 registers for c, 2 for b, 1 for a: 31 of AVX-512's 32.

The sums stay in registers over the whole of k and are stored once. Each element of C is summed over k in one
order, whatever the number of rows: so a row's result does not depend, not in one bit, on the rows beside it.

B has to be *packed*: the VECTORS vectors of step k next to each other and after those of step k - 1, so that the
loads walk straight through memory. `minisbert.kernels.gemm` does that. The processor's prefetcher follows such a walk,
but stops at the end of every 4 kB page, and is slow to start again. So the tile asks for B itself, twice: FAR ahead,
for what has to come from memory, and NEAR, from the second-level cache into the first. Where a panel serves a few rows
only, memory sets the speed, and this is worth a third of it: the first level alone has not enough lines under way.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minisbert.kernels.shape import ABREAST, COLUMNS, FAR, LANES, LINE, NEAR, UNROLL, VECTORS

Value = Any  # an LLVM value: llvmlite has no types for mypy
Sums = dict[tuple[int, int], Value]  # of a tile, by row and vector

_FLOAT = ir.FloatType()
_INT = ir.IntType(32)
_LONG = ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, LANES)
_INTEGERS = ir.VectorType(_INT, LANES)


# --- Arithmetic on vectors --------------------------------------------------------------------------------


def _constant(number: float) -> Value:
    return ir.Constant(_VECTOR, [number] * LANES)


def _fma(b: Any, x: Value, y: Value, z: Value) -> Value:
    """``x * y + z``, rounded once where the processor can do that."""
    return _call(b, f"llvm.fmuladd.v{LANES}f32", _VECTOR, x, y, z)


def _call(b: Any, name: str, result: Any, *arguments: Value) -> Value:
    """Call a function that LLVM knows."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return b.call(cgutils.get_or_insert_function(b.module, kind, name), arguments)


def _polynomial(b: Any, coefficients: tuple[float, ...], x: Value) -> Value:
    y = _constant(coefficients[-1])
    for c in coefficients[-2::-1]:
        y = _fma(b, y, x, _constant(c))
    return y


def _at_most(b: Any, x: Value, limit: float) -> Value:
    """The smaller of the two; NaN stays NaN."""
    bound = _constant(limit)
    return b.select(b.fcmp_ordered(">", x, bound), bound, x)


def _at_least(b: Any, x: Value, limit: float) -> Value:
    """The larger of the two; NaN stays NaN."""
    bound = _constant(limit)
    return b.select(b.fcmp_ordered("<", x, bound), bound, x)


# 2**f for abs(f) <= 1/2: our fit, relative error 3e-9.
_EXP2 = (1.0, 0.6931472, 0.24022648, 0.0555036, 0.009618506, 0.0013390806, 0.00015326471)
# 1.5 * 2**23, so large that it has no bits for fractions, and 127, which a float's exponent counts from.
_ROUNDER = 12582912.0 + 127
_LOG2_E = 1.4426950408889634


def _exp2(b: Any, x: Value) -> Value:
    """``2**x`` for -126 <= x <= 127, as ``2**n * 2**f`` with ``x = n + f``; no branch, no table.

    Adding _ROUNDER rounds x to an integer n, and leaves n + 127 in the lowest bits of the sum. Shifted to where a float
    keeps its exponent, these are 2**n. NaN stays NaN, because f is.
    """
    shifted = b.fadd(x, _constant(_ROUNDER))
    f = b.fsub(x, b.fsub(shifted, _constant(_ROUNDER)))
    power = b.shl(b.bitcast(shifted, _INTEGERS), ir.Constant(_INTEGERS, [23] * LANES))
    return b.fmul(_polynomial(b, _EXP2, f), b.bitcast(power, _VECTOR))


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
    t = _at_most(b, _call(b, f"llvm.fabs.v{LANES}f32", _VECTOR, x), 6.5)
    tail = _exp2(b, b.fmul(t, _polynomial(b, _LOG2_TAIL, t)))
    return _fma(b, b.fmul(t, _constant(-0.5)), tail, _relu(b, x))


def _sigmoid(b: Any, x: Value) -> Value:
    """``1 / (1 + exp(-x))``."""
    one = _constant(1.0)
    power = _at_least(b, _at_most(b, b.fmul(x, _constant(-_LOG2_E)), 127.0), -126.0)
    return b.fdiv(one, b.fadd(one, _exp2(b, power)))


def _silu(b: Any, x: Value) -> Value:
    return b.fmul(x, _sigmoid(b, x))


def _gelu_tanh(b: Any, x: Value) -> Value:
    """``x / 2 * (1 + tanh(u))`` is ``x * sigmoid(2 u)``."""
    inner = _fma(b, b.fmul(x, x), _constant(0.044715 * 1.5957691216057308), _constant(1.5957691216057308))
    return b.fmul(x, _sigmoid(b, b.fmul(x, inner)))


def _relu(b: Any, x: Value) -> Value:
    return _at_least(b, x, 0.0)


# tanh(x) = x + x**3 * (...) for abs(x) <= 0.625, where 1 - 2 / (exp(2 x) + 1) would cancel: the Taylor series.
_TANH = (-1 / 3, 2 / 15, -17 / 315, 62 / 2835, -1382 / 155925, 21844 / 6081075, -929569 / 638512875)


def _tanh(b: Any, x: Value) -> Value:
    square = b.fmul(x, x)
    small = _fma(b, b.fmul(x, square), _polynomial(b, _TANH, square), x)
    large = _fma(b, _sigmoid(b, b.fmul(x, _constant(2.0))), _constant(2.0), _constant(-1.0))
    return b.select(b.fcmp_ordered("<", square, _constant(0.625**2)), small, large)


def _in_place(emit: Callable[[Any, Value], Value]) -> Any:
    """Make a function of an address that replaces the vector of floats there by its values."""

    @intrinsic
    def function(_typing: Any, address: Any) -> Any:
        def emit_in_place(context: Any, b: Any, _signature: Any, arguments: Any) -> Value:
            pointer = b.inttoptr(arguments[0], _VECTOR.as_pointer())
            b.store(emit(b, b.load(pointer, align=4)), pointer, align=4)
            return context.get_dummy_value()

        return types.void(types.intp), emit_in_place

    return function


gelu, gelu_tanh, silu, relu, tanh = map(_in_place, (_gelu, _gelu_tanh, _silu, _relu, _tanh))


# --- Moving vectors ---------------------------------------------------------------------------------------


@intrinsic
def copy_vector(_typing: Any, source: Any, target: Any) -> Any:
    """Copy LANES floats from one address to another."""

    def emit(context: Any, b: Any, _signature: Any, arguments: Any) -> Value:
        source, target = (b.inttoptr(address, _VECTOR.as_pointer()) for address in arguments)
        b.store(b.load(source, align=4), target, align=4)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp), emit


@intrinsic
def transpose(_typing: Any, source: Any, source_step: Any, count: Any, target: Any, target_step: Any) -> Any:
    """Copy a square of LANES x LANES floats, its rows as columns; the last of `count` rows stands for those missing.

    It is done in registers: blocks of 1 x 1, then of 2 x 2 and so on change places across the diagonal, and each such
    change is one shuffle of two rows.
    """

    def emit(context: Any, b: Any, _signature: Any, arguments: Any) -> Value:
        source, source_step, count, target, target_step = arguments

        def at(address: Value, step: Value, row: Value) -> Value:
            return b.inttoptr(b.add(address, b.mul(step, row)), _VECTOR.as_pointer())

        last = b.sub(count, _LONG(1))
        numbers = [b.select(b.icmp_signed("<", last, _LONG(i)), last, _LONG(i)) for i in range(LANES)]
        rows = [b.load(at(source, source_step, number), align=4) for number in numbers]
        size = 1
        while size < LANES:
            lanes = range(LANES)
            upper = ir.Constant(_INTEGERS, [j if not j & size else LANES + j - size for j in lanes])
            lower = ir.Constant(_INTEGERS, [j + size if not j & size else LANES + j for j in lanes])
            for i in lanes:
                if not i & size:
                    x, y = rows[i], rows[i + size]
                    rows[i], rows[i + size] = b.shuffle_vector(x, y, upper), b.shuffle_vector(x, y, lower)
            size *= 2
        for i in range(LANES):
            b.store(rows[i], at(target, target_step, _LONG(i)), align=4)
        return context.get_dummy_value()

    return types.void(*[types.intp] * 5), emit


# --- Along a row ------------------------------------------------------------------------------------------


@intrinsic
def softmax(_typing: Any, address: Any, step: Any, count: Any, scale: Any, inverses: Any) -> Any:
    """``exp(scale * (x - max(x)))`` in place, for ABREAST rows of `count` numbers; writes 1 / their sums to `inverses`.

    Within a row each step waits for the one before; several rows side by side fill the time. The rows must have room
    for whole vectors; what follows their numbers is overwritten: by -inf, which no maximum is, and then by some 1e-38,
    which no sum of 1 or more changes by, so the loops need not know where the numbers end. NaN is lost in the maximum,
    and comes back in the sum. The sum is one number for each lane until the end, and so the same for the same row
    anywhere.
    """

    def emit(context: Any, b: Any, _signature: Any, arguments: Any) -> Value:
        address, step, count, scale, inverses = arguments
        rows = [b.add(address, b.mul(step, _LONG(i))) for i in range(ABREAST)]
        vectors = b.sdiv(b.add(count, _LONG(LANES - 1)), _LONG(LANES))

        def place(row: Value, vector: Value) -> Value:
            return b.inttoptr(b.add(row, b.mul(vector, _LONG(4 * LANES))), _VECTOR.as_pointer())

        def each(start: Value, update: Callable[[int, Value, Value], Value]) -> list[Value]:
            """Go through the vectors of the rows, with one for each row that is updated."""
            kept = [cgutils.alloca_once_value(b, start) for _ in rows]
            with cgutils.for_range(b, vectors) as loop:
                news = [update(i, place(row, loop.index), b.load(kept[i])) for i, row in enumerate(rows)]
                for new, place_of_it in zip(news, kept, strict=True):
                    b.store(new, place_of_it)
            return [b.load(place_of_it) for place_of_it in kept]

        def larger(x: Value, y: Value) -> Value:
            return b.select(b.fcmp_ordered(">", x, y), x, y)

        least, last = _constant(float("-inf")), b.sub(vectors, _LONG(1))
        left = _splat(b, b.trunc(b.sub(count, b.mul(last, _LONG(LANES))), _INT))
        counts = b.icmp_signed(">", left, ir.Constant(left.type, list(range(LANES))))
        for row in rows:
            b.store(b.select(counts, b.load(place(row, last), align=4), least), place(row, last), align=4)
        most = each(least, lambda _, pointer, most: larger(b.load(pointer, align=4), most))
        factor = b.fmul(_splat(b, scale), _constant(_LOG2_E))  # exp(x) is 2**(x log2(e))
        most = [_across(b, x, larger) for x in most]

        def add(i: int, pointer: Value, total: Value) -> Value:
            x = b.fsub(b.load(pointer, align=4), most[i])
            y = _exp2(b, _at_least(b, b.fmul(x, factor), -126.0))
            b.store(y, pointer, align=4)
            return b.fadd(total, y)

        for i, total in enumerate(each(_constant(0.0), add)):
            inverse = b.fdiv(ir.Constant(_FLOAT, 1.0), b.extract_element(_across(b, total, b.fadd), _INT(0)))
            b.store(inverse, b.inttoptr(b.add(inverses, _LONG(4 * i)), _FLOAT.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp, types.float32, types.intp), emit


def _across(b: Any, x: Value, join: Callable[[Value, Value], Value]) -> Value:
    """Join all lanes of a vector, and return the result in every lane: each step rotates by half as much."""
    step = LANES // 2
    while step:
        lanes = [(i + step) % LANES for i in range(LANES)]
        x = join(x, b.shuffle_vector(x, x, ir.Constant(_INTEGERS, lanes)))
        step //= 2
    return x


# --- The tile ---------------------------------------------------------------------------------------------


def make_tile(rows: int) -> Any:
    """Make the function ``C = A B + D + E`` for a tile of `rows` rows and COLUMNS columns.

    It is called as ``tile(a, a_step, b, steps, c, c_step, d, d_step, e, e_step)``: all of them integers, the addresses
    of the first elements and the bytes from one row to the next (those of B are next to each other). A step of 0
    repeats a row. D and E may be C itself; at address 0 there is none.
    """

    @intrinsic
    def tile(_typing: Any, a: Any, a_step: Any, b: Any, steps: Any,
             c: Any, c_step: Any, d: Any, d_step: Any, e: Any, e_step: Any) -> Any:  # fmt: skip
        def emit(context: Any, b: Any, _signature: Any, arguments: Any) -> Value:
            _emit_tile(b, rows, *arguments)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 10), emit

    return tile


def _emit_tile(b: Any, rows: int, a: Value, a_step: Value, panel: Value, steps: Value,
               c: Value, c_step: Value, d: Value, d_step: Value, e: Value, e_step: Value) -> None:  # fmt: skip
    def at(address: Value, step: Value, times: int, vector: int = 0, further: int = 0) -> Value:
        offset = b.add(b.mul(step, _LONG(times)), _LONG(4 * LANES * vector + further))
        return b.inttoptr(b.add(address, offset), _VECTOR.as_pointer())

    row, b_step = [b.add(a, b.mul(a_step, _LONG(i))) for i in range(rows)], _LONG(4 * COLUMNS)

    def add_products(k: Value, ahead: int, sums: Sums) -> Sums:
        """Add the products of step ``k + ahead``."""
        here, offset = b.add(panel, b.mul(k, b_step)), b.add(b.mul(k, _LONG(4)), _LONG(4 * ahead))
        vectors = [b.load(at(here, b_step, ahead, v), align=4) for v in range(VECTORS)]
        for v in range(0, VECTORS, -(-LINE // (4 * LANES))):  # the first vector of each cache line
            _prefetch(b, at(here, b_step, ahead, v, NEAR), level=1)
            _prefetch(b, at(here, b_step, ahead, v, FAR), level=2)
        news = {}
        for i in range(rows):
            number = _splat(b, b.load(b.inttoptr(b.add(row[i], offset), _FLOAT.as_pointer())))
            for v in range(VECTORS):
                news[i, v] = _fma(b, number, vectors[v], sums[i, v])
        return news

    k, sums = _LONG(0), {(i, v): _constant(0.0) for i in range(rows) for v in range(VECTORS)}
    for at_once in dict.fromkeys((UNROLL, 1)):
        k, sums = _loop(b, k, steps, at_once, sums, add_products)
    for address, step in ((d, d_step), (e, e_step)):
        without, others = b.block, sums
        with b.if_then(b.icmp_signed("!=", address, _LONG(0))):
            news = {
                (i, v): b.fadd(total, b.load(at(address, step, i, v), align=4))
                for (i, v), total in others.items()
            }
            inside = b.block
        sums = {place: b.phi(_VECTOR) for place in others}
        for place, phi in sums.items():
            phi.add_incoming(others[place], without)
            phi.add_incoming(news[place], inside)
    for (i, v), total in sums.items():
        b.store(total, at(c, c_step, i, v), align=4)


def _loop(
    b: Any, start: Value, stop: Value, at_once: int, sums: Sums, update: Callable[[Value, int, Sums], Sums]
) -> tuple[Value, Sums]:
    """Emit a loop that makes `at_once` steps in each turn, while there are so many left."""
    before, check, turn, after = b.block, *map(b.append_basic_block, ("check", "turn", "after"))
    b.branch(check)

    b.position_at_end(check)
    k, kept = b.phi(_LONG), {place: b.phi(_VECTOR) for place in sums}
    following = b.add(k, _LONG(at_once))
    b.cbranch(b.icmp_signed("<=", following, stop), turn, after)

    b.position_at_end(turn)
    news = kept
    for ahead in range(at_once):
        news = update(k, ahead, news)
    b.branch(check)

    for origin, first, values in ((before, start, sums), (turn, following, news)):
        k.add_incoming(first, origin)
        for place, phi in kept.items():
            phi.add_incoming(values[place], origin)
    b.position_at_end(after)
    return k, kept


def _prefetch(b: Any, pointer: Value, level: int) -> None:
    """Ask for a cache line that will be read soon: to read it, into this level of cache and those below, as data."""
    byte = b.bitcast(pointer, ir.IntType(8).as_pointer())
    _call(b, "llvm.prefetch.p0", ir.VoidType(), byte, *(ir.Constant(_INT, n) for n in (0, 4 - level, 1)))


def _splat(b: Any, number: Value) -> Value:
    """Copy one number into all lanes."""
    empty = ir.Constant(ir.VectorType(number.type, LANES), ir.Undefined)
    lane = b.insert_element(empty, number, ir.Constant(_INT, 0))
    return b.shuffle_vector(lane, empty, ir.Constant(_INTEGERS, [0] * LANES))
