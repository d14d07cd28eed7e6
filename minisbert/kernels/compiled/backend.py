"""The compiled backend: the operations of `minisbert.kernels.reference.ops`, the same names and meanings, for float32.

Everything is computed row by row or sentence by sentence, in an order that depends on that row or sentence alone.
So a sentence's vector is the same, bit for bit, in any batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from minisbert.arrays import Floats, Ints
from minisbert.kernels import layout
from minisbert.kernels.compiled.arithmetic import arithmetic, has_tiles
from minisbert.kernels.compiled.ops import Ops
from minisbert.kernels.compiled.packing import Packed
from minisbert.kernels.compiled.plan import Plan
from minisbert.kernels.operations import ACTIVATIONS, Operation
from minisbert.kernels.reference import activations
from minisbert.kernels.reference import ops as reference
from minisbert.kernels.runtime import helpers
from minisbert.kernels.tuning import attention_room

__all__ = ["Backend"]


class Backend(Ops):
    """Does each operation when it is called (eagerly), on real arrays."""

    def __init__(self, name: str, kernels: Any, dtype: str) -> None:
        self.NAME, self._kernels = name, kernels
        if dtype == "bfloat16" and has_tiles(dtype):
            self.attention_operation = "attention_tiles"

    def arithmetic(self, dtype: str, K: int) -> str:
        """Twin of `reference.arithmetic`."""
        name, _, how = arithmetic(dtype, K).partition(" ")
        if not how:
            return "float32"
        return f"{name}, by " + ("a matrix unit" if how == "tiles" else "sums of products")

    # Elementwise, and so independent of the number of rows.
    mix, prelu = staticmethod(reference.mix), staticmethod(reference.prelu)

    def threads(self, count: int) -> AbstractContextManager[None]:
        """Let each operation of the calling thread use so many threads, if nobody else has the helpers."""
        return helpers.awake(count - 1, self._kernels)

    def record(self, function: Callable[..., Any]) -> Callable[[Ints, Ints, Ints], Floats]:
        """Twin of `reference.record`: a plan, which does all operations of the function in one call."""
        return Plan(function, self._kernels, self.attention_operation).replay

    def linear(
        self, x: Floats, dense: Packed, activation: str | None = None, residual: Floats | None = None
    ) -> Floats:
        """Twin of `reference.linear`."""
        if x.shape[1:] != (dense.K,) or (residual is not None and residual.shape != (len(x), dense.width)):
            raise ValueError(
                f"x of shape {x.shape}, or a residual, does not fit weights ({dense.width}, {dense.K})"
            )
        if activation is not None and residual is not None:
            y = self.linear(x, dense, activation)
            y += residual
            return y
        if activation is None or activation in ACTIVATIONS:
            return super().linear(x, dense, activation, residual)
        y, function = super().linear(x, dense), activations.ACTIVATIONS[activation]
        for i in range(len(y)):  # by row: NumPy may treat the last elements of an array another way
            function(y[i : i + 1])
        return y

    def pool(self, x: Floats, offsets: Ints, mode: str, skip: int = 0) -> Floats:
        """Twin of `reference.pool`, which goes sentence by sentence itself."""
        if mode != "mean" or skip:
            return reference.pool(x, offsets, mode, skip)
        return super().pool(x, offsets, mode, skip)

    def _perform(self, operation: Operation, units: int, arguments: Sequence[Any]) -> None:
        # `laid_out` may copy, and the kernel has addresses alone: so they are held until it is done.
        held = [layout.laid_out(kind, value) for kind, value in zip(operation.kinds, arguments, strict=True)]
        helpers.execute(self._kernels, [operation.code, units, *map(layout.number, held)])

    def _rows(self, N: int, width: int) -> Floats:
        return layout.rows(N, width)

    def _numbers(self, N: int) -> Ints:
        return np.empty(N, np.int32)

    def _units(self, count: int, of: int, size: int = 1) -> int:
        return count * -(-of // size)

    def _sentences(self, offsets: Ints) -> int:
        return len(offsets) - 1

    def _room(self, N: int, K: int) -> tuple[Floats, int]:
        size = attention_room(N, K)  # no sentence has more than all tokens
        return layout.room_for(size * helpers.threads()), 4 * size

    def _float32_table(self, word: Floats, ids: Ints) -> tuple[Floats, Ints]:
        return (word, ids) if layout.is_table(word) else layout.only_rows(word, ids)
