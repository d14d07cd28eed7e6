"""Record and replay: a whole model in one call, as a plan that is made once.

A short sentence takes a millisecond or two, and calling its fifty operations from Python would add another one: making
arrays, finding their addresses. But they are the same operations every time, on the same weights; only sizes and
addresses differ. So the forward pass is run once over *values*, which stand for arrays, on a backend that records each
operation instead of doing it (as CUDA graphs and tracing compilers do). Every argument it records is
``constant + base + times * count``, where base and count are two of the VARIABLES: the address of a result, say, is
that of the arena plus the bytes before it in a row times the number of rows. To replay the plan for a micro-batch,
`workqueue.replay` is given the variables; it computes the arguments of each step, and does the steps in turn.

Results share one memory arena (by *liveness*): the place of one is used again after its last reader.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from minisbert.arrays import Floats, Ints
from minisbert.kernels import layout
from minisbert.kernels.compiled.ops import Ops
from minisbert.kernels.operations import OPERATIONS, STEP, Operation
from minisbert.kernels.runtime import helpers
from minisbert.kernels.tuning import MC, attention_room, row_bytes

__all__ = ["INPUTS", "PER_SENTENCE", "PER_TOKEN", "VARIABLES", "Plan", "Recorder", "Value"]

# A result has one row for each token, or for each sentence.
PER_TOKEN, PER_SENTENCE = "tokens", "sentences"
# The inputs, addresses of a replay's memory, and the table of words where that is not float32.
_NAMES = "zero tokens blocks sentences ids types offsets y arena sentence_arena room room_bytes word word_ids"
VARIABLES = tuple(_NAMES.split())


@dataclass(frozen=True, eq=False)
class Value:
    """An array (N, width) or (S, width) that is not there yet; an input is in a variable, a result in the arena."""

    of: str
    width: int
    variable: str | None = None

    @property
    def shape(self) -> tuple[str, int]:
        """The variable that is the number of rows, and the width."""
        return self.of, self.width

    @property
    def size(self) -> int:
        """How many floats one of its rows takes in the arena."""
        return row_bytes(self.width) // 4


INPUTS: Any = [
    Value(of, 1, name) for name, of in (("ids", PER_TOKEN), ("types", PER_TOKEN), ("offsets", PER_SENTENCE))
]
Argument: TypeAlias = "int | str | Value | tuple[int, str]"  # a constant, a variable, an address, a multiple


class Recorder(Ops):
    """A backend that records operations: of each its code, its units, and its arguments."""

    def __init__(self, attention_operation: str = "attention") -> None:
        self.attention_operation = attention_operation
        self.steps: list[list[Argument]] = []
        self.head_width = 0
        self.word: Floats | None = None  # if it is not float32
        self.held: list[Any] = []  # whose addresses are recorded

    def _perform(self, operation: Operation, units: Any, arguments: list[Any]) -> None:
        given = [layout.laid_out(kind, a) for kind, a in zip(operation.kinds, arguments, strict=True)]
        recorded = [a if isinstance(a, str | Value) else layout.number(a) for a in given]
        self.held += given
        if operation is OPERATIONS["narrow"] and self._narrowed_by_norm(*recorded[2:]):
            return
        self.steps.append([operation.code, units, *recorded, *[0] * (STEP - 2 - len(recorded))])

    def _narrowed_by_norm(self, arithmetic: Argument, x: Argument, z: Argument) -> bool:
        """Let the step before make rows ready to be multiplied, if it is the layer norm that makes them."""
        before, norm = self.steps[-1], OPERATIONS["layer_norm"]
        is_so = before[0] == norm.code and before[2 + norm.names.index("y")] is x
        if is_so:
            for name, value in (("arithmetic", arithmetic), ("z", z)):
                before[2 + norm.names.index(name)] = value
        return is_so

    def _rows(self, N: str, width: int) -> Value:
        return Value(N, width)

    def _numbers(self, N: str) -> Value:
        return Value(N, 1)  # N contiguous int32, which fit into N rows of one float

    def _units(self, count: int, of: str, size: int = 1) -> tuple[int, str]:
        assert (of, size) in ((PER_TOKEN, MC), (PER_SENTENCE, 1))  # "blocks" counts those of MC tokens
        return count, of if size == 1 else "blocks"

    def _sentences(self, offsets: Value) -> str:
        return offsets.of

    def _room(self, N: str, K: int) -> tuple[str, str]:
        self.head_width = K
        return "room", "room_bytes"

    def _float32_table(self, word: Floats, ids: Any) -> tuple[Any, Any]:
        if layout.is_table(word):
            return word, ids
        self.word = word
        return "word", "word_ids"


class Plan:
    """The operations of ``y = function(ids, types, offsets, kernels)``.

    Attributes
    ----------
    table : ndarray of int64, shape (steps, STEP, 4)
        What each number of a step is made of: the constant, times, and which variables base and count are.
    y : Value
        Stands for the result.
    arena_width : dict of str to int
        How many floats the arena has for each token and for each sentence.
    """

    def __init__(
        self, function: Callable[..., Any], kernels: Any, attention_operation: str = "attention"
    ) -> None:
        self._kernels, recorder = kernels, Recorder(attention_operation)
        self.y: Value = function(*INPUTS, recorder)
        self._held, self._head_width, self._word = recorder.held, recorder.head_width, recorder.word
        places, self.arena_width = _places(recorder.steps, self.y)
        self.table: NDArray[np.int64] = np.array(
            [[_terms(n, self.y, places) for n in step] for step in recorder.steps], np.int64
        )
        self._address = layout.address(self.table)

    def replay(self, ids: Ints, types: Ints, offsets: Ints) -> Floats:
        """Return the result for a micro-batch: (N, width) or (S, width)."""
        N, S = len(ids), len(offsets) - 1
        ids, types = np.ascontiguousarray(ids, np.int32), np.ascontiguousarray(types, np.int32)
        offsets = np.ascontiguousarray(offsets, np.int64)
        room = attention_room(N, self._head_width)  # floats, for each thread
        sizes = (
            N * self.arena_width[PER_TOKEN],
            S * self.arena_width[PER_SENTENCE],
            room * helpers.threads(),
            2 * len(self.table) * STEP,
        )
        y, arena = layout.rows(N if self.y.of == PER_TOKEN else S, self.y.width), layout.room_for(sum(sizes))
        word = (None, None) if self._word is None else layout.only_rows(self._word, ids)
        *inputs, first, word_address, word_ids = map(layout.number, (ids, types, offsets, y, arena, *word))
        *rooms, steps = accumulate((4 * size for size in sizes[:-1]), initial=first)
        variables = 0, N, -(-N // MC), S, *inputs, *rooms, 4 * room, word_address, word_ids
        helpers.replay(self._kernels, self._address, len(self.table), variables, steps)
        return y


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
        case Value(variable=str(base)):
            pass
        case Value() if number is y:
            base = "y"
        case Value():
            base = "arena" if number.of == PER_TOKEN else "sentence_arena"
            times, count = 4 * places[number], number.of
    return constant, times, VARIABLES.index(base), VARIABLES.index(count)


def _places(steps: list[list[Argument]], y: Value) -> tuple[dict[Value, int], dict[str, int]]:
    """Give each result but y a place in its part of the arena, by first fit; return the widths of both parts."""
    values = [[a for a in step if isinstance(a, Value) and not a.variable and a is not y] for step in steps]
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
