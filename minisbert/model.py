"""The forward pass of the BERT family: token ids in, sentence vectors or a classifier's logits out.

Read it from top to bottom: it is in execution order. `kernels` stands for the functions in
`minisbert.kernels.reference.ops`, or for their faster twins.

A micro-batch is ragged: the tokens of its sentences stand end to end, and ``offsets`` says where each
sentence starts and ends. So there is no padding and no attention mask.

Dimensions: S sentences, N tokens in the micro-batch, T tokens of one sentence, D width, H heads,
K = D // H head width, F feed-forward width, V vocabulary, P positions, L layers, C labels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from minisbert.arrays import Floats, Ints
from minisbert.checkpoint import modules
from minisbert.checkpoint.config import TransformerConfig
from minisbert.checkpoint.modules import SENTENCE, TOKENS, Module
from minisbert.kernels import Kernels


@dataclass(frozen=True)
class LayerNorm:
    """Scale (D,) and shift (D,)."""

    weight: Floats
    bias: Floats


@dataclass(frozen=True)
class Embeddings:
    """Tables of word (V, D), position (P, D) and token type vectors, and the norm of their sum.

    DistilBERT and MPNet have no token types. ELECTRA's vectors are narrower, and projected to D.
    """

    word: Floats
    position: Floats
    token_type: Floats | None
    norm: LayerNorm
    projection: Any | None


@dataclass(frozen=True)
class Attention:
    """Query, key and value as one multiply D -> 3D; the output D -> D; the norm after the residual."""

    query_key_value: Any
    output: Any
    norm: LayerNorm


@dataclass(frozen=True)
class FeedForward:
    """The two multiplies D -> F and F -> D, and the norm after the residual."""

    intermediate: Any
    output: Any
    norm: LayerNorm


@dataclass(frozen=True)
class Layer:
    """One of the L layers."""

    attention: Attention
    feed_forward: FeedForward


@dataclass(frozen=True)
class Weights:
    """All that the forward pass needs of a checkpoint."""

    embeddings: Embeddings
    layers: tuple[Layer, ...]
    position_bias: Floats | None  # (H, 2P - 1), in MPNet only


@dataclass(frozen=True)
class DenseWeights:
    """The multiply I -> O of a Dense module, and where it has them the residual's, and the slope (1,) of a PReLU."""

    linear: Any
    projection: Any | None
    slope: Floats | None


@dataclass(frozen=True)
class Head:
    """What makes a cross-encoder of an encoder: D -> D, an activation, and D -> C."""

    dense: Any
    activation: str
    output: Any


# A module after the transformer, and its weights.
Step: TypeAlias = tuple[Module, Any]
MODULE_EPS = 1e-5  # torch's own: a LayerNorm module does not store it


def hidden_states(
    ids: Ints, types: Ints, offsets: Ints, weights: Weights, config: TransformerConfig, kernels: Kernels
) -> Iterator[Floats]:
    """Yield the states (N, D) that go into the first layer, and those that come out of each of the L layers."""
    x = embed(ids, types, offsets, weights.embeddings, config, kernels)
    yield x
    for layer in weights.layers:
        x = self_attention(x, offsets, layer.attention, weights.position_bias, config, kernels)
        x = feed_forward(x, layer.feed_forward, config, kernels)
        yield x


def last_states(
    ids: Ints, types: Ints, offsets: Ints, kernels: Kernels, weights: Weights, config: TransformerConfig
) -> Floats:
    """Return the states (N, D) that come out of the last layer."""
    [last] = deque(hidden_states(ids, types, offsets, weights, config, kernels), maxlen=1)
    return last


def embed(
    ids: Ints, types: Ints, offsets: Ints, w: Embeddings, config: TransformerConfig, kernels: Kernels
) -> Floats:
    """Say which word, where and of which segment: ``norm(word + token_type + position)``, (N,) -> (N, D).

    BERT counts positions from 0. RoBERTa counts the tokens that are not padding, from ``pad_token_id + 1``. It looks
    at the ids, so a literal ``<pad>`` in the text shifts what follows.
    """
    padding = config.pad_token_id if config.positions_follow_ids else None
    positions = kernels.positions(ids, offsets, padding)  # (N,)
    x = kernels.embed(ids, positions, types, w.word, w.position, w.token_type)  # (N, D), in ELECTRA narrower
    x = kernels.layer_norm(x, w.norm.weight, w.norm.bias, config.layer_norm_eps)
    return x if w.projection is None else kernels.linear(x, w.projection)  # (N, D)


def self_attention(
    x: Floats, offsets: Ints, w: Attention, bias: Floats | None, config: TransformerConfig, kernels: Kernels
) -> Floats:
    """Let every token look at every token of its sentence: ``norm(x + output(attention(qkv(x))))``."""
    qkv = kernels.linear(x, w.query_key_value)  # (N, 3D)
    context = kernels.attention(qkv, offsets, config.num_attention_heads, bias)  # (N, D)
    x = kernels.linear(context, w.output, residual=x)
    return kernels.layer_norm(x, w.norm.weight, w.norm.bias, config.layer_norm_eps)


def feed_forward(x: Floats, w: FeedForward, config: TransformerConfig, kernels: Kernels) -> Floats:
    """Transform each token by itself: ``norm(x + output(activation(intermediate(x))))``."""
    hidden = kernels.linear(x, w.intermediate, activation=config.hidden_act)  # (N, F)
    x = kernels.linear(hidden, w.output, residual=x)  # (N, D)
    return kernels.layer_norm(x, w.norm.weight, w.norm.bias, config.layer_norm_eps)


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


# --- After the transformer ------------------------------------------------------------------------------------


def sentence_vectors(
    ids: Ints,
    types: Ints,
    offsets: Ints,
    kernels: Kernels,
    weights: Weights,
    config: TransformerConfig,
    steps: Sequence[Step],
) -> Floats:
    """Return what the modules make of each sentence (S, D'), with the tokens of its prompt."""
    states = hidden_states(ids, types, offsets, weights, config, kernels)
    return features(states, offsets, 0, steps, kernels)[SENTENCE]


def features(
    states: Iterable[Floats], offsets: Ints, prompt_length: int, steps: Sequence[Step], kernels: Kernels
) -> dict[str, Floats]:
    """Run the modules over the states (N, D) of all layers, of which only a `WeightedLayerPooling` needs more than one.

    Returns
    -------
    dict
        ``"token_embeddings"`` (N, D) and ``"sentence_embedding"`` (S, D'), as the last modules left them.
    """
    layers = deque(states, maxlen=None if any(needs_all_layers(module) for module, _ in steps) else 1)
    found = {TOKENS: layers[-1]}
    for module, w in steps:
        match module:
            case modules.Pooling():
                skip = 0 if module.include_prompt else prompt_length
                found[SENTENCE] = pooling(found[TOKENS], offsets, module, skip, kernels)
            case modules.Normalize() if module.feature in found:
                found[module.feature] = kernels.normalize(found[module.feature])
            case modules.Dense():
                found[module.feature] = dense(found[module.feature], module, w, kernels)
            case modules.LayerNorm():
                found[SENTENCE] = kernels.layer_norm(found[SENTENCE], w.weight, w.bias, MODULE_EPS)
            case modules.WeightedLayerPooling():
                found[TOKENS] = kernels.mix(list(layers)[module.layer_start :], w)
    return found


def is_plain(module: Module) -> bool:
    """Whether a module is one of those that most checkpoints have, which a program can do."""
    if isinstance(module, modules.Pooling):
        return module.modes == ("mean",)
    return isinstance(module, modules.Normalize | modules.Dropout)


def needs_all_layers(module: Module) -> bool:
    """Whether a module looks at the states before the last layer's."""
    return isinstance(module, modules.WeightedLayerPooling)


def pooling(x: Floats, offsets: Ints, module: modules.Pooling, skip: int, kernels: Kernels) -> Floats:
    """Make a vector of each sentence's tokens in every mode, side by side: (N, D) -> (S, modes * D)."""
    found = [kernels.pool(x, offsets, mode, skip) for mode in module.modes]  # (S, D) each
    return found[0] if len(found) == 1 else np.concatenate(found, axis=1)


def dense(x: Floats, module: modules.Dense, w: DenseWeights, kernels: Kernels) -> Floats:
    """``activation(linear(x))``, and with a residual ``+ x`` or ``+ projection(x)``: (S, I) -> (S, O)."""
    y = kernels.linear(x, w.linear, None if module.activation in ("identity", "prelu") else module.activation)
    if w.slope is not None:
        y = kernels.prelu(y, w.slope)
    if w.projection is not None:
        return kernels.linear(x, w.projection, residual=y)
    return y + x if module.use_residual else y


def logits(states: Floats, offsets: Ints, head: Head, kernels: Kernels) -> Floats:
    """Judge each input by the state of its first token, ``[CLS]`` or ``<s>``: (N, D) -> (S, C)."""
    first = states[offsets[:-1]]  # (S, D)
    return kernels.linear(kernels.linear(first, head.dense, activation=head.activation), head.output)


# --- Weights --------------------------------------------------------------------------------------------------


def build_weights(
    tensors: Mapping[str, Floats], config: TransformerConfig, kernels: Kernels, dtype: DTypeLike
) -> Weights:
    """Sort the tensors of a checkpoint, named by role, into records; large ones in the backend's layout."""

    def array(name: str) -> Floats:
        return np.array(tensors[name], dtype)

    def norm(name: str) -> LayerNorm:
        return LayerNorm(array(f"{name}.weight"), array(f"{name}.bias"))

    def dense(*names: str) -> Any:
        weights = [tensors[f"{name}.weight"] for name in names]
        biases = [tensors[f"{name}.bias"] for name in names]
        if len(names) == 1:
            return kernels.pack(weights[0], biases[0], dtype)
        return kernels.pack(np.concatenate(weights), np.concatenate(biases), dtype)

    def layer(at: str) -> Layer:
        qkv = dense(f"{at}.attention.query", f"{at}.attention.key", f"{at}.attention.value")
        attention = Attention(qkv, dense(f"{at}.attention.output"), norm(f"{at}.attention.norm"))
        intermediate, output = dense(f"{at}.feed_forward.intermediate"), dense(f"{at}.feed_forward.output")
        return Layer(attention, FeedForward(intermediate, output, norm(f"{at}.feed_forward.norm")))

    embeddings = Embeddings(
        word=tensors["embeddings.word"],  # left in the file: rows are widened as they are looked up
        position=array("embeddings.position"),
        token_type=array("embeddings.token_type") if "embeddings.token_type" in tensors else None,
        norm=norm("embeddings.norm"),
        projection=dense("embeddings.projection") if "embeddings.projection.weight" in tensors else None,
    )
    layers = tuple(layer(f"layers.{i}") for i in range(config.num_hidden_layers))
    bias = position_bias(array("position_bias"), config.max_tokens) if "position_bias" in tensors else None
    return Weights(embeddings, layers, bias)


def build_step(module: Module, tensors: Mapping[str, Floats], kernels: Kernels, dtype: DTypeLike) -> Step:
    """Put a module and its tensors, by their names in its file, into a record."""
    match module:
        case modules.Dense():
            zeros = np.zeros(module.out_features, np.float32)
            linear = kernels.pack(tensors["linear.weight"], tensors.get("linear.bias", zeros), dtype)
            projection = (
                kernels.pack(tensors["residual.weight"], zeros, dtype) if module.has_projection else None
            )
            slope = tensors.get("activation_function.weight")
            return module, DenseWeights(linear, projection, None if slope is None else np.array(slope, dtype))
        case modules.LayerNorm():
            return module, LayerNorm(
                np.array(tensors["norm.weight"], dtype), np.array(tensors["norm.bias"], dtype)
            )
        case modules.WeightedLayerPooling():
            return module, np.array(tensors["layer_weights"], dtype)
    return module, None


def build_head(tensors: Mapping[str, Floats], activation: str, kernels: Kernels, dtype: DTypeLike) -> Head:
    """Take the head's tensors from those of a checkpoint."""
    dense, output = (
        kernels.pack(tensors[f"head.{part}.weight"], tensors[f"head.{part}.bias"], dtype)
        for part in ("dense", "output")
    )
    return Head(dense, activation, output)
