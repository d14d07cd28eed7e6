"""The definition of each activation, and of softmax, in plain NumPy: any float dtype, along rows.

A new one is defined here and gets its names in ACTIVATIONS; `minisbert.kernels.operations` says what more it needs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from minisbert.arrays import Floats

__all__ = ["ACTIVATIONS", "softmax"]

SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805
# Q(t) = exp(-t**2 / 2) * P(t) / R(t) is the upper tail of the normal distribution, t >= 0: the numerator P
# and the denominator R, constant term first, by dtype. Our own fits of Q(t) * exp(t**2 / 2) at the Chebyshev
# points of t / (t + 3): the relative error of the quotient is 7e-9 for t <= 14 with the short form and 1e-17
# for t <= 38 with the long one. All coefficients are positive, so nothing cancels when they are summed.
NORMAL_TAIL = {
    np.dtype(np.float32): (
        (0.500000001865801846, 0.436455785099866497, 0.181828459674715222, 0.0401462372463846484,
         0.00404042425925322421),
        (1.0, 1.67079642721147099, 1.19675592945795765, 0.46574623946078346, 0.100638586383654554,
         0.0101277116321234031),
    ),
    np.dtype(np.float64): (
        (0.5, 0.809990304026811214, 0.651696807196482287, 0.335860806812055714, 0.121538977488563668,
         0.0321039281330358219, 0.00625686423299593031, 0.000888937110169212174, 0.000088367415778048687,
         5.58143856897899799e-6, 1.7173479643923034e-7),
        (1.0, 2.41786516885648779, 2.73257090272656906, 1.90902668404817033, 0.918034517087736091,
         0.319897951185302281, 0.0826728683734816311, 0.0159042760863344243, 0.00224222548701977549,
         0.000221934738232116514, 0.0000139905917302189679, 4.30475296492103416e-7),
    ),
}  # fmt: skip

# An activation makes many passes over its input: in pieces of this many elements they stay in cache.
_ELEMENTS_IN_CACHE = 1 << 16


def polynomial(coefficients: tuple[float, ...], t: Floats) -> Floats:
    """``c[0] + c[1] t + c[2] t**2 + ...`` by Horner's rule, for at least two coefficients."""
    *lower, highest = map(t.dtype.type, coefficients)
    y = t * highest
    for c in lower[:0:-1]:
        y += c
        y *= t
    y += lower[0]
    return y


def gelu(x: Floats) -> Floats:
    """``x * Phi(x)`` with the exact normal distribution function Phi, the erf form [1]_.

    Computed as ``max(x, 0) - abs(x) * Q(abs(x))`` with the upper tail ``Q = 1 - Phi``: the same number,
    without the branch at zero, and without the cancellation that ``1 + erf(x / sqrt(2))`` suffers for x < 0.

    References
    ----------
    .. [1] Hendrycks and Gimpel, Gaussian Error Linear Units, 2016, section 2.
    """
    numerator, denominator = NORMAL_TAIL[x.dtype]
    t = np.minimum(np.abs(x), x.dtype.type(39))  # exp(-39**2 / 2) is 0 in float64, and larger t overflow P
    tail = polynomial(numerator, t)
    tail /= polynomial(denominator, t)
    tail *= t
    np.square(t, out=t)
    t *= x.dtype.type(-0.5)
    tail *= np.exp(t, out=t)
    return np.maximum(x, 0) - tail


def gelu_tanh(x: Floats) -> Floats:
    """``x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3)))``: the approximation in the GELU paper."""
    one, half = x.dtype.type(1), x.dtype.type(0.5)
    inner = x.dtype.type(np.sqrt(2 / np.pi)) * (x + x.dtype.type(0.044715) * x**3)
    return half * x * (one + np.tanh(inner))


def silu(x: Floats) -> Floats:
    """``x * sigmoid(x)``, with the sigmoid as a tanh, which cannot overflow."""
    half = x.dtype.type(0.5)
    return x * half * (np.tanh(half * x) + x.dtype.type(1))


def relu(x: Floats) -> Floats:
    """``max(x, 0)``."""
    return np.maximum(x, 0)


def softmax(scores: Floats) -> Floats:
    """``exp(scores) / sum(exp(scores))`` over the last axis, in place; the maximum is subtracted first."""
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


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


# These no transformer layer has, but for quick_gelu; a Dense module can. Constants are the defaults of torch's classes,
# as a checkpoint stores no others.
_OF_DENSE: dict[str, Callable[[Floats], Floats]] = {
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


def _in_pieces(function: Callable[[Floats], Floats]) -> Callable[[Floats], Floats]:
    """Apply an elementwise function to (N, F) in place, a few rows at a time, so that they stay in cache."""

    def apply(x: Floats) -> Floats:
        rows = max(1, _ELEMENTS_IN_CACHE // max(1, x.shape[1]))
        for start in range(0, len(x), rows):
            x[start : start + rows] = function(x[start : start + rows])
        return x

    return apply


# By the names that `hidden_act` takes in config.json, several of them aliases of one function; and, for Dense modules,
# by the names of torch's classes in small letters.
ACTIVATIONS: dict[str, Callable[[Floats], NDArray[np.floating]]] = {
    **dict.fromkeys(("gelu", "gelu_python"), _in_pieces(gelu)),
    **dict.fromkeys(("gelu_fast", "gelu_new", "gelu_pytorch_tanh"), _in_pieces(gelu_tanh)),
    "relu": _in_pieces(relu),
    **dict.fromkeys(("silu", "swish"), _in_pieces(silu)),
    "tanh": _in_pieces(np.tanh),
    "softmax": _in_pieces(softmax),
    "softmin": _in_pieces(lambda x: softmax(-x)),
    **{name: _in_pieces(function) for name, function in _OF_DENSE.items()},
}
