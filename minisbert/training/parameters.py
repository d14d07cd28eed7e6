"""The weights that are trained: one array of them all, and records that look into it."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, NamedTuple

import numpy as np

from minisbert.arrays import Floats
from minisbert.checkpoint import modules
from minisbert.checkpoint.config import CheckpointConfig
from minisbert.checkpoint.tensors import load_module_tensors, load_tensors
from minisbert.kernels.reference.ops import Dense
from minisbert.weights import (
    Attention,
    DenseWeights,
    Embeddings,
    FeedForward,
    Layer,
    LayerNorm,
    Step,
    Weights,
)

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
    shapes : dict of str to tuple of int
        By role, or ``modules.i.name`` for a module's tensors, in the order of the array.
    size, num_words, num_decayed : int
        How many numbers there are in all, in the word vectors, and of those that weight decay is for.
    """

    def __init__(self, config: CheckpointConfig) -> None:
        self.config = config
        family, layers = config.transformer.family, range(config.transformer.num_hidden_layers)
        self._names = {role: name for role, name, _ in (*family.embedding_tensors, *family.projection)}
        for i in layers:
            at = f"{family.layer_prefix}{i}"
            self._names |= {f"layers.{i}.{role}": f"{at}.{name}" for role, name, _ in family.layer_tensors}
        self._tensors: dict[str, Mapping[str, Floats]] = {
            "": load_tensors(config.transformer_folder, config.transformer)
        }
        for i, module in enumerate(config.modules):
            self._tensors[f"modules.{i}."] = load_module_tensors(module)
        names = [
            (f"{prefix}{name}", tensors[name].shape)
            for prefix, tensors in self._tensors.items()
            for name in tensors
        ]
        names.sort(key=lambda item: (item[0] != WORD, not self._decays(item[0])))  # stable
        self.shapes = dict(names)
        stops = np.cumsum([prod(shape) for shape in self.shapes.values()]).tolist()
        self._places = dict(zip(self.shapes, map(slice, [0, *stops], stops), strict=False))
        self.size, self.num_words = stops[-1], prod(self.shapes[WORD])
        self.num_decayed = sum(prod(shape) for name, shape in self.shapes.items() if self._decays(name))

    def load(self, dtype: np.dtype[Any]) -> Floats:
        """Return the checkpoint's weights (size,)."""
        flat = np.empty(self.size, dtype)
        for prefix, tensors in self._tensors.items():
            for name in tensors:
                self.view(flat, prefix + name)[:] = tensors[name]
        return flat

    def view(self, flat: Floats, *names: str) -> Floats:
        """Look at a tensor, or at several that are next to each other as one."""
        shape = self.shapes[names[0]]
        place = slice(self._places[names[0]].start, self._places[names[-1]].stop)
        return flat[place].reshape(-1, *shape[1:])

    def network(self, flat: Floats) -> Network:
        """Look at all of an array as what the forward pass computes with."""
        layers = tuple(
            self._layer(flat, f"layers.{i}") for i in range(self.config.transformer.num_hidden_layers)
        )
        steps = [
            (module, self._module(flat, f"modules.{i}", module))
            for i, module in enumerate(self.config.modules)
        ]
        bias = self.view(flat, "position_bias") if "position_bias" in self.shapes else None
        return Network(Weights(self._embeddings(flat), layers, bias), steps)

    def _embeddings(self, flat: Floats) -> Embeddings:
        return Embeddings(
            word=self.view(flat, WORD),
            position=self.view(flat, "embeddings.position"),
            token_type=self.view(flat, "embeddings.token_type")
            if "embeddings.token_type" in self.shapes
            else None,
            norm=self._norm(flat, "embeddings.norm"),
            projection=(
                self._dense(flat, "embeddings.projection")
                if "embeddings.projection.weight" in self.shapes
                else None
            ),
        )

    def _layer(self, flat: Floats, at: str) -> Layer:
        qkv = self._dense(flat, *(f"{at}.attention.{part}" for part in ("query", "key", "value")))
        output, norm = self._dense(flat, f"{at}.attention.output"), self._norm(flat, f"{at}.attention.norm")
        inner, outer = (self._dense(flat, f"{at}.feed_forward.{part}") for part in ("intermediate", "output"))
        feed_forward = FeedForward(inner, outer, self._norm(flat, f"{at}.feed_forward.norm"))
        return Layer(Attention(qkv, output, norm), feed_forward)

    def _module(self, flat: Floats, at: str, module: modules.Module) -> Any:
        match module:
            case modules.Dense():
                linear = self._dense(flat, f"{at}.linear")
                projection = self._dense(flat, f"{at}.residual") if module.has_projection else None
                is_prelu = module.activation == "prelu"
                slope = self.view(flat, f"{at}.activation_function.weight") if is_prelu else None
                return DenseWeights(linear, projection, slope)
            case modules.LayerNorm():
                return self._norm(flat, f"{at}.norm")
            case modules.WeightedLayerPooling():
                return self.view(flat, f"{at}.layer_weights")
        return None

    def _dense(self, flat: Floats, *names: str) -> Dense:
        weight = self.view(flat, *(f"{name}.weight" for name in names))
        if f"{names[0]}.bias" not in self.shapes:  # of zeros, which nobody keeps
            return Dense(weight, np.zeros(len(weight), flat.dtype), flat.dtype.name)
        return Dense(weight, self.view(flat, *(f"{name}.bias" for name in names)), flat.dtype.name)

    def _norm(self, flat: Floats, name: str) -> LayerNorm:
        return LayerNorm(self.view(flat, f"{name}.weight"), self.view(flat, f"{name}.bias"))

    def _decays(self, role: str) -> bool:
        """Whether weight decay is for a tensor: in the reference's `fit`, by the tensor's name in the model."""
        name = self._names.get(role, role)
        return "bias" not in name and "LayerNorm.weight" not in name
