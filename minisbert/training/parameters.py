"""The weights that are trained: one array of them all, and records that look into it."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np

from minisbert.arrays import Floats
from minisbert.checkpoint.config import CheckpointConfig
from minisbert.checkpoint.modules import Module, shapes_of
from minisbert.checkpoint.tensors import expected_tensors, load_module_tensors, load_tensors
from minisbert.kernels.reference.ops import Dense
from minisbert.weights import Step, Weights, arrange_step, arrange_weights

__all__ = ["Network", "Parameters"]

WORD = "embeddings.word"


class Network(NamedTuple):
    """The weights of a checkpoint, or in the same places the gradients of all of them."""

    transformer: Weights
    steps: list[Step]


class Parameters:
    """Where each weight is in one array, which begins with the word vectors and ends with what is not decayed.

    Attributes
    ----------
    names : dict of str to str
        What each is called in its file, by role, or ``modules.i.name`` for a module's tensors; in the array's order.
    shapes : dict of str to tuple of int
        By the same.
    size, num_words, num_decayed : int
        How many numbers there are in all, in the word vectors, and of those that weight decay is for.
    """

    def __init__(self, config: CheckpointConfig) -> None:
        self.config = config
        rows = list(expected_tensors(config.transformer))
        for i, module in enumerate(config.modules):
            rows += [(f"modules.{i}.{name}", name, shape) for name, shape in shapes_of(module).items()]
        rows.sort(key=lambda row: (row[0] != WORD, not _decays(row[1])))  # stable: neighbours stay neighbours
        self.names, self.shapes = ({row[0]: row[i] for row in rows} for i in (1, 2))
        sizes = {role: prod(shape) for role, _, shape in rows}
        self.size, self.num_words = sum(sizes.values()), sizes[WORD]
        self.num_decayed = sum(sizes[role] for role, name, _ in rows if _decays(name))
        stops = np.cumsum(list(sizes.values())).tolist()
        self._places = dict(zip(sizes, map(slice, [0, *stops], stops), strict=False))

    def load(self, dtype: np.dtype[Any]) -> Floats:
        """Return the checkpoint's weights (size,)."""
        flat, config = np.empty(self.size, dtype), self.config
        each = {"": load_tensors(config.transformer_folder, config.transformer)}
        each |= {f"modules.{i}.": load_module_tensors(module) for i, module in enumerate(config.modules)}
        for prefix, tensors in each.items():
            for name in tensors:
                self.view(flat, prefix + name)[:] = tensors[name]
        return flat

    def view(self, flat: Floats, *roles: str) -> Floats:
        """Look at a tensor, or at several that are next to each other as one."""
        place = slice(self._places[roles[0]].start, self._places[roles[-1]].stop)
        return flat[place].reshape(-1, *self.shapes[roles[0]][1:])

    def network(self, flat: Floats) -> Network:
        """Look at all of an array as what the forward pass computes with."""
        look, dense = partial(self.view, flat), partial(self._dense, flat)
        layers = self.config.transformer.num_hidden_layers
        transformer = arrange_weights(self.shapes, layers, look(WORD), look, dense)
        return Network(transformer, [self._step(flat, i, m) for i, m in enumerate(self.config.modules)])

    def _step(self, flat: Floats, index: int, module: Module) -> Step:
        at = f"modules.{index}."
        return arrange_step(
            module, lambda name: self.view(flat, at + name), lambda name: self._dense(flat, at + name)
        )

    def _dense(self, flat: Floats, *roles: str) -> Dense:
        weight = self.view(flat, *(f"{role}.weight" for role in roles))
        if f"{roles[0]}.bias" not in self.shapes:  # of zeros, which nobody keeps
            return Dense(weight, np.zeros(len(weight), flat.dtype), flat.dtype.name)
        return Dense(weight, self.view(flat, *(f"{role}.bias" for role in roles)), flat.dtype.name)


def _decays(name: str) -> bool:
    """Whether weight decay is for a tensor: in the reference's `fit`, by the tensor's name in the model."""
    return "bias" not in name and "LayerNorm.weight" not in name
