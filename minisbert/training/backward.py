"""The backward pass: from the gradient of the loss by the sentence vectors to that by every weight.

Read it beside `minisbert.model`: the steps are those of the forward pass in reverse order, and each hands on the
gradient by what went into it. The equations are in `minisbert.training.gradients`, the letters in `minisbert.model`.
`g` has the gradients of the weights `w`, in records of the same kind; to these each step adds its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from minisbert.arrays import Floats, Ints
from minisbert.checkpoint import modules
from minisbert.checkpoint.config import TransformerConfig
from minisbert.checkpoint.families import BUCKETS
from minisbert.checkpoint.modules import SENTENCE, TOKENS
from minisbert.training import gradients
from minisbert.training.activations import activation
from minisbert.training.forward import Kept, KeptAttention, KeptEmbeddings, KeptFeedForward, Tokens
from minisbert.training.parameters import Network
from minisbert.weights import Attention, Embeddings, FeedForward, Step, position_bias

__all__ = ["backward"]

# The gradients by token vectors and sentence vectors, by the name of the feature, and by the states of each layer.
Features = dict[str, Floats]


def backward(
    d: Floats, tokens: Tokens, kept: Kept, w: Network, config: TransformerConfig, g: Network
) -> tuple[Ints, Floats]:
    """Add the gradients of all weights but the word vectors', given that by the sentence vectors, d (S, D').

    Returns
    -------
    ndarray of int, shape (U,), and ndarray of float, shape (U, E)
        The ids that occur, and the gradients of their word vectors: the table has far more rows than that.
    """
    d_states = features(d, tokens.offsets, kept.modules, w.steps, len(kept.layers), g.steps)
    g_bias = None
    if w.transformer.position_bias is not None:
        g_bias = np.zeros((config.num_attention_heads, 2 * config.max_tokens - 1), d.dtype)
    d = d_states.pop()
    for layer, g_layer in zip(w.transformer.layers[::-1], g.transformer.layers[::-1], strict=True):
        kept_attention, kept_feed_forward = kept.layers.pop()  # and let go of, once it was used
        d = feed_forward(d, kept_feed_forward, layer.feed_forward, config, g_layer.feed_forward)
        d = self_attention(d, kept_attention, layer.attention, config, g_layer.attention, g_bias)
        d += d_states.pop()
    if g_bias is not None and g.transformer.position_bias is not None:
        _sum_buckets(g_bias, config.max_tokens, g.transformer.position_bias)
    return embed(d, tokens, kept.embeddings, w.transformer.embeddings, config, g.transformer.embeddings)


def features(
    d: Floats, offsets: Ints, kept: list[Any], steps: Sequence[Step], L: int, g_steps: Sequence[Step]
) -> list[Floats]:
    """From the vectors (S, D') back through the modules: to the states (N, D) of all layers, and 0 where nothing is."""
    found: Features = {SENTENCE: d}
    d_states: list[Any] = [0] * (L + 1)
    for (module, w), (_, g), keeps in zip(steps[::-1], g_steps[::-1], kept[::-1], strict=True):
        feature = getattr(module, "feature", SENTENCE)
        match module:
            case modules.Pooling() if SENTENCE in found:
                parts = np.split(found.pop(SENTENCE), len(module.modes), axis=1)
                for mode, part in zip(module.modes, parts, strict=True):
                    found[TOKENS] = found.get(TOKENS, 0) + gradients.pool(part, keeps, offsets, mode)
            case modules.WeightedLayerPooling() if TOKENS in found:
                for i, part in enumerate(gradients.mix(found.pop(TOKENS), keeps, w, g), module.layer_start):
                    d_states[i] = d_states[i] + part
            case _ if feature not in found or keeps is None:  # nothing depends on it, or it did nothing
                pass
            case modules.Normalize():
                found[feature] = gradients.normalize(found[feature], keeps)
            case modules.Dense():
                found[feature] = dense(found[feature], keeps, module, w, g)
            case modules.LayerNorm():
                found[SENTENCE] = gradients.layer_norm(found[SENTENCE], keeps, w, g)
            case modules.Dropout():
                found[SENTENCE] = gradients.dropout(found[SENTENCE].copy(), keeps)
    d_states[L] = d_states[L] + found.get(TOKENS, 0)
    return d_states


def dense(d: Floats, kept: tuple[Floats, Floats], module: modules.Dense, w: Any, g: Any) -> Floats:
    """Back through ``activation(linear(x))``, and the residual ``+ x`` or ``+ projection(x)``: (S, O) -> (S, I)."""
    x, z = kept
    dz = d
    if w.slope is not None:
        dz = gradients.prelu(d, z, w.slope, g.slope)
    elif module.activation != "identity":
        _, dz = activation(module.activation, d, z)
    dx = gradients.linear(dz, x, w.linear, g.linear)
    if w.projection is not None:
        return dx + gradients.linear(d, x, w.projection, g.projection)
    return dx + d if module.use_residual else dx


def feed_forward(
    d: Floats, kept: KeptFeedForward, w: FeedForward, config: TransformerConfig, g: FeedForward
) -> Floats:
    """Back through ``norm(x + dropout(output(activation(intermediate(x)))))``: (N, D) -> (N, D)."""
    d = gradients.layer_norm(d, kept.norm, w.norm, g.norm)
    dy = gradients.dropout(d.copy(), kept.mask)
    hidden, d_hidden = activation(config.hidden_act, dy @ w.output.weight, kept.hidden)  # (N, F)
    gradients.linear_weights(dy, hidden, g.output)
    d += gradients.linear(d_hidden, kept.x, w.intermediate, g.intermediate)
    return d


def self_attention(
    d: Floats,
    kept: KeptAttention,
    w: Attention,
    config: TransformerConfig,
    g: Attention,
    g_bias: Floats | None,
) -> Floats:
    """Back through ``norm(x + dropout(output(attention(qkv(x)))))``: (N, D) -> (N, D)."""
    d = gradients.layer_norm(d, kept.norm, w.norm, g.norm)
    dy = gradients.dropout(d.copy(), kept.mask)
    d_context = gradients.linear(dy, kept.context, w.output, g.output)
    d_qkv = gradients.attention(d_context, kept.qkv, kept.groups, config.num_attention_heads, g_bias)
    d += gradients.linear(d_qkv, kept.x, w.query_key_value, g.query_key_value)
    return d


def embed(
    d: Floats, tokens: Tokens, kept: KeptEmbeddings, w: Embeddings, config: TransformerConfig, g: Embeddings
) -> tuple[Ints, Floats]:
    """Back through ``projection(dropout(norm(word + token_type + position)))``: (N, D) -> rows of the word table."""
    if kept.before_projection is not None and w.projection and g.projection:
        d = gradients.linear(d, kept.before_projection, w.projection, g.projection)
    d = gradients.layer_norm(gradients.dropout(d, kept.mask), kept.norm, w.norm, g.norm)
    padding = config.pad_token_id if config.positions_follow_ids else None
    for table, places, never in ((g.position, kept.positions, padding), (g.token_type, tokens.types, None)):
        if table is not None:
            rows, sums = gradients.sum_rows(d, places, never)
            table[rows] += sums
    return gradients.sum_rows(d, tokens.ids, config.pad_token_id)


def _sum_buckets(g_bias: Floats, positions: int, g: Floats) -> None:
    """Back through `weights.position_bias`: (H, 2P - 1) -> (32, H)."""
    numbers = np.arange(BUCKETS, dtype=g.dtype)[:, np.newaxis]
    [buckets] = position_bias(numbers, positions)  # the bucket of each distance
    np.add.at(g, buckets.astype(int), g_bias.T)
