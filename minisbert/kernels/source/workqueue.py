"""A lock-free work queue: one small input, several threads, which share the units of each operation in turn.

A large input keeps all processors busy without this: each worker has micro-batches of its own. A single sentence is
a chain of some fifty operations of 20 to 100 microseconds each. Handing their units to a thread pool would take longer
than they do. So helper threads watch, without the interpreter lock, a *queue* in memory, which has one operation at a
time. A unit of `linear` is one panel for one block of rows; one of `attention`, a few heads of one sentence.

- Its head is the *range*, one word: an *epoch*, which counts operations, the first free unit, and the end of the free
  ones. A thread takes units by an atomic compare-and-swap of that word: the owner from the front, helpers from the
  back.
- To publish an operation the owner first *closes* the queue: a new epoch, with no units. Then it writes the arguments,
  and at last the open range, of another epoch. The compare-and-swap of a helper that was delayed fails, as the epoch
  in the word is another one (no ABA), so it never uses arguments that are being written.
- *Guided self-scheduling*: each takes its share of what is left, for two threads a half, and at the end one unit. The
  shares shrink, so all are done at about the same time; and they are neighbours in memory, so what a thread prefetches
  is its own. For attention a thread takes a quarter of its share, as the units of a long sentence take longer.
- The owner goes on when all units are finished. If the helpers sleep, it has done them all itself.
- A helper *spins* for a while after the owner has left: in a loop over single sentences it is there when the next one
  comes, where waking it would take 50 microseconds and the interpreter lock.

Without a helper the owner does the same on a queue that nobody else watches: there is one way to do an operation. Which
thread computes a unit makes no difference to its bits. `runtime.helpers` keeps queues and helpers.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from minisbert.kernels.operations import ARGUMENTS, OPERATIONS, STEP
from minisbert.kernels.runtime.compiler import doubles_at, inlined, kernel, longs_at
from minisbert.kernels.runtime.helpers import (
    BITS,
    CODE,
    FINISHED,
    FIRST,
    GIVEN,
    HELPERS,
    MOST,
    RANGE,
    UNITS,
    YIELD,
)
from minisbert.kernels.source.units import do_unit, do_whole
from minisbert.kernels.source.vector import INT, LONG, call

LAST_LINEAR = OPERATIONS["linear_narrow"].code  # linear is before it
FIRST_WHOLE = min(operation.code for operation in OPERATIONS.values() if not operation.is_shared)

# So many looks, of some 20 nanoseconds each, before a waiting thread yields its processor. The next operation comes
# soon as a rule; a unit that is not finished soon may be that of a thread that waits for this processor.
IDLE_LOOKS, UNIT_LOOKS = 5_000, 1_000
STAY = 50_000  # looks, about a millisecond, for which a helper spins when nobody wants it

# --- Memory that several threads look at ------------------------------------------------------------------
#
# Why each thread sees what it must, by the C++ memory model, which is ARM's too. `read`, `write`, `fetch_add` and
# `compare_and_swap` are "seq_cst": who reads a number sees all that was written before it was.
#
# - Arguments: the owner writes them before it opens the range, and a thread that takes units has read that range, or
#   what compare-and-swaps made of it, which are a *release sequence*.
# - They stay as they are while a unit is unfinished: a thread adds to FINISHED after its last use of them, and the
#   owner reads the sum of all of these before it writes the next ones. So a thread that took units can't have seen any
#   of a later operation, not even before its compare-and-swap. That needs no order of `close` and of what is written
#   after it, and on ARM there is none: a store that releases may be overtaken by later ones.
# - Results: they are written before `fetch_add`, and read after the owner has seen the sum, or the range that follows.
# - FINISHED is 0 before the range is open, and nobody adds to it who has not taken units of this range.
# - A range that is closed has no units, so nobody swaps it, and a plain store to it loses nobody's.
# - CODE, UNITS and HELPERS are looked at before units are taken, maybe while they are written. They only say how many
#   to try to take: any number does, but a number it must be. So they are read and written in one piece (relaxed).


def load(ordering: str, doc: str) -> Any:
    """Make a function that reads a number of eight bytes in one piece."""

    def typed(_typing: Any, address: Any) -> Any:
        def emit(_context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
            return b.load_atomic(b.inttoptr(arguments[0], ir.IntType(64).as_pointer()), ordering, 8)

        return types.int64(types.intp), emit

    typed.__doc__ = doc
    return intrinsic(typed)


def store(ordering: str, doc: str) -> Any:
    """Make a function that writes a number of eight bytes in one piece."""

    def typed(_typing: Any, address: Any, value: Any) -> Any:
        def emit(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
            pointer = b.inttoptr(arguments[0], ir.IntType(64).as_pointer())
            b.store_atomic(arguments[1], pointer, ordering, 8)
            return context.get_dummy_value()

        return types.void(types.intp, types.int64), emit

    typed.__doc__ = doc
    return intrinsic(typed)


read = load(
    "seq_cst", "Read a number as another thread last wrote it, and see everything that it wrote before."
)
write = store(
    "seq_cst", "Write a number after all that this thread wrote before; later writes may overtake it."
)
read_relaxed = load(
    "monotonic", "Read a number that may be written meanwhile, and which tells nothing of others."
)
write_relaxed = store("monotonic", "Write a number that may be read meanwhile.")


@intrinsic
def fetch_add(_typing: Any, address: Any, value: Any) -> Any:
    """Raise a number, whoever else does."""

    def emit(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        pointer = b.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        b.atomic_rmw("add", pointer, arguments[1], "seq_cst")
        return context.get_dummy_value()

    return types.void(types.intp, types.int64), emit


@intrinsic
def compare_and_swap(_typing: Any, address: Any, expected: Any, value: Any) -> Any:
    """Replace a number if it is the expected one; return whether it was."""

    def emit(_context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        pointer = b.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        result = b.cmpxchg(pointer, arguments[1], arguments[2], "seq_cst", "seq_cst")
        return b.extract_value(result, 1)

    return types.boolean(types.intp, types.int64, types.int64), emit


@intrinsic
def pause(_typing: Any) -> Any:
    """Wait for some cycles, such that a second thread of the same core can use them."""

    def emit(context: Any, b: Any, _signature: Any, _arguments: Any) -> Any:
        call(b, "minisbert.pause", ir.VoidType())
        return context.get_dummy_value()

    return types.void(), emit


@intrinsic
def call_at(_typing: Any, address: Any) -> Any:
    """Call a function of the system that takes nothing.

    On Windows 32 bytes above its return address are its own. Here they are four numbers that seem to be given to it,
    behind those that are in registers.
    """

    def emit(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(INT, [LONG] * 10)
        b.call(b.inttoptr(arguments[0], kind.as_pointer()), [LONG(ir.Undefined)] * 10)
        return context.get_dummy_value()

    return types.void(types.intp), emit


# --- The queue --------------------------------------------------------------------------------------------


@kernel("i8", "i8", "i8")
def work(queue: int, epoch: int, slot: int) -> None:
    """Take units until there are none left, or until the range is that of another epoch.

    At most as many threads take part as there are units.
    """
    places, arguments = longs_at(queue), longs_at(queue + 8 * GIVEN)
    while True:
        seen = read(queue + 8 * RANGE)
        first, last = seen >> BITS & MOST, seen & MOST
        if seen >> 2 * BITS != epoch or first == last or slot >= read_relaxed(queue + 8 * UNITS):
            return
        threads = 1 + read_relaxed(queue + 8 * HELPERS)
        shares = threads if read_relaxed(queue + 8 * CODE) <= LAST_LINEAR else 4 * threads
        count = max(1, (last - first) // shares)
        start, left = last - count, seen - count
        if slot == 0:  # the owner
            start, left = first, seen + (count << BITS)
        if compare_and_swap(queue + 8 * RANGE, seen, left):
            for unit in range(places[FIRST] + start, places[FIRST] + start + count):
                # Code, first unit and arguments do not change while any unit is unfinished.
                do_unit(places[CODE], unit, slot, arguments)
            fetch_add(queue + 8 * FINISHED, count)


@inlined
def next_epoch(queue: int) -> int:
    """Return the next epoch, modulo 2**22."""
    return ((read(queue + 8 * RANGE) >> 2 * BITS) + 1) & 0x3FFFFF


@inlined
def spin(queue: int, looks: int, most: int) -> int:
    """Count a look in vain, and yield the processor after so many: the thread waited for may need it."""
    pause()
    if looks < most:
        return looks + 1
    if longs_at(queue)[YIELD]:
        call_at(longs_at(queue)[YIELD])
    return 0


@kernel("i8")
def close(queue: int) -> None:
    """Let nobody take a unit any more; now the next operation can be written."""
    write(queue + 8 * RANGE, next_epoch(queue) << 2 * BITS)


@inlined
def share(queue: int, code: int, first: int, units: int, arguments: int) -> None:
    """Publish so many units of an operation, work on them, and wait until all are finished."""
    close(queue)
    places, given = longs_at(queue), longs_at(arguments)
    write_relaxed(queue + 8 * CODE, code)
    write_relaxed(queue + 8 * UNITS, units)
    places[FIRST] = first
    for i in range(ARGUMENTS):
        places[GIVEN + i] = given[i]
    write(queue + 8 * FINISHED, 0)
    epoch = next_epoch(queue)
    write(queue + 8 * RANGE, epoch << 2 * BITS | units)
    work(queue, epoch, 0)
    looks = 0
    while read(queue + 8 * FINISHED) < units:
        looks = spin(queue, looks, UNIT_LOOKS)


@kernel("i8", "i8")
def execute(queue: int, step: int) -> None:
    """Do one operation: ``step`` has its code, its units and its arguments. A range counts at most MOST units."""
    numbers, arguments = longs_at(step), step + 16
    code, units = numbers[0], numbers[1]
    if code < FIRST_WHOLE:  # shared ones come first in the table
        for first in range(0, units, MOST):
            share(queue, code, first, min(MOST, units - first), arguments)
    else:
        do_whole(code, longs_at(arguments), doubles_at(arguments))


@inlined
def fill_in(row: int, variables: int, step: int) -> None:
    """Compute the numbers of a step as its row of the table says: ``constant + base + times * count``."""
    terms, values, numbers = longs_at(row), longs_at(variables), longs_at(step)
    for i in range(STEP):
        constant, times, base, count = terms[4 * i], terms[4 * i + 1], terms[4 * i + 2], terms[4 * i + 3]
        numbers[i] = constant + values[base] + times * values[count]


@kernel("i8", "i8", "i8", "i8", "i8")
def replay(queue: int, table: int, count: int, variables: int, steps: int) -> None:
    """Do the steps of a `plan.Plan`, one after the other.

    All of them are filled in first: to read the table in one go, from memory as a rule, takes less time.
    """
    for i in range(count):
        fill_in(table + i * STEP * 4 * 8, variables, steps + i * STEP * 8)
    for i in range(count):
        execute(queue, steps + i * STEP * 8)


@kernel("i8", "i8")
def watch(queue: int, slot: int) -> None:
    """Work on every operation that appears in the queue; return STAY looks after this helper is no longer wanted."""
    done, looks, stayed = -1, 0, 0
    while stayed < STAY:
        stayed += 1
        if slot <= read(queue + 8 * HELPERS):
            stayed = 0
            epoch = read(queue + 8 * RANGE) >> 2 * BITS
            if epoch != done:
                work(queue, epoch, slot)
                done, looks = epoch, 0
        looks = spin(queue, looks, IDLE_LOOKS)
