"""The gradient of each activation of `minisbert.kernels.reference.activations`, by the same names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minisbert.arrays import Floats
from minisbert.kernels.reference.activations import (
    ACTIVATIONS,
    NORMAL_TAIL,
    SELU_ALPHA,
    SELU_SCALE,
    polynomial,
    sigmoid,
    softplus,
)
from minisbert.training.gradients import pieces

__all__ = ["activation"]


def activation(name: str, dy: Floats, x: Floats) -> tuple[Floats, Floats]:
    """Return ``y = f(x)`` and ``dx``, for x and dy of shape (N, F): y anew, as that is cheaper than to keep it."""
    y, dx = np.empty_like(x), np.empty_like(x)
    for rows in pieces(x):
        y[rows], dx[rows] = _piece(name, dy[rows], x[rows])
    return y, dx


def _piece(name: str, dy: Floats, x: Floats) -> tuple[Floats, Any]:
    if name in ("gelu", "gelu_python"):
        return gelu(dy, x)
    y = ACTIVATIONS[name](x.copy())
    return y, BY_ROW[name](dy, y) if name in BY_ROW else SLOPES[name](x) * dy


def gelu(dy: Floats, x: Floats) -> tuple[Floats, Floats]:
    """``y = x * Phi(x)``, ``dy/dx = Phi(x) + x * phi(x)``, with the normal distribution Phi and its density phi.

    As in the definition, of the upper tail ``Q = 1 - Phi``: with ``t = abs(x)`` and ``h = Q(t) - t * phi(t)`` the
    slope is h for x < 0, and else 1 - h.
    """
    numerator, denominator = NORMAL_TAIL[x.dtype]
    t = np.minimum(np.abs(x), x.dtype.type(39))
    e = np.exp(np.square(t) * x.dtype.type(-0.5))
    tail = polynomial(numerator, t)
    tail /= polynomial(denominator, t)
    tail *= e
    y = np.maximum(x, 0) - t * tail
    e *= t
    e *= x.dtype.type(1 / np.sqrt(2 * np.pi))
    tail -= e  # h
    np.subtract(x.dtype.type(0.5), tail, out=tail)
    slope = np.copysign(tail, x, out=tail)
    slope += x.dtype.type(0.5)
    slope *= dy
    return np.asarray(y), slope


def _gelu_tanh(x: Floats) -> Floats:
    c, third = x.dtype.type(np.sqrt(2 / np.pi)), x.dtype.type(0.044715)
    t = np.tanh(c * (x + third * x**3))
    return np.asarray((1 + t + x * (1 - t * t) * c * (1 + 3 * third * x * x)) / 2)


def _swish(x: Floats, beta: float) -> Floats:
    """The slope of ``x * sigmoid(beta * x)``."""
    s = sigmoid(beta * x)
    return s + beta * x * s * (1 - s)


def _mish(x: Floats) -> Floats:
    t = np.tanh(softplus(x))
    return np.asarray(t + x * (1 - t * t) * sigmoid(x))


# f'(x), where dx = f'(x) * dy. RReLU is not here: it is random in training.
SLOPES: dict[str, Callable[[Floats], Any]] = {
    **dict.fromkeys(("gelu_fast", "gelu_new", "gelu_pytorch_tanh"), _gelu_tanh),
    "relu": lambda x: x > 0,
    **dict.fromkeys(("silu", "swish"), lambda x: _swish(x, 1)),
    "quick_gelu": lambda x: _swish(x, 1.702),
    "tanh": lambda x: 1 - np.square(np.tanh(x)),
    **dict.fromkeys(("celu", "elu"), lambda x: np.where(x > 0, 1, np.exp(np.minimum(x, 0)))),
    "hardshrink": lambda x: np.abs(x) > 0.5,
    "hardsigmoid": lambda x: (np.abs(x) < 3) / 6,
    "hardswish": lambda x: np.where(np.abs(x) < 3, (2 * x + 3) / 6, x > 0),
    "hardtanh": lambda x: np.abs(x) < 1,
    "leakyrelu": lambda x: np.where(x > 0, 1, 0.01),
    "logsigmoid": lambda x: sigmoid(-x),
    "mish": _mish,
    "relu6": lambda x: (x > 0) & (x < 6),
    "selu": lambda x: SELU_SCALE * np.where(x > 0, 1, SELU_ALPHA * np.exp(np.minimum(x, 0))),
    "sigmoid": lambda x: sigmoid(x) * sigmoid(-x),
    "softplus": lambda x: np.where(x > 20, 1, sigmoid(x)),
    "softshrink": lambda x: np.abs(x) > 0.5,
    "softsign": lambda x: 1 / np.square(1 + np.abs(x)),
    "tanhshrink": lambda x: np.square(np.tanh(x)),
}


# From dy and y = f(x) to dx, where a row depends on all of itself.
BY_ROW: dict[str, Callable[[Floats, Floats], Any]] = {
    "softmax": lambda dy, y: y * (dy - (y * dy).sum(axis=-1, keepdims=True)),
    "softmin": lambda dy, y: -y * (dy - (y * dy).sum(axis=-1, keepdims=True)),  # the softmax of -x
    "logsoftmax": lambda dy, y: dy - np.exp(y) * dy.sum(axis=-1, keepdims=True),
}
