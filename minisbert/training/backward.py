"""The backward pass: from the gradient of the loss by the sentence vectors to that by every weight.

Read it beside `minisbert.model`: the steps are those of the forward pass in reverse order, and each hands on the
gradient by what went into it. What the forward pass kept comes from the end of its tape. The equations are in
`minisbert.training.gradients`, the letters in `minisbert.model`. `g` has the gradients of the weights `w`, in records
of the same kind; to these each step adds its own.
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
from minisbert.training.forward import MicroBatch, Tape
from minisbert.training.parameters import Network
from minisbert.weights import Attention, DenseWeights, Embeddings, FeedForward, Step, position_bias

__all__ = ["backward"]


def backward(
    d: Floats, batch: MicroBatch, tape: Tape, w: Network, config: TransformerConfig, g: Network
) -> tuple[Ints, Floats]:
    """Add the gradients of all weights but the word vectors', given that by the sentence vectors, d (S, D').

    Returns
    -------
    ndarray of int, shape (U,), and ndarray of float, shape (U, E)
        The ids that occur, and the gradients of their word vectors: the table has far more rows than that.
    """
    d_states = features(d, batch.offsets, tape, w.steps, len(w.transformer.layers), g.steps)
    g_bias = None
    if w.transformer.position_bias is not None:
        g_bias = np.zeros((config.num_attention_heads, 2 * config.max_tokens - 1), d.dtype)
    d = d_states.pop()
    for layer, g_layer in zip(w.transformer.layers[::-1], g.transformer.layers[::-1], strict=True):
        d = feed_forward(d, tape, layer.feed_forward, config, g_layer.feed_forward)
        d = self_attention(d, tape, layer.attention, config, g_layer.attention, g_bias)
        d += d_states.pop()
    if g_bias is not None and g.transformer.position_bias is not None:
        _sum_buckets(g_bias, config.max_tokens, g.transformer.position_bias)
    return embed(d, batch, tape, w.transformer.embeddings, config, g.transformer.embeddings)


def features(
    d: Floats, offsets: Ints, tape: Tape, steps: Sequence[Step], L: int, g_steps: Sequence[Step]
) -> list[Any]:
    """From the vectors (S, D') back through the modules: to the states (N, D) of all layers, and 0 where nothing is."""
    found: dict[str, Floats] = {SENTENCE: d}
    d_states: list[Any] = [0] * (L + 1)
    for (module, w), (_, g) in zip(steps[::-1], g_steps[::-1], strict=True):
        kept, feature = tape.pop(), getattr(module, "feature", SENTENCE)
        match module:
            case modules.Pooling() if SENTENCE in found:
                parts = np.split(found.pop(SENTENCE), len(module.modes), axis=1)
                for mode, part in zip(module.modes, parts, strict=True):
                    found[TOKENS] = found.get(TOKENS, 0) + gradients.pool(part, kept, offsets, mode)
            case modules.WeightedLayerPooling() if TOKENS in found:
                for i, part in enumerate(gradients.mix(found.pop(TOKENS), kept, w, g), module.layer_start):
                    d_states[i] = d_states[i] + part
            case _ if feature not in found or kept is None:  # nothing depends on it, or it did nothing
                pass
            case modules.Normalize():
                found[feature] = gradients.normalize(found[feature], kept)
            case modules.Dense():
                found[feature] = dense(found[feature], kept, module, w, g)
            case modules.LayerNorm():
                found[SENTENCE] = gradients.layer_norm(found[SENTENCE], kept, w, g)
            case modules.Dropout():
                found[SENTENCE] = gradients.dropout(found[SENTENCE].copy(), kept)
    d_states[L] = d_states[L] + found.get(TOKENS, 0)
    return d_states


def dense(
    d: Floats, kept: tuple[Floats, Floats], module: modules.Dense, w: DenseWeights, g: DenseWeights
) -> Floats:
    """Back through ``activation(linear(x))``, and the residual ``+ x`` or ``+ projection(x)``: (S, O) -> (S, I)."""
    x, z = kept
    dz = d
    if w.slope is not None and g.slope is not None:
        dz = gradients.prelu(d, z, w.slope, g.slope)
    elif module.activation != "identity":
        _, dz = activation(module.activation, d, z)
    dx = gradients.linear(dz, x, w.linear, g.linear)
    if w.projection and g.projection:
        return dx + gradients.linear(d, x, w.projection, g.projection)
    return dx + d if module.use_residual else dx


def feed_forward(d: Floats, tape: Tape, w: FeedForward, config: TransformerConfig, g: FeedForward) -> Floats:
    """Back through ``norm(x + dropout(output(activation(intermediate(x)))))``: (N, D) -> (N, D)."""
    d = gradients.layer_norm(d, tape.pop(), w.norm, g.norm)
    dy = gradients.dropout(d.copy(), tape.pop())
    hidden, d_hidden = activation(config.hidden_act, dy @ w.output.weight, tape.pop())  # (N, F)
    gradients.linear_weights(dy, hidden, g.output)
    d += gradients.linear(d_hidden, tape.pop(), w.intermediate, g.intermediate)
    return d


def self_attention(
    d: Floats, tape: Tape, w: Attention, config: TransformerConfig, g: Attention, g_bias: Floats | None
) -> Floats:
    """Back through ``norm(x + dropout(output(attention(qkv(x)))))``: (N, D) -> (N, D)."""
    d = gradients.layer_norm(d, tape.pop(), w.norm, g.norm)
    dy = gradients.dropout(d.copy(), tape.pop())
    d_context = gradients.linear(dy, tape.pop(), w.output, g.output)
    d_qkv = gradients.attention(d_context, tape.pop(), config.num_attention_heads, g_bias)
    d += gradients.linear(d_qkv, tape.pop(), w.query_key_value, g.query_key_value)
    return d


def embed(
    d: Floats, batch: MicroBatch, tape: Tape, w: Embeddings, config: TransformerConfig, g: Embeddings
) -> tuple[Ints, Floats]:
    """Back through ``projection(dropout(norm(word + token_type + position)))``: (N, D) -> rows of the word table."""
    if w.projection and g.projection:
        d = gradients.linear(d, tape.pop(), w.projection, g.projection)
    d = gradients.layer_norm(gradients.dropout(d, tape.pop()), tape.pop(), w.norm, g.norm)
    padding = config.pad_token_id if config.positions_follow_ids else None
    for table, places, never in ((g.position, tape.pop(), padding), (g.token_type, batch.types, None)):
        if table is not None:
            rows, sums = gradients.sum_rows(d, places, never)
            table[rows] += sums
    return gradients.sum_rows(d, batch.ids, config.pad_token_id)


def _sum_buckets(g_bias: Floats, positions: int, g: Floats) -> None:
    """Back through `weights.position_bias`: (H, 2P - 1) -> (32, H)."""
    numbers = np.arange(BUCKETS, dtype=g.dtype)[:, np.newaxis]
    [buckets] = position_bias(numbers, positions)  # the bucket of each distance
    np.add.at(g, buckets.astype(int), g_bias.T)
