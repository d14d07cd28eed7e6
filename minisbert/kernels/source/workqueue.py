"""One small input, several threads: the panels of a multiply and the heads of an attention, shared out.

A large input keeps all processors busy without this: each worker has micro-batches of its own. A single sentence is
a chain of some forty operations of 20 to 100 microseconds each. Handing parts of these to a thread pool would take
longer than they do. So a helper thread watches, without the interpreter lock, a *board* in memory:

- Whoever runs an operation first writes a *closed* ticket, with a new job number and no units to take. Then come its
  arguments, and at last the open ticket: another job number, and next to it the first and the last of the units that
  nobody has taken (a unit is one panel for some rows, or a few heads of one sentence).
- The owner takes units from the front and helpers from the back, by an atomic compare-and-swap of the ticket. It fails
  if the ticket is no longer that of the job that was seen, so a helper that comes late takes nothing: while arguments
  are being written, no ticket that anybody has seen open is there any more.
- Each takes its share of what is left, for two threads a half, and at the end one unit: neighbouring panels are
  neighbours in memory, and what a thread asks memory for ahead of time should be its own. The shares shrink, so all are
  done at about the same time. Of attention it is a quarter of that, as a long sentence's units take longer than others.
- The owner goes on when as many units are finished as there are. If the helper sleeps, the owner has done them all.
- A helper stays for a while after the owner has left: in a loop over single sentences it is there when the next one
  comes, where waking it would take 50 microseconds and the interpreter lock.

Without a helper the owner does the same on a board that nobody else looks at: there is one way to run an operation.
Which thread computes a unit makes no difference to its bits. `runtime.helpers` keeps boards and helpers.
"""

from __future__ import annotations

import os
from platform import machine
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from minisbert.kernels.runtime.compiler import (
    count_panels,
    doubles_at,
    kernel,
    longs_at,
    part,
    row_bytes,
    start_of_panel,
)
from minisbert.kernels.runtime.helpers import (
    ARGUMENTS,
    BITS,
    EMBED,
    FINISHED,
    FIRST,
    GROUPS,
    HELPERS,
    JOB,
    KIND,
    MOST,
    MULTIPLY,
    NORM,
    NORMALIZE,
    NUMBER_OF_ARGUMENTS,
    POOL,
    POSITIONS,
    TICKET,
    UNITS,
)
from minisbert.kernels.source.attention import attend
from minisbert.kernels.source.gemm import multiply_panel
from minisbert.kernels.source.rowwise import embed, layer_norm, mean_pool, normalize, positions
from minisbert.kernels.tuning import BLOCK

# So many looks, of some 20 nanoseconds each, before a waiting thread lets others have its processor. The next job comes
# soon as a rule; a unit that is not finished soon may be that of a thread that waits for this processor.
JOB_PATIENCE, UNIT_PATIENCE = 5_000, 1_000
STAY = 50_000  # looks, about a millisecond, for which a helper stays when nobody wants it

# --- Memory that several threads look at ------------------------------------------------------------------


@intrinsic
def read(_typing: Any, address: Any) -> Any:
    """Read a number as another thread last wrote it, and everything that it wrote before."""

    def emit(_context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        return b.load_atomic(b.inttoptr(arguments[0], ir.IntType(64).as_pointer()), "seq_cst", 8)

    return types.int64(types.intp), emit


@intrinsic
def write(_typing: Any, address: Any, value: Any) -> Any:
    """Write a number after all that this thread wrote before, and before all that it writes later."""

    def emit(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        pointer = b.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        b.atomic_rmw("xchg", pointer, arguments[1], "seq_cst")  # a store alone would not hold back later ones
        return context.get_dummy_value()

    return types.void(types.intp, types.int64), emit


@intrinsic
def add(_typing: Any, address: Any, value: Any) -> Any:
    """Raise a number, whoever else does."""

    def emit(context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        pointer = b.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        b.atomic_rmw("add", pointer, arguments[1], "seq_cst")
        return context.get_dummy_value()

    return types.void(types.intp, types.int64), emit


@intrinsic
def swap(_typing: Any, address: Any, expected: Any, value: Any) -> Any:
    """Replace a number if it is the expected one; return whether it was."""

    def emit(_context: Any, b: Any, _signature: Any, arguments: Any) -> Any:
        pointer = b.inttoptr(arguments[0], ir.IntType(64).as_pointer())
        result = b.cmpxchg(pointer, arguments[1], arguments[2], "seq_cst", "seq_cst")
        return b.extract_value(result, 1)

    return types.boolean(types.intp, types.int64, types.int64), emit


# How a processor is told that a thread waits: a function that LLVM knows, and its arguments.
_PAUSE: tuple[str, list[Any]] = ("llvm.x86.sse2.pause", [])
_YIELD: tuple[str, list[Any]] = ("llvm.aarch64.hint", [ir.IntType(32)(1)])
_HINTS = {"x86_64": _PAUSE, "AMD64": _PAUSE, "aarch64": _YIELD, "arm64": _YIELD}


@intrinsic
def breathe(_typing: Any) -> Any:
    """Wait for some cycles, such that a second thread of the same core can use them."""

    def emit(context: Any, b: Any, _signature: Any, _arguments: Any) -> Any:
        name, arguments = _HINTS.get(machine(), ("llvm.donothing", []))
        kind = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
        b.call(cgutils.get_or_insert_function(b.module, kind, name), arguments)
        return context.get_dummy_value()

    return types.void(), emit


@intrinsic
def let_others_run(_typing: Any) -> Any:
    """Let another thread have this processor; the one waited for may need it."""

    def emit(context: Any, b: Any, _signature: Any, _arguments: Any) -> Any:
        name = "SwitchToThread" if os.name == "nt" else "sched_yield"
        kind = ir.FunctionType(ir.IntType(32), [])
        b.call(cgutils.get_or_insert_function(b.module, kind, name), [])
        return context.get_dummy_value()

    return types.void(), emit


# --- Working on a job -------------------------------------------------------------------------------------


@part
def do_multiply(unit: int, a: Any) -> None:
    """Do one panel for one block of rows, which are as even as they go; the arguments are those of `jit.linear`."""
    N, K, width, x, b = a[0], a[1], a[2], a[3], a[4]
    bias, residual, activation, y = a[5], a[6], a[7], a[8]
    wide, P = count_panels(width)
    blocks = (N + BLOCK - 1) // BLOCK
    i, p = unit // P, unit % P
    row, stop = N * i // blocks, N * (i + 1) // blocks
    panel, x, above = b + start_of_panel(p, wide) * K * 4, x + row * row_bytes(K), row * row_bytes(width)
    added = residual + above if residual else 0
    multiply_panel((stop - row, K, width, x, panel, bias, added, activation, y + above, p))


@part
def do_attend(unit: int, a: Any, slot: int) -> None:
    """Do one group of heads of one sentence; the arguments are those that `jit.attention` gives."""
    D, num_heads, qkv, offsets = a[0], a[1], a[2], a[3]
    bias, span, context, room = a[4], a[5], a[6], a[7] + slot * a[8]
    s, g = unit // GROUPS, unit % GROUPS
    ends = longs_at(offsets + s * 8)
    first, T = ends[0], ends[1] - ends[0]
    start, stop = g * num_heads // GROUPS, (g + 1) * num_heads // GROUPS
    qkv, context = qkv + first * row_bytes(3 * D), context + first * row_bytes(D)
    attend((D, num_heads, T, qkv, bias, span, context, start, stop, room))


@kernel("i8", "i8", "i8")
def work(address: int, job: int, slot: int) -> None:
    """Take units of a job until there are none left, or until the ticket is that of another job.

    A job is for as many threads as it has units: more would only be in each other's way at the ticket.
    """
    board, arguments = longs_at(address), longs_at(address + 8 * ARGUMENTS)
    while True:
        ticket = read(address + 8 * TICKET)
        first, last = ticket >> BITS & MOST, ticket & MOST
        if ticket >> 2 * BITS != job or first == last or slot >= board[UNITS]:
            return
        shares = 1 + board[HELPERS] if board[KIND] == MULTIPLY else 4 * (1 + board[HELPERS])
        count = max(1, (last - first) // shares)
        start, left = last - count, ticket - count
        if slot == 0:  # the owner
            start, left = first, ticket + (count << BITS)
        if swap(address + 8 * TICKET, ticket, left):
            for unit in range(board[FIRST] + start, board[FIRST] + start + count):
                if board[KIND] == MULTIPLY:  # and the arguments: all stays as it is while units are taken
                    do_multiply(unit, arguments)
                else:
                    do_attend(unit, arguments, slot)
            add(address + 8 * FINISHED, count)


@part
def next_job(address: int) -> int:
    """Return a number that the last few million tickets did not have."""
    return ((read(address + 8 * TICKET) >> 2 * BITS) + 1) & 0x3FFFFF


@part
def rest(looks: int, patience: int) -> int:
    """Count a look in vain, and let others have the processor now and then."""
    breathe()
    if looks < patience:
        return looks + 1
    let_others_run()
    return 0


@kernel("i8")
def close(address: int) -> None:
    """Let nobody take a unit any more; now the next job can be written."""
    write(address + 8 * TICKET, next_job(address) << 2 * BITS)


@part
def share_out(address: int, kind: int, first: int, units: int, arguments: int) -> None:
    """Publish a job of so many units, work on it, and wait until all of it is done."""
    close((address,))
    board, given = longs_at(address), longs_at(arguments)
    board[KIND], board[UNITS], board[FIRST] = kind, units, first
    for i in range(NUMBER_OF_ARGUMENTS):
        board[ARGUMENTS + i] = given[i]
    write(address + 8 * FINISHED, 0)
    job = next_job(address)
    write(address + 8 * TICKET, job << 2 * BITS | units)
    work((address, job, 0))
    looks = 0
    while read(address + 8 * FINISHED) < units:
        looks = rest(looks, UNIT_PATIENCE)


@kernel("i8", "i8", "i8", "i8")
def post(address: int, kind: int, units: int, arguments: int) -> None:
    """Do so many units of work, in jobs of as many as a ticket can count."""
    for first in range(0, units, MOST):
        share_out(address, kind, first, min(MOST, units - first), arguments)


@part
def fill_in(row: int, variables: int, job: int) -> None:
    """Compute the numbers of a job as its row of the table says: ``constant + base + times * count``."""
    terms, values, numbers = longs_at(row), longs_at(variables), longs_at(job)
    for i in range(JOB):
        constant, times, base, count = terms[4 * i], terms[4 * i + 1], terms[4 * i + 2], terms[4 * i + 3]
        numbers[i] = constant + values[base] + times * values[count]


@kernel("i8", "i8", "i8", "i8", "i8")
def run(address: int, table: int, count: int, variables: int, jobs: int) -> None:
    """Run the jobs in the table of a `program.Program`, one after the other.

    All of them are written down first: to read the table in one go, from memory as a rule, takes less time. Multiplies
    and attention are shared out; the rest is too small for that.
    """
    for j in range(count):
        fill_in(table + j * JOB * 4 * 8, variables, jobs + j * JOB * 8)
    for j in range(count):
        place = jobs + j * JOB * 8
        job, a, reals = longs_at(place), longs_at(place + 16), doubles_at(place + 16)
        if job[0] == NORM:
            layer_norm((a[0], a[1], a[2], a[3], a[4], reals[5], a[6]))
        elif job[0] == POSITIONS:
            positions((a[0], a[1], a[2], a[3], a[4]))
        elif job[0] == EMBED:
            embed((a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8]))
        elif job[0] == POOL:
            mean_pool((a[0], a[1], a[2], a[3], a[4]))
        elif job[0] == NORMALIZE:
            normalize((a[0], a[1], a[2], a[3]))
        else:
            post((address, job[0], job[1], place + 16))


@kernel("i8", "i8")
def watch(address: int, slot: int) -> None:
    """Work on every job that appears on the board while this helper is wanted, and leave a while after that ends."""
    seen, looks, stayed = -1, 0, 0
    while stayed < STAY:
        stayed += 1
        if slot <= read(address + 8 * HELPERS):
            stayed = 0
            job = read(address + 8 * TICKET) >> 2 * BITS
            if job != seen:
                work((address, job, slot))
                seen, looks = job, 0
        looks = rest(looks, JOB_PATIENCE)
