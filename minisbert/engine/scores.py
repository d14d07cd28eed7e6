"""What turns the logits of a cross-encoder into scores: (S, C) -> (S, C), for C labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from minisbert.arrays import Floats
from minisbert.checkpoint.cross_config import SCORE_ACTIVATIONS
from minisbert.errors import EncodeTypeError, EncodeValueError, shown
from minisbert.kernels.reference.activations import relu, sigmoid, silu
from minisbert.kernels.reference.activations import softmax as softmax_in_place

__all__ = ["Activation", "resolve_activation", "softmax"]

Activation: TypeAlias = Callable[[Floats], Floats]


def softmax(x: Floats) -> Floats:
    """``exp(x) / sum(exp(x))`` by row."""
    return _precisely(softmax_in_place)(x)


def _precisely(function: Activation) -> Activation:
    """Compute in float64, and round once: float32 exponentials of NumPy's differ from processor to processor."""
    return lambda x: function(x.astype(np.float64)).astype(x.dtype)


def identity(x: Floats) -> Floats:
    """``x``."""
    return x


_FUNCTIONS: dict[str, Activation] = dict(
    zip(
        SCORE_ACTIVATIONS,
        (identity, _precisely(sigmoid), _precisely(np.tanh), relu, _precisely(silu)),
        strict=True,
    )
)


def resolve_activation(activation: object) -> Activation:
    """Return the function that an ``activation_fn`` stands for.

    Parameters
    ----------
    activation : str or callable
        The name of a class of torch.nn, such as ``"Sigmoid"`` or ``"torch.nn.Sigmoid"``; or an object of such a
        class, or torch's function of that name, which would not take an array; or a function of an array (S, C).
    """
    name = activation if isinstance(activation, str) else _torch_name(activation)
    if name is not None:
        known = {known.lower(): function for known, function in _FUNCTIONS.items()}
        if (function := known.get(name.removeprefix("torch.nn.").lower())) is None:
            raise EncodeValueError(
                f"activation_fn is {shown(activation)}; expected a function of an array, or one of "
                f"{', '.join(_FUNCTIONS)}"
            )
        return function
    if not callable(activation):
        raise EncodeTypeError(
            f"activation_fn is {shown(activation)}; expected a function of an array, or a name"
        )
    return activation


def _torch_name(activation: object) -> str | None:
    """Return the name of a function of torch's or of the class of one of its modules; None for all else."""
    if (getattr(activation, "__module__", None) or "").partition(".")[0] != "torch":
        return None
    return str(getattr(activation, "__name__", type(activation).__name__))
