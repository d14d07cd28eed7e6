"""The operations that `minisbert.model` is written over, and the choice of who computes them.

A backend is a module with the functions of `Kernels`. `minisbert.kernels.reference.ops` is the definition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike

from minisbert.arrays import Floats, Ints
from minisbert.errors import EncodeValueError

__all__ = ["BACKENDS", "Kernels", "Ready", "select"]

BACKENDS = ("reference", "numba")


# Each of these is documented where it is defined, in minisbert.kernels.reference.ops.
# ruff: noqa: D102


class Ready(Protocol):
    """What a backend makes of a function from a micro-batch's tokens to vectors."""

    def __call__(self, ids: Ints, types: Ints, offsets: Ints) -> Floats: ...


class Kernels(Protocol):
    """What a backend provides."""

    NAME: str

    def prepare(self) -> None: ...
    def threads(self, count: int) -> AbstractContextManager[None]: ...
    def pack(self, weight: Floats, bias: Floats, dtype: DTypeLike) -> Any: ...
    def linear(
        self, x: Floats, dense: Any, activation: str | None = None, residual: Floats | None = None
    ) -> Floats: ...
    def positions(self, ids: Ints, offsets: Ints, padding: int | None) -> Ints: ...
    def embed(
        self,
        ids: Ints,
        positions: Ints,
        types: Ints,
        word: Floats,
        position: Floats,
        token_type: Floats | None,
    ) -> Floats: ...
    def layer_norm(self, x: Floats, weight: Floats, bias: Floats, eps: float) -> Floats: ...
    def attention(self, qkv: Floats, offsets: Ints, num_heads: int, bias: Floats | None = None) -> Floats: ...
    def mix(self, layers: Sequence[Floats], weights: Floats) -> Floats: ...
    def pool(self, x: Floats, offsets: Ints, mode: str, skip: int = 0) -> Floats: ...
    def program(self, function: Callable[..., Any]) -> Ready: ...
    def prelu(self, x: Floats, slope: Floats) -> Floats: ...
    def normalize(self, x: Floats) -> Floats: ...


def select(backend: str, dtype: np.dtype[Any]) -> Kernels:
    """Return the backend of that name; ``"auto"`` is the fastest one that is installed and computes in `dtype`."""
    can_compile = dtype == np.float32 and find_spec("numba") is not None
    if backend == "numba" and not can_compile:
        why = (
            "numba is not installed"
            if dtype == np.float32
            else f"it computes in float32, and dtype is {dtype}"
        )
        raise EncodeValueError(
            f"backend='numba' is not to be had: {why}. Leave it out, or choose 'reference'"
        )
    if backend == "reference" or not can_compile:
        from minisbert.kernels.reference import ops as reference

        return reference
    from minisbert.kernels.compiled import ops as compiled

    return compiled
