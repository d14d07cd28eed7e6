"""AdamW and its learning rates, by the names and with the numbers that model cards have."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from minisbert.arrays import Floats

__all__ = ["SCHEDULERS", "AdamW", "learning_rate"]

PIECE = 1 << 15  # numbers that are updated at once: all passes over them are made in the processor's cache
BETAS, EPS = (0.9, 0.999), 1e-8  # torch's own

# From how far the steps after the warm-up have come, 0 to 1, to a factor of the learning rate.
SCHEDULERS: dict[str, Callable[[float], float]] = {
    "constantlr": lambda progress: 1.0,
    "warmupconstant": lambda progress: 1.0,
    "warmuplinear": lambda progress: 1.0 - progress,
    "warmupcosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
}


def learning_rate(lr: float, scheduler: str, step: int, warmup_steps: int, steps: int) -> float:
    """Return the learning rate of a step, from 0: during the warm-up ``lr * step / warmup_steps``."""
    if scheduler != "constantlr" and step < warmup_steps:
        return lr * step / warmup_steps
    return lr * SCHEDULERS[scheduler](min(1.0, (step - warmup_steps) / max(1, steps - warmup_steps)))


class AdamW:
    """Adam with decoupled weight decay [1]_ over an array of weights, of which the first `num_decayed` are decayed.

    Attributes
    ----------
    weights, m, v : ndarray of float, shape (size,)
        The weights, and the running means of gradients and of squared gradients.

    References
    ----------
    .. [1] Loshchilov and Hutter, Decoupled Weight Decay Regularization, 2019, algorithm 2.
    """

    def __init__(self, weights: Floats, num_decayed: int, weight_decay: float) -> None:
        self.weights, self.m, self.v = weights, np.zeros_like(weights), np.zeros_like(weights)
        self._num_decayed, self._weight_decay = num_decayed, weight_decay

    def pieces(self) -> list[slice]:
        """Return the places of pieces that are updated at once, each decayed as a whole or not at all."""
        edges = [*range(0, self._num_decayed, PIECE), *range(self._num_decayed, len(self.weights), PIECE)]
        return list(map(slice, edges, [*edges[1:], len(self.weights)]))

    def update(self, piece: slice, g: Floats, factor: float, lr: float, t: int) -> None:
        """Make update t, from 1, of a piece, given the whole gradient, which is used up, and times a factor.

        ``m = b1 m + (1 - b1) g``, ``v = b2 v + (1 - b2) g**2``, and of ``m' = m / (1 - b1**t)`` and
        ``v' = v / (1 - b2**t)``: ``w -= lr * (weight_decay * w + m' / (sqrt(v') + eps))``.
        """
        (b1, b2), w, m, v, g = BETAS, self.weights[piece], self.m[piece], self.v[piece], g[piece]
        g *= factor
        m *= b1
        m += g * (1 - b1)
        v *= b2
        np.square(g, out=g)
        g *= 1 - b2
        v += g
        np.sqrt(v, out=g)
        g /= math.sqrt(1 - b2**t)
        g += EPS
        np.divide(m, g, out=g)
        g *= lr / (1 - b1**t)
        if piece.start < self._num_decayed:
            w *= 1 - lr * self._weight_decay
        w -= g
