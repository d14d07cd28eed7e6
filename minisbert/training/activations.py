"""The gradient of each activation of `minisbert.kernels.reference.activations`, by the same names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from minisbert.arrays import Floats
from minisbert.kernels.reference import activations as forward
from minisbert.kernels.reference.activations import ACTIVATIONS, sigmoid, softmax

__all__ = ["GRADIENTS", "activation"]

# Elements of a piece: all passes over it are made in the processor's cache.
PIECE = 1 << 15


def activation(name: str, dy: Floats, x: Floats) -> tuple[Floats, Floats]:
    """Return ``y = f(x)`` and ``dx``, for x and dy of shape (N, F): y anew, as that is cheaper than to keep it."""
    y, dx = np.empty_like(x), np.empty_like(x)
    rows = max(1, PIECE // max(1, x.shape[1]))
    for start in range(0, len(x), rows):
        piece = slice(start, start + rows)
        y[piece], dx[piece] = GRADIENTS[name](x[piece], dy[piece])
    return y, dx


def gelu(x: Floats, dy: Floats) -> tuple[Floats, Floats]:
    """``y = x * Phi(x)``, ``dy/dx = Phi(x) + x * phi(x)``, with the normal distribution Phi and its density phi.

    As in the definition, of the upper tail ``Q = 1 - Phi``: with ``t = abs(x)`` and ``h = Q(t) - t * phi(t)`` the
    slope is h for x < 0, and else 1 - h.
    """
    numerator, denominator = forward.NORMAL_TAIL[x.dtype]
    t = np.minimum(np.abs(x), x.dtype.type(39))
    e = np.exp(np.square(t) * x.dtype.type(-0.5))
    tail = forward.polynomial(numerator, t)
    tail /= forward.polynomial(denominator, t)
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
    t = np.tanh(forward.softplus(x))
    return np.asarray(t + x * (1 - t * t) * sigmoid(x))


def _elu(x: Floats) -> Floats:
    return np.where(x > 0, 1, np.exp(np.minimum(x, 0)))


def _selu(x: Floats) -> Floats:
    return forward.SELU_SCALE * np.where(x > 0, 1, forward.SELU_ALPHA * np.exp(np.minimum(x, 0)))


# f'(x), by element. RReLU is not here: it is random in training.
SLOPES: dict[str, Callable[[Floats], Any]] = {
    **dict.fromkeys(("gelu_fast", "gelu_new", "gelu_pytorch_tanh"), _gelu_tanh),
    "relu": lambda x: x > 0,
    **dict.fromkeys(("silu", "swish"), lambda x: _swish(x, 1)),
    "quick_gelu": lambda x: _swish(x, 1.702),
    "tanh": lambda x: 1 - np.square(np.tanh(x)),
    **dict.fromkeys(("celu", "elu"), _elu),
    "hardshrink": lambda x: np.abs(x) > 0.5,
    "hardsigmoid": lambda x: (np.abs(x) < 3) / 6,
    "hardswish": lambda x: np.where(np.abs(x) < 3, (2 * x + 3) / 6, x > 0),
    "hardtanh": lambda x: np.abs(x) < 1,
    "leakyrelu": lambda x: np.where(x > 0, 1, 0.01),
    "logsigmoid": lambda x: sigmoid(-x),
    "mish": _mish,
    "relu6": lambda x: (x > 0) & (x < 6),
    "selu": _selu,
    "sigmoid": lambda x: sigmoid(x) * sigmoid(-x),
    "softplus": lambda x: np.where(x > 20, 1, sigmoid(x)),
    "softshrink": lambda x: np.abs(x) > 0.5,
    "softsign": lambda x: 1 / np.square(1 + np.abs(x)),
    "tanhshrink": lambda x: np.square(np.tanh(x)),
}


def _by_element(name: str) -> Callable[[Floats, Floats], tuple[Floats, Floats]]:
    """``dx = f'(x) * dy``."""
    return lambda x, dy: (ACTIVATIONS[name](x.copy()), SLOPES[name](x) * dy)


def _softmax(x: Floats, dy: Floats, sign: int = 1) -> tuple[Floats, Floats]:
    """``dx = y * (dy - sum(y * dy))`` by row; of softmin, which is the softmax of -x, with the other sign."""
    y = softmax(sign * x)
    return y, sign * y * (dy - (y * dy).sum(axis=-1, keepdims=True))


def _log_softmax(x: Floats, dy: Floats) -> tuple[Floats, Floats]:
    """``dx = dy - exp(y) * sum(dy)`` by row."""
    y = forward.log_softmax(x)
    return y, dy - np.exp(y) * dy.sum(axis=-1, keepdims=True)


# From x and dy to y and dx.
GRADIENTS: dict[str, Callable[[Floats, Floats], tuple[Floats, Floats]]] = {
    **dict.fromkeys(("gelu", "gelu_python"), gelu),
    **{name: _by_element(name) for name in SLOPES},
    "softmax": _softmax,
    "softmin": lambda x, dy: _softmax(x, dy, -1),
    "logsoftmax": _log_softmax,
}
