"""All layers of a model in one call: what they do to any micro-batch, written down once.

A short sentence takes a few milliseconds, and its forty operations one of them in the interpreter alone: making
arrays, finding their addresses, calling. But they are the same operations every time, on the same weights; of all that
they are given, only sizes and places differ. So the forward pass is run once, when a model is loaded, over *values*
that stand for arrays, by a backend that writes down each operation instead of doing it. Every argument it writes is a
sum of constants and of a few VARIABLES times a constant: the address of a result, say, is that of the arena, where
all results go, plus the number of rows times the bytes before it in a row. To run the program for a micro-batch, one
small product of integers gives all arguments of all operations, and one call of `board.run` does them in turn.

Results share the arena as variables share registers: each has its place until its last reader is done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from minisbert.kernels import Floats, Ints
from minisbert.kernels.memory import address
from minisbert.kernels.packing import ACTIVATIONS, Packed
from minisbert.kernels.shape import row_bytes
from minisbert.kernels.team import ATTEND, GROUPS, MULTIPLY, NORM, NUMBER_OF_ARGUMENTS

__all__ = ["OFFSETS", "VARIABLES", "Program", "Writer"]

VARIABLES = ("one", "rows", "blocks", "sentences", "arena", "x", "y", "offsets", "room", "room_size")
OFFSETS: Any = "offsets"  # stands for the array of that name


@dataclass(frozen=True, eq=False)
class Value:
    """A result (N, width) that is not there yet."""

    width: int

    @property
    def size(self) -> int:
        """How many floats one of its rows takes in the arena."""
        return row_bytes(self.width) // 4


Argument: TypeAlias = "int | str | Value | tuple[int, str]"  # a constant, a variable, an address, a multiple


class Writer:
    """A backend that writes operations down: of each its kind, its units, and its arguments as on a board."""

    def __init__(self) -> None:
        self.jobs: list[list[Argument]] = []
        self.head_width = 0

    def _write(self, *job: Argument) -> None:
        self.jobs.append([*job, *[0] * (2 + NUMBER_OF_ARGUMENTS - len(job))])

    def linear(
        self, x: Value, dense: Packed, activation: str | None = None, residual: Value | None = None
    ) -> Value:
        """Write down `jit.linear`."""
        y, (P, K, _) = Value(dense.width), dense.panels.shape
        places = x, dense.address, dense.bias_address, residual or 0, ACTIVATIONS[activation], y
        self._write(MULTIPLY, (P, "blocks"), "rows", K, dense.width, *places)
        return y

    def attention(self, qkv: Value, _offsets: Any, num_heads: int, bias: Floats | None = None) -> Value:
        """Write down `jit.attention`."""
        D = qkv.width // 3
        context, table, span = Value(D), 0, 0
        if bias is not None:
            table, span = address(bias), bias.shape[1]
        self.head_width = D // num_heads
        places = D, num_heads, qkv, "offsets", table, span, context, "room", "room_size"
        self._write(ATTEND, (GROUPS, "sentences"), *places)
        return context

    def layer_norm(self, x: Value, weight: Floats, bias: Floats, eps: float) -> Value:
        """Write down `jit.layer_norm`; eps as the bits of a float64."""
        y, bits = Value(x.width), int(np.float64(eps).view(np.int64))
        self._write(NORM, 0, "rows", x.width, x, address(weight), address(bias), bits, y)
        return y


class Program:
    """The operations of ``y = function(x, offsets, kernels)``, with x (N, width) and y (N, out_width).

    Attributes
    ----------
    table : ndarray of int64, shape (jobs, 2 + NUMBER_OF_ARGUMENTS, len(VARIABLES))
        What each argument has of each variable.
    out_width : int
        How wide y is.
    arena_width : int
        How many floats a row of the arena has.
    head_width : int
        K, on which the room for attention depends.
    """

    def __init__(self, function: Callable[..., Any], width: int) -> None:
        writer, x = Writer(), Value(width)
        y = function(x, OFFSETS, writer)
        self._function = function  # holds the weights, whose addresses are in the table
        self.out_width, self.head_width = y.width, writer.head_width
        places, self.arena_width = _places(writer.jobs, (x, y))
        names = {x: "x", y: "y"}
        self.table: NDArray[np.int64] = np.array(
            [[_terms(argument, names, places) for argument in job] for job in writer.jobs], np.int64
        )


def _terms(argument: Argument, names: dict[Value, str], places: dict[Value, int]) -> Ints:
    """Return what an argument has of each variable."""
    match argument:
        case int():
            terms = {"one": argument}
        case str():
            terms = {argument: 1}
        case (times, name):
            terms = {name: times}
        case Value() if argument in names:
            terms = {names[argument]: 1}
        case _:
            terms = {"arena": 1, "rows": 4 * places[argument]}
    return np.array([terms.get(name, 0) for name in VARIABLES], np.int64)


def _places(jobs: list[list[Argument]], elsewhere: tuple[Value, ...]) -> tuple[dict[Value, int], int]:
    """Give each result the first place in the arena's rows that nobody needs; return also how long a row is."""
    values = [
        [a for a in job if isinstance(a, Value) and not any(a is other for other in elsewhere)]
        for job in jobs
    ]
    last = {value: i for i, some in enumerate(values) for value in some}
    places: dict[Value, int] = {}
    for i, some in enumerate(values):
        for value in some:
            if value not in places:
                busy = sorted((places[v], places[v] + v.size) for v in places if last[v] >= i)
                places[value] = _first_gap(busy, value.size)
    return places, max((place + value.size for value, place in places.items()), default=0)


def _first_gap(busy: list[tuple[int, int]], width: int) -> int:
    """Return the first place of so many floats beside busy ranges, which are sorted."""
    place = 0
    for start, stop in busy:
        if start - place >= width:
            break
        place = max(place, stop)
    return place
