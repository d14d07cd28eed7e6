"""A whole model in one call: what it does to any micro-batch, written down once.

A short sentence takes a millisecond or two, and its fifty operations one more in the interpreter alone: making
arrays, finding their addresses, calling. But they are the same operations every time, on the same weights; of all that
they are given, only sizes and places differ. So the forward pass is run once, when a model is loaded, over *values*
that stand for arrays, by a backend that writes down each operation instead of doing it. Every argument it writes is
made of two constants and two of the VARIABLES, ``constant + base + times * count``: the address of a result, say, is
that of the arena, where all results go, plus the bytes before it in a row times the number of rows. To run the program
for a micro-batch, `board.run` is given the variables; it computes the arguments of each operation, and does them in
turn.

Results share the arena as variables share registers: each has its place until its last reader is done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from minisbert.arrays import Floats
from minisbert.kernels.compiled.packing import ACTIVATIONS, Packed
from minisbert.kernels.layout import address, is_table
from minisbert.kernels.runtime.helpers import (
    ATTEND,
    EMBED,
    GROUPS,
    JOB,
    MULTIPLY,
    NORM,
    NORMALIZE,
    NUMBER_OF_VARIABLES,
    POOL,
    POSITIONS,
)
from minisbert.kernels.tuning import row_bytes

__all__ = ["INPUTS", "NO_PADDING", "PER_SENTENCE", "PER_TOKEN", "VARIABLES", "Program", "Writer"]

# What a result has rows of: the numbers of both are among the VARIABLES.
PER_TOKEN, PER_SENTENCE = "tokens", "sentences"
_NAMES = "zero tokens blocks sentences ids types offsets y arena sentence_arena room room_size word word_ids"
VARIABLES = tuple(_NAMES.split())
assert len(VARIABLES) == NUMBER_OF_VARIABLES
INPUTS: Any = ("ids", "types", "offsets")  # stand for the arrays of these names
NO_PADDING = -1


@dataclass(frozen=True, eq=False)
class Value:
    """A result (N, width) or (S, width) that is not there yet."""

    width: int
    of: str = PER_TOKEN

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
        self.other_word: Floats | None = None

    def _write(self, *job: Argument) -> None:
        self.jobs.append([*job, *[0] * (JOB - len(job))])

    def positions(self, ids: Any, offsets: Any, padding: int | None) -> Value:
        """Write down `jit.positions`: numbers one after the other, for which N rows of a Value are more than enough."""
        y = Value(1)
        self._write(POSITIONS, 0, PER_SENTENCE, ids, offsets, NO_PADDING if padding is None else padding, y)
        return y

    def embed(
        self,
        ids: Any,
        positions: Value,
        types: Any,
        word: Floats,
        position: Floats,
        token_type: Floats | None,
    ) -> Value:
        """Write down `jit.embed`; the rows of a table of another dtype are converted to one of their own each time."""
        y = Value(word.shape[1])
        words: Argument = address(word)
        if not is_table(word):
            self.other_word, words, ids = word, "word", "word_ids"
        tables = words, address(position), 0 if token_type is None else address(token_type)
        self._write(EMBED, 0, PER_TOKEN, y.width, ids, positions, types, *tables, y)
        return y

    def linear(
        self, x: Value, dense: Packed, activation: str | None = None, residual: Value | None = None
    ) -> Value:
        """Write down `jit.linear`."""
        assert x.of == PER_TOKEN  # as "blocks" counts those of tokens
        if activation is not None and residual is not None:
            raise ValueError("a program's multiply has an activation or a residual, not both")
        y = Value(dense.width)
        places = x, dense.address, dense.bias_address, residual or 0, ACTIVATIONS[activation], y
        self._write(MULTIPLY, (dense.P, "blocks"), PER_TOKEN, dense.K, dense.width, *places)
        return y

    def attention(self, qkv: Value, offsets: Any, num_heads: int, bias: Floats | None = None) -> Value:
        """Write down `jit.attention`."""
        D = qkv.width // 3
        context, table, span = Value(D), 0, 0
        if bias is not None:
            table, span = address(bias), bias.shape[1]
        self.head_width = D // num_heads
        places = D, num_heads, qkv, offsets, table, span, context, "room", "room_size"
        self._write(ATTEND, (GROUPS, PER_SENTENCE), *places)
        return context

    def layer_norm(self, x: Value, weight: Floats, bias: Floats, eps: float) -> Value:
        """Write down `jit.layer_norm`; eps as the bits of a float64."""
        y, bits = Value(x.width, x.of), int(np.float64(eps).view(np.int64))
        self._write(NORM, 0, x.of, x.width, x, address(weight), address(bias), bits, y)
        return y

    def pool(self, x: Value, offsets: Any, mode: str, skip: int) -> Value:
        """Write down the mean of whole sentences, which is all that `model.is_plain` lets through."""
        assert (mode, skip) == ("mean", 0)
        y = Value(x.width, PER_SENTENCE)
        self._write(POOL, 0, PER_SENTENCE, x.width, x, offsets, y)
        return y

    def normalize(self, x: Value) -> Value:
        """Write down `jit.normalize`."""
        y = Value(x.width, x.of)
        self._write(NORMALIZE, 0, x.of, x.width, x, y)
        return y


class Program:
    """The operations of ``y = function(ids, types, offsets, kernels)``.

    Attributes
    ----------
    table : ndarray of int64, shape (jobs, JOB, 4)
        What each number of a job is made of: the constant, times, and which variables base and count are.
    y : Value
        Stands for the result.
    arena_width : dict of str to int
        How many floats the arena has for each token and for each sentence.
    head_width : int
        K, on which the room for attention depends.
    other_word : ndarray or None
        The table of words, if it is not float32.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        writer = Writer()
        self.y: Value = function(*INPUTS, writer)
        self._function = function  # holds the weights, whose addresses are in the table
        self.head_width, self.other_word = writer.head_width, writer.other_word
        places, self.arena_width = _places(writer.jobs, self.y)
        self.table: NDArray[np.int64] = np.array(
            [[_terms(number, self.y, places) for number in job] for job in writer.jobs], np.int64
        )


def _terms(number: Argument, y: Value, places: dict[Value, int]) -> tuple[int, int, int, int]:
    """Return what a number is made of."""
    constant, times, base, count = 0, 0, "zero", "zero"
    match number:
        case int():
            constant = number
        case str():
            base = number
        case (times, count):
            pass
        case Value() if number is y:
            base = "y"
        case Value():
            base = "arena" if number.of == PER_TOKEN else "sentence_arena"
            times, count = 4 * places[number], number.of
    return constant, times, VARIABLES.index(base), VARIABLES.index(count)


def _places(jobs: list[list[Argument]], y: Value) -> tuple[dict[Value, int], dict[str, int]]:
    """Give each result but y the first place in its part of the arena that nobody needs; say how wide the parts are."""
    values = [[a for a in job if isinstance(a, Value) and a is not y] for job in jobs]
    last = {value: i for i, some in enumerate(values) for value in some}
    places: dict[Value, int] = {}
    for i, some in enumerate(values):
        for value in some:
            if value not in places:
                others = [v for v in places if v.of == value.of and last[v] >= i]
                busy = sorted((places[v], places[v] + v.size) for v in others)
                places[value] = _first_gap(busy, value.size)
    widths = {PER_TOKEN: 0, PER_SENTENCE: 0}
    for value, place in places.items():
        widths[value.of] = max(widths[value.of], place + value.size)
    return places, widths


def _first_gap(busy: list[tuple[int, int]], width: int) -> int:
    """Return the first place of so many floats beside busy ranges, which are sorted."""
    place = 0
    for start, stop in busy:
        if start - place >= width:
            break
        place = max(place, stop)
    return place
