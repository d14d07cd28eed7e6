"""The activations that no transformer layer has, but a Dense module can: by the names of their classes in torch.nn.

Each takes any float dtype and applies along rows. Constants are the defaults of the classes, as a checkpoint stores
no others. One of them, with a constant of its own, is a layer's all the same: ``quick_gelu``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from minisbert.arrays import Floats

__all__ = ["OTHERS"]

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805


def sigmoid(x: Floats) -> Floats:
    """``1 / (1 + exp(-x))``, with an exponential that cannot overflow."""
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, x.dtype.type(1)) / (1 + e)


def quick_gelu(x: Floats) -> Floats:
    """``x * sigmoid(1.702 * x)``: the quick approximation in the GELU paper."""
    return x * sigmoid(1.702 * x)


def log_sigmoid(x: Floats) -> Floats:
    """``log(sigmoid(x))``."""
    return np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x)))


def softplus(x: Floats) -> Floats:
    """``log(1 + exp(x))``, and x itself above 20."""
    return np.where(x > 20, x, np.log1p(np.exp(np.minimum(x, 20))))


def mish(x: Floats) -> Floats:
    """``x * tanh(softplus(x))``."""
    return x * np.tanh(softplus(x))


def elu(x: Floats) -> Floats:
    """``x`` where it is positive, else ``exp(x) - 1``."""
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def selu(x: Floats) -> Floats:
    """``scale * x`` where it is positive, else ``scale * alpha * (exp(x) - 1)``."""
    return SELU_SCALE * np.where(x > 0, x, SELU_ALPHA * np.expm1(np.minimum(x, 0)))


def _leaky(slope: float) -> Callable[[Floats], Floats]:
    """``x`` where it is positive, else ``slope * x``."""
    return lambda x: np.where(x > 0, x, slope * x)


def relu6(x: Floats) -> Floats:
    """``min(max(x, 0), 6)``."""
    return np.clip(x, 0, 6)


def hard_sigmoid(x: Floats) -> Floats:
    """``min(max(x + 3, 0), 6) / 6``."""
    return relu6(x + 3) / 6


def hard_swish(x: Floats) -> Floats:
    """``x * min(max(x + 3, 0), 6) / 6``."""
    return x * hard_sigmoid(x)


def hard_tanh(x: Floats) -> Floats:
    """``min(max(x, -1), 1)``."""
    return np.clip(x, -1, 1)


def hard_shrink(x: Floats) -> Floats:
    """``x``, but 0 from -0.5 to 0.5."""
    return np.where(np.abs(x) <= 0.5, x.dtype.type(0), x)


def soft_shrink(x: Floats) -> Floats:
    """``x`` moved towards 0 by 0.5, and 0 where that would cross it."""
    return x - np.clip(x, -0.5, 0.5)


def soft_sign(x: Floats) -> Floats:
    """``x / (1 + abs(x))``."""
    return x / (1 + np.abs(x))


def tanh_shrink(x: Floats) -> Floats:
    """``x - tanh(x)``."""
    return x - np.tanh(x)


def log_softmax(x: Floats) -> Floats:
    """``log(softmax(x))`` by row."""
    y = x - x.max(axis=-1, keepdims=True)
    return np.asarray(y - np.log(np.exp(y).sum(axis=-1, keepdims=True)))


OTHERS: dict[str, Callable[[Floats], Floats]] = {
    "celu": elu,  # they differ where alpha is not 1
    "elu": elu,
    "hardshrink": hard_shrink,
    "hardsigmoid": hard_sigmoid,
    "hardswish": hard_swish,
    "hardtanh": hard_tanh,
    "leakyrelu": _leaky(0.01),
    "logsigmoid": log_sigmoid,
    "logsoftmax": log_softmax,
    "mish": mish,
    "quick_gelu": quick_gelu,
    "relu6": relu6,
    "rrelu": _leaky((1 / 8 + 1 / 3) / 2),  # random in training only
    "selu": selu,
    "sigmoid": sigmoid,
    "softplus": softplus,
    "softshrink": soft_shrink,
    "softsign": soft_sign,
    "tanhshrink": tanh_shrink,
}
