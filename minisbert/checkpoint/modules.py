"""The modules that can follow the transformer of a checkpoint: a record for each kind.

They hand each other features by name: ``token_embeddings``, a vector a token, which the transformer makes, and
``sentence_embedding``, a vector a sentence, which pooling makes of them. What is computed stands in `minisbert.model`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

__all__ = [
    "LAYERS",
    "SENTENCE",
    "TOKENS",
    "Dense",
    "Dropout",
    "LayerNorm",
    "Module",
    "Normalize",
    "Pooling",
    "WeightedLayerPooling",
    "is_plain",
    "needs_all_layers",
    "shapes_of",
]

TOKENS, SENTENCE, LAYERS = "token_embeddings", "sentence_embedding", "all_layer_embeddings"
Shapes = Mapping[str, tuple[int, ...]]


# Every module has a folder, in which its weights are if it has any; then it has the shapes of these.


class Pooling(NamedTuple):
    """Makes one vector of a sentence's tokens in each mode, and joins them; perhaps without the prompt's tokens."""

    folder: Path
    modes: tuple[str, ...]
    include_prompt: bool

    def __str__(self) -> str:
        return f"Pooling ({' + '.join(self.modes)}{'' if self.include_prompt else ' without the prompt'})"


class Normalize(NamedTuple):
    """Divides each vector of a feature by its length; a feature that there is not yet is passed over."""

    folder: Path
    feature: str

    def __str__(self) -> str:
        return "Normalize" + _unless_sentence(self.feature)


class Dense(NamedTuple):
    """``activation(linear(x))``, perhaps with x itself or, where widths differ, its projection added."""

    folder: Path
    feature: str
    in_features: int
    out_features: int
    bias: bool
    activation: str
    use_residual: bool

    @property
    def shapes(self) -> Shapes:
        """Name and shape of every tensor of the module."""
        wanted = {
            "linear.weight": (self.out_features, self.in_features),
            "linear.bias": (self.out_features,) if self.bias else None,
            "residual.weight": (self.out_features, self.in_features) if self.has_projection else None,
            "activation_function.weight": (1,) if self.activation == "prelu" else None,
        }
        return {name: shape for name, shape in wanted.items() if shape is not None}

    @property
    def has_projection(self) -> bool:
        """Whether what is added has a matrix of its own."""
        return self.use_residual and self.in_features != self.out_features

    def __str__(self) -> str:
        extra = ", residual" if self.use_residual else ""
        widths = f"{self.in_features} -> {self.out_features}"
        return f"Dense ({widths}, {self.activation}{extra}){_unless_sentence(self.feature)}"


class LayerNorm(NamedTuple):
    """Layer norm of the sentence vectors."""

    folder: Path
    dimension: int

    @property
    def shapes(self) -> Shapes:
        """Name and shape of every tensor of the module."""
        return {"norm.weight": (self.dimension,), "norm.bias": (self.dimension,)}

    def __str__(self) -> str:
        return "LayerNorm"


class Dropout(NamedTuple):
    """Drops components in training, and does nothing here."""

    folder: Path

    def __str__(self) -> str:
        return "Dropout"


class WeightedLayerPooling(NamedTuple):
    """Makes the token vectors a weighted mean of the states from layer `layer_start` on; 0 is the embeddings."""

    folder: Path
    layer_start: int
    num_hidden_layers: int

    @property
    def shapes(self) -> Shapes:
        """Name and shape of every tensor of the module."""
        return {"layer_weights": (self.num_hidden_layers + 1 - self.layer_start,)}

    def __str__(self) -> str:
        return f"WeightedLayerPooling (layers {self.layer_start} to {self.num_hidden_layers})"


Module: TypeAlias = "Pooling | Normalize | Dense | LayerNorm | Dropout | WeightedLayerPooling"


def shapes_of(module: Module) -> Shapes:
    """Name and shape of every tensor of a module."""
    found: Shapes = getattr(module, "shapes", {})
    return found


def _unless_sentence(feature: str) -> str:
    return "" if feature == SENTENCE else f" of {feature}"


def is_plain(module: Module) -> bool:
    """Whether a module is one that most checkpoints have: of these a whole model can be recorded as one plan."""
    if isinstance(module, Pooling):
        return module.modes == ("mean",)
    return isinstance(module, Normalize | Dropout)


def needs_all_layers(module: Module) -> bool:
    """Whether a module looks at the states before the last layer's."""
    return isinstance(module, WeightedLayerPooling)
