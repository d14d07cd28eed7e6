"""How each operation is called: what it takes, how large its result is, and into how many units it is divided.

Every operation stands here once, over arrays (`compiled.backend`, which does it when it is called) or over `Value`
placeholders (`compiled.plan`, which records it). Names and meanings are those of
`minisbert.kernels.reference.ops`, and the order of a kernel's arguments that of `minisbert.kernels.operations`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, cast

from minisbert.arrays import Floats, Ints
from minisbert.kernels.compiled.arithmetic import arithmetic
from minisbert.kernels.compiled.packing import Packed, empty, packed_narrow
from minisbert.kernels.operations import (
    ACTIVATION_CODES,
    ACTIVATIONS,
    ARITHMETICS,
    GROUPS,
    OPERATIONS,
    Operation,
)
from minisbert.kernels.tuning import MC, words

__all__ = ["NO_PADDING", "Ops"]

NO_PADDING = -1


class Ops(ABC):
    """The operations, over whatever a subclass has for arrays: at least a ``shape``."""

    attention_operation = "attention"  # or "attention_tiles", of bfloat16

    @abstractmethod
    def _perform(self, operation: Operation, units: Any, arguments: list[Any]) -> None:
        """Do an operation, or record it."""

    @abstractmethod
    def _rows(self, N: Any, width: int) -> Any:
        """Allocate a result (N, width)."""

    @abstractmethod
    def _numbers(self, N: Any) -> Any:
        """Allocate a result of N int32."""

    @abstractmethod
    def _units(self, count: int, of: Any, size: int = 1) -> Any:
        """Return how many units there are: `count` for each block of `size` of the N rows or S sentences."""

    @abstractmethod
    def _sentences(self, offsets: Any) -> Any:
        """Return S."""

    @abstractmethod
    def _room(self, N: Any, K: int) -> tuple[Any, Any]:
        """Return the room for attention over at most N tokens with heads of width K, and its bytes for each thread."""

    @abstractmethod
    def _float32_table(self, word: Floats, ids: Ints) -> tuple[Any, Any]:
        """Return the table of words, of any dtype, as one of float32, and the ids re-indexed into it."""

    def _do(self, name: str, units: Any = 0, **arguments: Any) -> None:
        operation = OPERATIONS[name]
        self._perform(operation, units, [arguments[argument] for argument in operation.names])

    def pack(self, weight: Floats, bias: Floats, dtype: str) -> Packed:
        """Twin of `reference.pack`: the weights, of any float dtype, in the panels that `packing` describes."""
        if dtype != "float32":
            return packed_narrow(weight, bias, dtype, arithmetic(dtype, weight.shape[1]))
        (width, K), packed = weight.shape, empty(bias, weight.shape[1])
        self._do("pack", packed.P, width=width, K=K, weight=weight, panels=packed.panels)
        return packed

    def linear(
        self, x: Floats, dense: Packed, activation: str | None = None, residual: Floats | None = None
    ) -> Floats:
        """Twin of `reference.linear`, one call of which takes an activation or a residual."""
        (N, K), y = x.shape, self._rows(x.shape[0], dense.width)
        if activation is not None and residual is not None:  # the kernel would add the residual first
            raise ValueError("one kernel call has an activation or a residual, not both")
        units = self._units(dense.P, N, MC)
        if dense.arithmetic is not None:
            return self._linear_narrow(x, dense, activation, residual, units)
        code = 0 if activation is None else ACTIVATION_CODES[ACTIVATIONS[activation]]
        weights: dict[str, Any] = {"panels": dense.panels, "bias": dense.bias}
        self._do(
            "linear",
            units,
            N=N,
            K=K,
            width=dense.width,
            x=x,
            **weights,
            residual=residual,
            activation=code,
            y=y,
        )
        return y

    def _linear_narrow(
        self, x: Floats, dense: Packed, activation: str | None, residual: Floats | None, units: Any
    ) -> Floats:
        """Make the rows ready, where they have to be, and multiply them as they are."""
        N, K, z, y = x.shape[0], dense.K, x, self._rows(x.shape[0], dense.width)
        code = cast(int, dense.arithmetic)
        if ARITHMETICS[code] != "float16":
            z = self._rows(N, words(K, code) + dense.is_integer)
            self._do("narrow", N=N, K=K, arithmetic=code, x=x, z=z)
        given = {"N": N, "K": K, "width": dense.width, "arithmetic": code, "z": z}
        function = 0 if activation is None else ACTIVATION_CODES[ACTIVATIONS[activation]]
        weights: dict[str, Any] = {"panels": dense.panels, "scales": dense.scales, "bias": dense.bias}
        self._do("linear_narrow", units, **given, **weights, residual=residual, activation=function, y=y)
        return y

    def positions(self, ids: Ints, offsets: Ints, padding: int | None) -> Ints:
        """Twin of `reference.positions`."""
        y, code = self._numbers(ids.shape[0]), NO_PADDING if padding is None else padding
        self._do("positions", S=self._sentences(offsets), ids=ids, offsets=offsets, padding=code, y=y)
        return y

    def embed(
        self,
        ids: Ints,
        positions: Ints,
        types: Ints,
        word: Floats,
        position: Floats,
        token_type: Floats | None,
    ) -> Floats:
        """Twin of `reference.embed`."""
        N, D = ids.shape[0], word.shape[1]
        y, (word, ids) = self._rows(N, D), self._float32_table(word, ids)
        tables = {"word": word, "position": position, "token_type": token_type}
        self._do("embed", N=N, D=D, ids=ids, positions=positions, types=types, **tables, y=y)
        return y

    def layer_norm(self, x: Floats, weight: Floats, bias: Floats, eps: float) -> Floats:
        """Twin of `reference.layer_norm`."""
        (N, D), y = x.shape, self._rows(*x.shape)
        given = {"N": N, "D": D, "x": x, "weight": weight, "bias": bias, "eps": eps, "y": y}
        self._do("layer_norm", **given, arithmetic=0, z=None)
        return y

    def attention(self, qkv: Floats, offsets: Ints, num_heads: int, bias: Floats | None = None) -> Floats:
        """Twin of `reference.attention`."""
        N, D = qkv.shape[0], qkv.shape[1] // 3
        context, units = self._rows(N, D), self._units(GROUPS, self._sentences(offsets))
        room, room_bytes = self._room(N, D // num_heads)
        table = {"bias": bias, "span": 0 if bias is None else bias.shape[1]}
        given = {"D": D, "H": num_heads, "qkv": qkv, "offsets": offsets, **table, "context": context}
        self._do(self.attention_operation, units, **given, room=room, room_bytes=room_bytes)
        return context

    def pool(self, x: Floats, offsets: Ints, mode: str, skip: int = 0) -> Floats:
        """Twin of `reference.pool` for the mean of whole sentences, the only one that is compiled."""
        assert (mode, skip) == ("mean", 0)
        S, D = self._sentences(offsets), x.shape[1]
        y = self._rows(S, D)
        self._do("mean_pool", S=S, D=D, x=x, offsets=offsets, y=y)
        return y

    def normalize(self, x: Floats) -> Floats:
        """Twin of `reference.normalize`."""
        (N, D), y = x.shape, self._rows(*x.shape)
        self._do("normalize", N=N, D=D, x=x, y=y)
        return y
