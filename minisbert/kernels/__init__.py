"""The operations that `minisbert.model` is written over, and the choice of who computes them.

`reference` is the definition; `compiled` is fast, on kernels whose source is in `source`, and which `runtime` compiles,
loads and runs on several threads. `operations` has the table of what is compiled, `tuning` its constants. The words::

    micro-kernel    the innermost loop over k of a multiply C = A B, all in registers         source.microkernel
    micro-tile      the MR x NR numbers of C that it makes: the register block                tuning.MR, NR
    panel           NR columns of B, packed: those of each k next to each other               compiled.packing
    MC, KC          cache blocks: rows of A, and steps of k, that are used up before others;
                    a block, without more words, is MC rows                                   tuning.MC, KC
    K_SUM           the accumulation block: so many products are summed, then added to C      tuning.K_SUM
    prefetch        asking for memory ahead: a tile's own B, PREFETCH_L1 bytes from the
                    second-level cache, or PREFETCH_L2 steps from memory; later tiles' B      tuning
    row_bytes       the leading dimension in bytes, padded against 4 KiB aliasing             tuning.row_bytes
    plan            a model's operations, recorded once and replayed for each micro-batch     compiled.plan
    arena           the memory of all results of a plan, shared out by liveness               compiled.plan
    unit            what a thread takes at a time of an operation that is shared              operations
    work queue      where threads take units, lock-free; its epoch counts operations          source.workqueue
    owner, helper   the thread that calls; threads that spin, and take units of its work      runtime.helpers
    slot            which of these threads: 0 is the owner
    inlined         put into its callers, as a function that Numba compiles there             runtime.compiler
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, Protocol, TypeAlias

from minisbert.arrays import Floats, Ints
from minisbert.errors import BackendWarning, EncodeValueError, level_of_caller

__all__ = ["BACKENDS", "DTYPES", "Kernels", "Recorded", "select"]

BACKENDS = ("native", "jit", "reference")
# What weights are held in, and multiplied: the last three are defined in `reference.narrow`. float64 is NumPy's alone.
DTYPES = ("float32", "float64", "float16", "bfloat16", "int8")
# A function (ids, types, offsets) -> (N, width) or (S, width), which may have been recorded.
Recorded: TypeAlias = Callable[[Ints, Ints, Ints], Floats]


# Each of these is documented where it is defined, in minisbert.kernels.reference.ops.
# ruff: noqa: D102


class Kernels(Protocol):
    """What a backend provides."""

    NAME: str

    def arithmetic(self, dtype: str, K: int) -> str: ...
    def threads(self, count: int) -> AbstractContextManager[None]: ...
    def pack(self, weight: Floats, bias: Floats, dtype: str) -> Any: ...
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
    def record(self, function: Callable[..., Any]) -> Recorded: ...
    def prelu(self, x: Floats, slope: Floats) -> Floats: ...
    def normalize(self, x: Floats) -> Floats: ...


def select(backend: str, dtype: str) -> Kernels:
    """Return the backend of that name; ``"auto"`` is the fastest one that is there and computes in `dtype`.

    Warns
    -----
    BackendWarning
        If ``"auto"`` finds no fast kernels, or has to compile them.
    """
    if backend == "reference" or (backend == "auto" and dtype == "float64"):
        return _reference()
    if dtype == "float64":
        raise EncodeValueError(f"backend={backend!r} does not compute in float64; leave it out")
    reasons: list[str] = []
    for name in ("native", "jit") if backend == "auto" else (backend,):
        kernels = _compiled(name, dtype)
        if not isinstance(kernels, str):
            if reasons:
                _warn(f"{reasons[0]}. Numba compiled the kernels, which takes some seconds in each process")
            return kernels
        reasons.append(kernels)
    if backend != "auto":
        raise EncodeValueError(f"backend={backend!r} is not to be had: {reasons[0]}. Leave it out")
    why = "; ".join(dict.fromkeys(reasons))
    _warn(f"NumPy computes, several times slower than the kernels of minisbert would: {why}")
    return _reference()


@cache
def _compiled(name: str, dtype: str) -> Kernels | str:
    """Return a backend, or why it is not to be had: what took seconds to find out is not tried again."""
    from minisbert.kernels.compiled.backend import Backend
    from minisbert.kernels.runtime import load

    try:
        if name == "native":
            return Backend(name, load.kernels(), dtype)
        from minisbert.kernels.runtime.build import compiled_here

        return Backend(name, compiled_here(), dtype)
    except load.KernelsError as error:
        return str(error)


def _reference() -> Kernels:
    from minisbert.kernels.reference import ops

    return ops


@cache
def _warn(message: str) -> None:
    """Say something once."""
    warnings.warn(message, BackendWarning, stacklevel=level_of_caller())
