"""Named tensors to the records that `minisbert.model` computes with; large ones in the layout of a backend.

Letters for dimensions are those of `minisbert.model`.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from minisbert.arrays import Floats, Int8Rows
from minisbert.checkpoint import modules
from minisbert.checkpoint.config import TransformerConfig
from minisbert.checkpoint.files import give_back
from minisbert.checkpoint.modules import Module
from minisbert.kernels import Kernels


class LayerNorm(NamedTuple):
    """Scale (D,) and shift (D,)."""

    weight: Floats
    bias: Floats


class Embeddings(NamedTuple):
    """Tables of word (V, D), position (P, D) and token type vectors, and the norm of their sum.

    DistilBERT and MPNet have no token types. ELECTRA's vectors are narrower, and projected to D.
    """

    word: Floats
    position: Floats
    token_type: Floats | None
    norm: LayerNorm
    projection: Any | None


class Attention(NamedTuple):
    """Query, key and value as one multiply D -> 3D; the output D -> D; the norm after the residual."""

    query_key_value: Any
    output: Any
    norm: LayerNorm


class FeedForward(NamedTuple):
    """The two multiplies D -> F and F -> D, and the norm after the residual."""

    intermediate: Any
    output: Any
    norm: LayerNorm


class Layer(NamedTuple):
    """One of the L layers."""

    attention: Attention
    feed_forward: FeedForward


class Weights(NamedTuple):
    """All that the forward pass needs of a checkpoint."""

    embeddings: Embeddings
    layers: tuple[Layer, ...]
    position_bias: Floats | None  # (H, 2P - 1), in MPNet only


class DenseWeights(NamedTuple):
    """The multiply I -> O of a Dense module, and where it has them the residual's, and the slope (1,) of a PReLU."""

    linear: Any
    projection: Any | None
    slope: Floats | None


class Head(NamedTuple):
    """What makes a cross-encoder of an encoder: D -> D, an activation, and D -> C."""

    dense: Any
    activation: str
    output: Any


# A module after the transformer, and its weights.
Step: TypeAlias = tuple[Module, Any]


def build_weights(
    tensors: Mapping[str, Any], config: TransformerConfig, kernels: Kernels, dtype: str
) -> Weights:
    """Sort the tensors of a checkpoint, named by role, into records; large ones in the backend's layout."""
    wide = np.float64 if dtype == "float64" else np.float32

    def array(name: str) -> Floats:
        return np.array(tensors[name], wide)

    def dense(*names: str) -> Any:
        weights = [tensors[f"{name}.weight"] for name in names]
        biases = [tensors[f"{name}.bias"] for name in names]
        if len(names) == 1:
            return kernels.pack(weights[0], biases[0], dtype)
        joined: Any = (Int8Rows if config.is_int8 else np).concatenate(weights)
        return kernels.pack(joined, np.concatenate(biases), dtype)

    # The word table is left in the file: rows are widened as they are looked up.
    found = arrange_weights(tensors, config.num_hidden_layers, tensors["embeddings.word"], array, dense)
    if found.position_bias is None:
        return found
    return found._replace(position_bias=position_bias(found.position_bias, config.max_tokens))


def arrange_weights(
    names: Container[str],
    num_layers: int,
    word: Floats,
    array: Callable[[str], Floats],
    dense: Callable[..., Any],
) -> Weights:
    """Put what there is by the roles `names` into records: `array` gives a tensor, `dense` a matrix and its bias.

    The matrix can be several, one below the other. The position bias is that of the buckets, (32, H).
    """

    def norm(name: str) -> LayerNorm:
        return LayerNorm(array(f"{name}.weight"), array(f"{name}.bias"))

    def layer(at: str) -> Layer:
        qkv = dense(f"{at}.attention.query", f"{at}.attention.key", f"{at}.attention.value")
        attention = Attention(qkv, dense(f"{at}.attention.output"), norm(f"{at}.attention.norm"))
        intermediate, output = dense(f"{at}.feed_forward.intermediate"), dense(f"{at}.feed_forward.output")
        give_back()  # so that the weights are not in memory twice, packed and as they were
        return Layer(attention, FeedForward(intermediate, output, norm(f"{at}.feed_forward.norm")))

    embeddings = Embeddings(
        word=word,
        position=array("embeddings.position"),
        token_type=array("embeddings.token_type") if "embeddings.token_type" in names else None,
        norm=norm("embeddings.norm"),
        projection=dense("embeddings.projection") if "embeddings.projection.weight" in names else None,
    )
    layers = tuple(layer(f"layers.{i}") for i in range(num_layers))
    return Weights(embeddings, layers, array("position_bias") if "position_bias" in names else None)


def build_step(module: Module, tensors: Mapping[str, Floats], kernels: Kernels, dtype: np.dtype[Any]) -> Step:
    """Put a module and its tensors, by their names in its file, into a record."""

    def dense(name: str) -> Any:
        weight = tensors[f"{name}.weight"]
        return kernels.pack(
            weight, tensors.get(f"{name}.bias", np.zeros(len(weight), np.float32)), dtype.name
        )

    return arrange_step(module, lambda name: np.array(tensors[name], dtype), dense)


def arrange_step(module: Module, array: Callable[[str], Floats], dense: Callable[[str], Any]) -> Step:
    """Put a module and what it has into a record, as `arrange_weights` does."""
    match module:
        case modules.Dense():
            projection = dense("residual") if module.has_projection else None
            slope = array("activation_function.weight") if module.activation == "prelu" else None
            return module, DenseWeights(dense("linear"), projection, slope)
        case modules.LayerNorm():
            return module, LayerNorm(array("norm.weight"), array("norm.bias"))
        case modules.WeightedLayerPooling():
            return module, array("layer_weights")
    return module, None


def build_head(
    tensors: Mapping[str, Floats], activation: str, kernels: Kernels, dtype: np.dtype[Any]
) -> Head:
    """Take the head's tensors from those of a checkpoint."""
    dense, output = (
        kernels.pack(tensors[f"head.{part}.weight"], tensors[f"head.{part}.bias"], dtype.name)
        for part in ("dense", "output")
    )
    return Head(dense, activation, output)


def size_in_bytes(weights: Any) -> int:
    """Return how many bytes the arrays of a record take, however deep in it they are."""
    if isinstance(weights, tuple):
        return sum(map(size_in_bytes, weights))
    if isinstance(weights, Int8Rows):
        return weights.numbers.nbytes + weights.scales.nbytes
    return weights.nbytes if isinstance(weights, np.ndarray) else 0


def position_bias(table: Floats, positions: int) -> Floats:
    """Spread a bias for each of 32 buckets over all distances between two tokens: (32, H) -> (H, 2P - 1) [1]_.

    Column ``P - 1 + d`` is for a key that stands d tokens after the query; half of the buckets are for d > 0.
    Distances below 8 have a bucket each. From there on buckets grow by the square root of 2, up to the last.

    References
    ----------
    .. [1] Raffel et al., Exploring the Limits of Transfer Learning, 2019, section 2.1.
    """
    after = np.arange(1 - positions, positions)  # (2P - 1,)
    distance = np.abs(after)
    # Squares of the distances at which the buckets 9 to 15 begin: in integers, and so exact.
    starts = 64 << np.arange(1, 8)
    far = 8 + np.searchsorted(starts, distance * distance, side="right")
    buckets = np.where(distance < 8, distance, far) + 16 * (after > 0)
    return np.ascontiguousarray(table[buckets].T)
