"""What turns the logits of a cross-encoder into scores: (S, C) -> (S, C), for C labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from minisbert.cross_config import ACTIVATIONS
from minisbert.errors import EncodeTypeError, EncodeValueError, shown
from minisbert.kernels import Floats
from minisbert.kernels.activations import sigmoid
from minisbert.kernels.reference import relu, silu, tanh
from minisbert.kernels.reference import softmax as softmax_in_place

__all__ = ["Activation", "resolve_activation", "softmax"]

Activation: TypeAlias = Callable[[Floats], Floats]


def softmax(x: Floats) -> Floats:
    """``exp(x) / sum(exp(x))`` by row."""
    return softmax_in_place(x.copy())


def identity(x: Floats) -> Floats:
    """``x``."""
    return x


_FUNCTIONS: dict[str, Activation] = dict(zip(ACTIVATIONS, (identity, sigmoid, tanh, relu, silu), strict=True))


def resolve_activation(activation: object) -> Activation:
    """Return the function that an ``activation_fn`` stands for.

    Parameters
    ----------
    activation : str or callable
        The name of a class of torch.nn, such as ``"Sigmoid"`` or ``"torch.nn.Sigmoid"``; or an object of such a
        class; or a function of an array (S, C).
    """
    kind = type(activation)
    if isinstance(activation, str) or kind.__module__.startswith("torch.nn."):
        name = activation if isinstance(activation, str) else kind.__name__
        if name.removeprefix("torch.nn.") not in _FUNCTIONS:
            raise EncodeValueError(
                f"activation_fn is {shown(activation)}; expected a function of an array, or one of "
                f"{', '.join(_FUNCTIONS)}"
            )
        return _FUNCTIONS[name.removeprefix("torch.nn.")]
    if not callable(activation):
        raise EncodeTypeError(
            f"activation_fn is {shown(activation)}; expected a function of an array, or a name"
        )
    return activation
