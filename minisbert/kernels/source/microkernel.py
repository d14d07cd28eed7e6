"""The micro-kernel of the matrix multiply, emitted as LLVM instructions through Numba.

Numba compiles loops over scalars, and LLVM turns the simple ones into vector code by itself. For the one loop that
takes nine tenths of the time, the matrix multiply, it does not find the best form. So we write that loop in
LLVM's language, with llvmlite, as an *intrinsic*: a Python function that, while Numba compiles the kernel that
calls it, appends instructions to it. LLVM then allocates registers and schedules for the processor at hand.

Register blocking: why the micro-kernel looks as it does
--------------------------------------------------------
A core of today can start two fused multiply-adds (FMA) of a whole vector in each cycle, and the result of one is
there four cycles later. So peak speed needs at least eight independent FMAs in flight, with all their inputs at
hand. Inputs are the trouble: a core can load only two vectors a cycle, so an FMA that
needs two fresh loads runs at half speed, before any cache is missed.

The cure is to keep a *micro-tile* of C, MR x NR numbers, in registers: MR rows of VECTORS vectors. In step k, load
VECTORS vectors of B and, one after another, MR single numbers of A, each broadcast into all lanes of a vector. Every
vector of B then serves MR FMAs, and every number of A serves VECTORS::

              B[k]:   b0           b1           b2           MR = 9, VECTORS = 3: 27 independent FMAs a step,
    A[0, k]  a0 ->  c00 += a0 b0  c01 += a0 b1  c02 += a0 b2   13.5 cycles' work, for 9 + 3 loads, 6 cycles' worth.
    A[1, k]  a1 ->  c10 += a1 b0  c11 += a1 b1  c12 += a1 b2
       ...                                       Register budget: 27 for c, 3 for b, 1 for a: 31 of AVX-512's 32.

On a core that has nothing else to do the loads are hidden behind the FMAs. But processors run two threads on a core,
in a cloud those of two customers, and each then starts about half as many instructions and loads as before. That is
why the tile is no more elongated, and why the loop has next to nothing else in it: beside such a neighbour 9 x 3 is a
tenth faster than 14 x 2, which needs an address instruction more for two rows, and alone it is as fast.

The sums stay in registers over an accumulation block of k, K_SUM steps, and are then added to C. Each element of C is
summed over k in one order, whatever the number of rows: so a row's result does not depend, not in one bit, on the rows
beside it.

Prefetching
-----------
B has to be *packed* into panels: the VECTORS vectors of step k next to each other and after those of step k - 1, so
that the loads walk straight through memory. The processor's own prefetcher follows such a walk, but stops at the end
of every 4 kB page, and is slow to start again. So the micro-kernel prefetches, twice:

- Its own B, from the second-level cache into the first, PREFETCH_L1 bytes ahead.
- From memory into the second level, the B of *later* tiles. The caller says where it is, and how many bytes further on
  for each step. All tiles of MC rows use the same KC steps of B before the next KC. If each of ten tiles, say,
  prefetches a tenth of the next KC steps, memory is busy at an even pace. If every tile fetched only its own, the
  first would wait, and memory would be idle during the rest: a tenth of the time was lost in this way.

A step prefetches one line for later tiles, and where there are only one or two tiles that is not all of B. So the
first tile of KC steps prefetches its own B PREFETCH_L2 steps ahead, about as long before as memory takes to answer: on
a Zen 5 a sentence of 14 tokens takes a twelfth less time, one of 7 a sixth.

Beside a neighbour every instruction in the loop that is no FMA costs up to a hundredth. So the tallest tiles, which do
most of the work, make UNROLL steps in a turn of their loop: the counter and the prefetch of later B are paid once a
turn, if a turn's share of that is no more than a cache line. All heights in that way would take a second longer to
compile.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minisbert.kernels.source.vector import FLOAT, INT, LONG, VECTOR, Value, call, constant, fma, splat
from minisbert.kernels.tuning import K_SUM, LANES, LINE, MR, PREFETCH_L1, UNROLL

Sums = dict[tuple[int, int], Value]  # of a micro-tile, by row and vector


# --- The micro-kernel -------------------------------------------------------------------------------------


def make_microkernel(rows: int, vectors: int) -> Any:
    """Make the micro-kernel ``C = A B + D + E`` for a micro-tile of `rows` rows and so many vectors of columns.

    It is called as ``microkernel(a, a_step, b, steps, c, c_step, d, d_step, e, e_step, ahead, later, later_step)``: all
    of them integers, the addresses of the first elements and the bytes from one row to the next (the vectors of B are
    next to each other). A row step of 0 repeats a row. D and E may be C itself; at address 0 there is none. For each k
    it prefetches the B that is `ahead` bytes further on, unless PREFETCH_L1 is 0, and the line at `later`, which moves
    on by later_step bytes: once for UNROLL steps if ``UNROLL * later_step <= LINE``.
    """

    @intrinsic
    def microkernel(_typing: Any, a: Any, a_step: Any, b: Any, steps: Any, c: Any, c_step: Any, d: Any, d_step: Any,
                    e: Any, e_step: Any, ahead: Any, later: Any, later_step: Any) -> Any:  # fmt: skip
        def emit(context: Any, b: Any, _signature: Any, arguments: Any) -> Value:
            _emit_accumulation_blocks(b, rows, vectors, *arguments)
            return context.get_dummy_value()

        return types.void(*[types.intp] * 13), emit

    return microkernel


def _emit_accumulation_blocks(b: Any, rows: int, vectors: int, a: Value, a_step: Value, panel: Value, steps: Value,
                c: Value, c_step: Value, d: Value, d_step: Value, e: Value, e_step: Value,
                ahead: Value, later: Value, later_step: Value) -> None:  # fmt: skip
    """Emit the loop over accumulation blocks of k: the sums of each are added to those of earlier ones, in C."""
    a_of_row = _addresses(b, a, a_step, rows)
    kept = [cgutils.alloca_once_value(b, value) for value in (LONG(0), d, d_step)]
    block, after = map(b.append_basic_block, ("block", "after"))
    b.branch(block)

    b.position_at_end(block)
    start, d, d_step = (b.load(place) for place in kept)
    left = b.sub(steps, start)
    is_last = b.icmp_signed("<=", left, LONG(K_SUM))
    stop = b.add(start, b.select(is_last, left, LONG(K_SUM)))
    sums = _emit_products(b, vectors, a_of_row, panel, start, stop, ahead, later, later_step)
    sums = _emit_addition(b, sums, d, d_step)
    sums = _emit_addition(b, sums, b.select(is_last, e, LONG(0)), e_step)
    for (i, v), total in sums.items():
        b.store(total, _at(b, c, c_step, i, v), align=4)
    for value, place in zip((stop, c, c_step), kept, strict=True):
        b.store(value, place)
    b.cbranch(is_last, after, block)
    b.position_at_end(after)


def _addresses(b: Any, a: Value, step: Value, rows: int) -> list[Value]:
    """Return the address of each row of A.

    Row i is at base + odd * power of two * step, which x86 adds up in the load itself. LLVM would rather derive each
    address from the one before, an instruction each; the empty assembly keeps it from relating the odd multiples.
    """
    opaque = ir.InlineAsm(ir.FunctionType(LONG, [LONG]), "", "=r,0")
    odd = {i: b.call(opaque, [b.mul(step, LONG(i))]) for i in range(1, rows, 2)}
    powers = {i: i & -i for i in range(1, rows)}  # the largest power of two in it
    return [a, *(b.add(a, b.mul(odd[i // power], LONG(power))) for i, power in powers.items())]


def _at(b: Any, address: Value, step: Value, times: int, vector: int = 0) -> Value:
    """Return a pointer to a vector of a row."""
    offset = b.add(b.mul(step, LONG(times)), LONG(4 * LANES * vector))
    return b.inttoptr(b.add(address, offset), VECTOR.as_pointer())


def _emit_products(b: Any, vectors: int, a_of_row: list[Value], panel: Value, start: Value, stop: Value,
                   ahead: Value, later: Value, later_step: Value) -> Sums:  # fmt: skip
    """Emit the sums of the products of the steps from `start` to `stop`."""
    rows, columns, b_step = range(len(a_of_row)), range(vectors), LONG(4 * LANES * vectors)

    lines = columns[:: -(-LINE // (4 * LANES))] if PREFETCH_L1 else ()  # the first vector of each cache line

    def add_products(k: Value, step: int, sums: Sums) -> Sums:
        """Add the products of step ``k + step``, and prefetch; later B only in the first step of a turn."""
        here, offset = b.add(panel, b.mul(k, b_step)), b.add(b.mul(k, LONG(4)), LONG(4 * step))
        b_of_column = [b.load(_at(b, here, b_step, step, v), align=4) for v in columns]
        for v in lines:
            _prefetch(b, _at(b, b.add(here, ahead), b_step, step, v), level=1)
        if step == 0:
            there = b.add(later, b.mul(k, later_step))
            _prefetch(b, b.inttoptr(there, VECTOR.as_pointer()), level=2)
        news = {}
        for i in rows:
            number = splat(b, b.load(b.inttoptr(b.add(a_of_row[i], offset), FLOAT.as_pointer())))
            for v in columns:
                news[i, v] = fma(b, number, b_of_column[v], sums[i, v])
        return news

    k, sums = start, {(i, v): constant(0.0) for i in rows for v in columns}
    if len(rows) >= MR - 1:
        enough = b.icmp_signed("<=", later_step, LONG(LINE // UNROLL))
        k, sums = loop_over(b, k, b.select(enough, stop, start), UNROLL, sums, add_products)
    _, sums = loop_over(b, k, stop, 1, sums, add_products)
    return sums


def _emit_addition(b: Any, sums: Sums, address: Value, step: Value) -> Sums:
    """Emit the addition of what stands at an address to the sums, if that is not 0."""
    without = b.block
    with b.if_then(b.icmp_signed("!=", address, LONG(0))):
        news = {
            (i, v): b.fadd(total, b.load(_at(b, address, step, i, v), align=4))
            for (i, v), total in sums.items()
        }
        inside = b.block
    added = {place: b.phi(VECTOR) for place in sums}
    for place, phi in added.items():
        phi.add_incoming(sums[place], without)
        phi.add_incoming(news[place], inside)
    return added


def loop_over(
    b: Any, start: Value, stop: Value, at_once: int, sums: Sums, update: Callable[[Value, int, Sums], Sums]
) -> tuple[Value, Sums]:
    """Emit a loop that makes `at_once` steps in each turn, while there are so many left."""
    before, check, turn, after = b.block, *map(b.append_basic_block, ("check", "turn", "after"))
    b.branch(check)

    b.position_at_end(check)
    k, kept = b.phi(LONG), {place: b.phi(total.type) for place, total in sums.items()}
    following = b.add(k, LONG(at_once))
    b.cbranch(b.icmp_signed("<=", following, stop), turn, after)

    b.position_at_end(turn)
    news = kept
    for step in range(at_once):
        news = update(k, step, news)
    b.branch(check)

    for origin, first, values in ((before, start, sums), (turn, following, news)):
        k.add_incoming(first, origin)
        for place, phi in kept.items():
            phi.add_incoming(values[place], origin)
    b.position_at_end(after)
    return k, kept


def _prefetch(b: Any, pointer: Value, level: int) -> None:
    """Prefetch a cache line for reading, into this cache level and all slower ones."""
    byte = b.bitcast(pointer, ir.IntType(8).as_pointer())
    call(b, "llvm.prefetch.p0", ir.VoidType(), byte, *(ir.Constant(INT, n) for n in (0, 4 - level, 1)))
