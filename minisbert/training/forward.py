"""The forward pass of training: that of `minisbert.model`, with dropout, keeping what `backward` needs.

Read it beside `minisbert.model`, whose letters and steps these are: each step returns its result and a record of what
it keeps. Dropout is where the reference has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from minisbert.arrays import Floats, Ints
from minisbert.checkpoint import modules
from minisbert.checkpoint.config import TransformerConfig
from minisbert.checkpoint.modules import SENTENCE, TOKENS
from minisbert.kernels.reference import ops
from minisbert.kernels.reference.activations import ACTIVATIONS, softmax
from minisbert.model import MODULE_EPS
from minisbert.training.gradients import Group, Mask, Norm, by_head, dropout, groups, pieces
from minisbert.training.parameters import Network
from minisbert.weights import Attention, Embeddings, FeedForward, LayerNorm, Step, position_bias

__all__ = ["Dropout", "Kept", "Rates", "Tokens", "forward"]


class Rates(NamedTuple):
    """How much dropout there is: of embeddings and results of layers, of attention, and in each Dropout module."""

    hidden: float
    attention: float
    modules: tuple[float, ...]


class Tokens(NamedTuple):
    """A micro-batch: the token ids (N,) of its sentences end to end, their types (N,), and the offsets (S + 1,)."""

    ids: Ints
    types: Ints
    offsets: Ints


class KeptEmbeddings(NamedTuple):
    """Of the embeddings."""

    positions: Ints
    norm: Norm
    mask: Mask | None
    before_projection: Floats | None


class KeptAttention(NamedTuple):
    """Of self-attention."""

    x: Floats
    qkv: Floats
    groups: list[tuple[Group, Floats, Mask | None]]  # and their probabilities (S, H, T, T), before dropout
    context: Floats
    mask: Mask | None
    norm: Norm


class KeptFeedForward(NamedTuple):
    """Of the feed-forward; the activation is computed anew, from what goes into it."""

    x: Floats
    hidden: Floats  # (N, F)
    mask: Mask | None
    norm: Norm


class Kept(NamedTuple):
    """Of a micro-batch."""

    embeddings: KeptEmbeddings
    layers: list[tuple[KeptAttention, KeptFeedForward]]
    modules: list[Any]


class Dropout:
    """Draws masks: from the same key the same ones, in the order in which they are asked for."""

    def __init__(self, rates: Rates, key: Sequence[int]) -> None:
        self.rates = rates
        self._bits = np.random.Generator(np.random.SFC64(np.random.SeedSequence(key)))

    def mask(self, shape: tuple[int, ...], rate: float) -> Mask | None:
        """Keep an element with the probability 1 - rate, to within 1 / 65536: each takes 16 random bits."""
        dropped = round(rate * 65536)
        if not dropped:
            return None
        size = int(np.prod(shape))
        words = self._bits.integers(0, 1 << 64, -(-size // 4), np.uint64)
        return Mask((words.view(np.uint16)[:size] >= dropped).reshape(shape), 65536 / (65536 - dropped))


def forward(
    tokens: Tokens, w: Network, config: TransformerConfig, drop: Dropout, keep: bool = True
) -> tuple[Floats, Kept]:
    """Return the vectors (S, D') of a micro-batch, and what its backward pass needs, if that is to be kept."""
    x, kept_embeddings = embed(tokens, w.transformer.embeddings, config, drop)
    bias = w.transformer.position_bias
    if bias is not None:
        bias = position_bias(bias, config.max_tokens)
    states, kept_layers = [x], []
    for layer in w.transformer.layers:
        x, kept_attention = self_attention(x, tokens.offsets, layer.attention, bias, config, drop)
        x, kept_feed_forward = feed_forward(x, layer.feed_forward, config, drop)
        states.append(x)
        if keep:
            kept_layers.append((kept_attention, kept_feed_forward))
    vectors, kept_modules = features(states, tokens.offsets, w.steps, drop)
    return vectors, Kept(kept_embeddings, kept_layers, kept_modules)


def embed(
    tokens: Tokens, w: Embeddings, config: TransformerConfig, drop: Dropout
) -> tuple[Floats, KeptEmbeddings]:
    """``dropout(norm(word + token_type + position))``, and its projection where there is one: (N,) -> (N, D)."""
    ids, types, offsets = tokens
    positions = ops.positions(ids, offsets, config.pad_token_id if config.positions_follow_ids else None)
    x = ops.embed(ids, positions, types, w.word, w.position, w.token_type)
    mask = drop.mask(x.shape, drop.rates.hidden)
    x, norm = layer_norm(x, w.norm, config.layer_norm_eps)
    x = dropout(x, mask)
    if w.projection is None:
        return x, KeptEmbeddings(positions, norm, mask, None)
    return linear(x, w.projection), KeptEmbeddings(positions, norm, mask, x)


def self_attention(
    x: Floats, offsets: Ints, w: Attention, bias: Floats | None, config: TransformerConfig, drop: Dropout
) -> tuple[Floats, KeptAttention]:
    """``norm(x + dropout(output(attention(qkv(x)))))``; DistilBERT has no dropout there."""
    qkv = linear(x, w.query_key_value)  # (N, 3D)
    context, kept = attention(qkv, offsets, config.num_attention_heads, bias, drop)  # (N, D)
    mask = None if config.model_type == "distilbert" else drop.mask(x.shape, drop.rates.hidden)
    y = dropout(linear(context, w.output), mask)
    y += x
    y, norm = layer_norm(y, w.norm, config.layer_norm_eps)
    return y, KeptAttention(x, qkv, kept, context, mask, norm)


def feed_forward(
    x: Floats, w: FeedForward, config: TransformerConfig, drop: Dropout
) -> tuple[Floats, KeptFeedForward]:
    """``norm(x + dropout(output(activation(intermediate(x)))))``."""
    hidden = linear(x, w.intermediate)  # (N, F)
    mask = drop.mask(x.shape, drop.rates.hidden)
    y = dropout(linear(ACTIVATIONS[config.hidden_act](hidden.copy()), w.output), mask)  # (N, D)
    y += x
    y, norm = layer_norm(y, w.norm, config.layer_norm_eps)
    return y, KeptFeedForward(x, hidden, mask, norm)


# --- the operations that keep something -------------------------------------------------------------------------


def linear(x: Floats, w: ops.Dense) -> Floats:
    """``x @ weight.T + bias``, by one multiply: the accumulation blocks of `ops.linear` would take 10 % more time."""
    y: Floats = x @ w.weight.T
    y += w.bias
    return y


def layer_norm(x: Floats, w: LayerNorm, eps: float) -> tuple[Floats, Norm]:
    """``z * weight + bias``, with ``z = (x - mean) / sqrt(variance + eps)`` in the place of x."""
    y, rstd = np.empty_like(x), np.empty((len(x), 1), x.dtype)
    for rows in pieces(x):
        z, scale = x[rows], rstd[rows]
        z -= z.mean(axis=-1, keepdims=True)
        np.einsum("nd,nd->n", z, z, out=scale[:, 0])
        scale /= x.shape[1]
        scale += eps
        np.divide(1, np.sqrt(scale, out=scale), out=scale)
        z *= scale
        np.multiply(z, w.weight, out=y[rows])
        y[rows] += w.bias
    return y, Norm(x, rstd)


def attention(
    qkv: Floats, offsets: Ints, num_heads: int, bias: Floats | None, drop: Dropout
) -> tuple[Floats, list[tuple[Group, Floats, Mask | None]]]:
    """``dropout(softmax(q @ k.T / sqrt(K) + bias)) @ v``, sentences of equal length at once: (N, 3D) -> (N, D)."""
    N, D = len(qkv), qkv.shape[1] // 3
    context, kept = np.zeros((N, D), qkv.dtype), []
    for group in groups(offsets, num_heads):
        q, k, v = by_head(qkv, group, num_heads, 3)  # (S, H, T, K) each
        p = q @ k.swapaxes(2, 3)  # (S, H, T, T)
        p *= qkv.dtype.type(1 / np.sqrt(D // num_heads))
        if bias is not None:
            places = np.arange(group.T)
            p += bias[:, bias.shape[1] // 2 + places - places[:, np.newaxis]]
        softmax(p)
        mask = drop.mask(p.shape, drop.rates.attention)
        [c] = by_head(context, group, num_heads, 1)
        np.matmul(dropout(p.copy(), mask), v, out=c)
        kept.append((group, p, mask))
    return context, kept


# --- after the transformer --------------------------------------------------------------------------------------


def features(
    states: list[Floats], offsets: Ints, steps: Sequence[Step], drop: Dropout
) -> tuple[Floats, list[Any]]:
    """Run the modules over the states of all layers; return the vectors (S, D'), and what each module keeps."""
    found, kept = {TOKENS: states[-1]}, []
    rates = iter(drop.rates.modules)
    for module, w in steps:
        keeps: Any = None
        match module:
            case modules.Pooling():
                keeps = found[TOKENS]
                found[SENTENCE] = np.concatenate(
                    [ops.pool(keeps, offsets, mode) for mode in module.modes], axis=1
                )
            case modules.Normalize() if module.feature in found:
                keeps = found[module.feature]
                found[module.feature] = ops.normalize(keeps)
            case modules.Dense():
                found[module.feature], keeps = dense(found[module.feature], module, w)
            case modules.LayerNorm():
                found[SENTENCE], keeps = layer_norm(found[SENTENCE].copy(), w, MODULE_EPS)
            case modules.WeightedLayerPooling():
                keeps = states[module.layer_start :]
                found[TOKENS] = ops.mix(keeps, w)
            case modules.Dropout():
                keeps = drop.mask(found[SENTENCE].shape, next(rates))
                found[SENTENCE] = dropout(found[SENTENCE].copy(), keeps)
        kept.append(keeps)
    return found[SENTENCE], kept


def dense(x: Floats, module: modules.Dense, w: Any) -> tuple[Floats, tuple[Floats, Floats]]:
    """``activation(linear(x))``, and with a residual ``+ x`` or ``+ projection(x)``: (S, I) -> (S, O)."""
    z = linear(x, w.linear)
    if w.slope is not None:
        y = ops.prelu(z, w.slope)
    else:
        y = z if module.activation == "identity" else ACTIVATIONS[module.activation](z.copy())
    if w.projection is not None:
        y = y + linear(x, w.projection)
    elif module.use_residual:
        y = y + x
    return y, (x, z)
