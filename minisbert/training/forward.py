"""The forward pass of training: that of `minisbert.model`, with dropout, keeping what `backward` needs.

Read it beside `minisbert.model`, whose letters and steps these are. What is kept lies on a tape in the order in which
it was computed, and the backward pass takes it from the end. Dropout is where the reference has it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from minisbert.arrays import Floats, Ints
from minisbert.checkpoint import modules
from minisbert.checkpoint.config import TransformerConfig
from minisbert.checkpoint.modules import SENTENCE, TOKENS
from minisbert.kernels.reference import ops
from minisbert.kernels.reference.activations import ACTIVATIONS, softmax
from minisbert.model import MODULE_EPS
from minisbert.training import gradients
from minisbert.training.gradients import Mask, Norm, by_head, groups, pieces
from minisbert.training.parameters import Network
from minisbert.weights import Attention, DenseWeights, Embeddings, FeedForward, LayerNorm, Step, position_bias

__all__ = ["MicroBatch", "Rates", "Tape", "forward"]

T = TypeVar("T")


class Rates(NamedTuple):
    """How much dropout there is: of embeddings and results of layers, of attention, and in each Dropout module."""

    hidden: float
    attention: float
    modules: tuple[float, ...]


class MicroBatch(NamedTuple):
    """Sentences end to end: which of the texts they are, ids (N,) and types (N,) of tokens, and offsets (S + 1,)."""

    places: Ints
    ids: Ints
    types: Ints
    offsets: Ints


class Tape:
    """What a forward pass keeps, if it is to keep anything; and its dropout, the same whenever the key is."""

    def __init__(self, rates: Rates, key: Sequence[int], keeps: bool = True) -> None:
        self.rates = rates
        self._bits = np.random.Generator(np.random.SFC64(np.random.SeedSequence(key)))
        self._kept: deque[Any] = deque(maxlen=None if keeps else 0)

    def keep(self, value: T) -> T:
        """Put a value on the tape, and return it."""
        self._kept.append(value)
        return value

    def pop(self) -> Any:
        """Take the last value from the tape."""
        return self._kept.pop()

    def mask(self, shape: tuple[int, ...], rate: float) -> Mask | None:
        """Keep an element with the probability 1 - rate, to within 1 / 65536: each takes 16 random bits."""
        dropped = round(rate * 65536)
        if not dropped:
            return None
        size = int(np.prod(shape))
        words = self._bits.integers(0, 1 << 64, -(-size // 4), np.uint64)
        return Mask((words.view(np.uint16)[:size] >= dropped).reshape(shape), 65536 / (65536 - dropped))


def forward(batch: MicroBatch, w: Network, config: TransformerConfig, tape: Tape) -> Floats:
    """Return the vectors (S, D') of a micro-batch."""
    states = [x := embed(batch, w.transformer.embeddings, config, tape)]
    bias = w.transformer.position_bias
    if bias is not None:
        bias = position_bias(bias, config.max_tokens)
    for layer in w.transformer.layers:
        x = self_attention(x, batch.offsets, layer.attention, bias, config, tape)
        x = feed_forward(x, layer.feed_forward, config, tape)
        states.append(x)
    return features(states, batch.offsets, w.steps, tape)


def embed(batch: MicroBatch, w: Embeddings, config: TransformerConfig, tape: Tape) -> Floats:
    """``dropout(norm(word + token_type + position))``, and its projection where there is one: (N,) -> (N, D)."""
    padding = config.pad_token_id if config.positions_follow_ids else None
    positions = tape.keep(ops.positions(batch.ids, batch.offsets, padding))
    x = ops.embed(batch.ids, positions, batch.types, w.word, w.position, w.token_type)
    x = dropout(layer_norm(x, w.norm, config.layer_norm_eps, tape), tape.rates.hidden, tape)
    return x if w.projection is None else linear(tape.keep(x), w.projection)


def self_attention(
    x: Floats, offsets: Ints, w: Attention, bias: Floats | None, config: TransformerConfig, tape: Tape
) -> Floats:
    """``norm(x + dropout(output(attention(qkv(x)))))``; DistilBERT has no dropout there."""
    qkv = linear(tape.keep(x), w.query_key_value)  # (N, 3D)
    context = attention(qkv, offsets, config.num_attention_heads, bias, tape)  # (N, D)
    rate = 0 if config.model_type == "distilbert" else tape.rates.hidden
    y = dropout(linear(tape.keep(context), w.output), rate, tape)
    y += x
    return layer_norm(y, w.norm, config.layer_norm_eps, tape)


def feed_forward(x: Floats, w: FeedForward, config: TransformerConfig, tape: Tape) -> Floats:
    """``norm(x + dropout(output(activation(intermediate(x)))))``; the activation is not kept, but computed anew."""
    hidden = tape.keep(linear(tape.keep(x), w.intermediate))  # (N, F)
    y = linear(ACTIVATIONS[config.hidden_act](hidden.copy()), w.output)  # (N, D)
    y = dropout(y, tape.rates.hidden, tape)
    y += x
    return layer_norm(y, w.norm, config.layer_norm_eps, tape)


# --- after the transformer --------------------------------------------------------------------------------------


def features(states: list[Floats], offsets: Ints, steps: Sequence[Step], tape: Tape) -> Floats:
    """Run the modules over the states of all layers, and return the vectors (S, D'); each keeps one thing."""
    found, rates = {TOKENS: states[-1]}, iter(tape.rates.modules)
    for module, w in steps:
        match module:
            case modules.Pooling():
                x = tape.keep(found[TOKENS])
                found[SENTENCE] = np.concatenate(
                    [ops.pool(x, offsets, mode) for mode in module.modes], axis=1
                )
            case modules.Normalize() if module.feature in found:
                found[module.feature] = ops.normalize(tape.keep(found[module.feature]))
            case modules.Dense():
                found[module.feature] = dense(found[module.feature], module, w, tape)
            case modules.LayerNorm():
                found[SENTENCE] = layer_norm(found[SENTENCE].copy(), w, MODULE_EPS, tape)
            case modules.WeightedLayerPooling():
                found[TOKENS] = ops.mix(tape.keep(states[module.layer_start :]), w)
            case modules.Dropout():
                found[SENTENCE] = dropout(found[SENTENCE].copy(), next(rates), tape)
            case _:
                tape.keep(None)
    return found[SENTENCE]


def dense(x: Floats, module: modules.Dense, w: DenseWeights, tape: Tape) -> Floats:
    """``activation(linear(x))``, and with a residual ``+ x`` or ``+ projection(x)``: (S, I) -> (S, O)."""
    _, z = tape.keep((x, linear(x, w.linear)))
    if w.slope is not None:
        y = ops.prelu(z, w.slope)
    else:
        y = z if module.activation == "identity" else ACTIVATIONS[module.activation](z.copy())
    if w.projection is not None:
        return y + linear(x, w.projection)
    return y + x if module.use_residual else y


# --- operations -------------------------------------------------------------------------------------------------


def linear(x: Floats, w: ops.Dense) -> Floats:
    """``x @ weight.T + bias``, by one multiply: the accumulation blocks of `ops.linear` would take 10 % more time."""
    y: Floats = x @ w.weight.T
    y += w.bias
    return y


def dropout(x: Floats, rate: float, tape: Tape) -> Floats:
    """``x * kept / (1 - rate)``, in place."""
    return gradients.dropout(x, tape.keep(tape.mask(x.shape, rate)))


def layer_norm(x: Floats, w: LayerNorm, eps: float, tape: Tape) -> Floats:
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
    tape.keep(Norm(x, rstd))
    return y


def attention(qkv: Floats, offsets: Ints, num_heads: int, bias: Floats | None, tape: Tape) -> Floats:
    """``dropout(softmax(q @ k.T / sqrt(K) + bias)) @ v``, sentences of equal length at once: (N, 3D) -> (N, D)."""
    N, D = len(qkv), qkv.shape[1] // 3
    context, kept = np.zeros((N, D), qkv.dtype), []
    for group in groups(offsets, num_heads):
        q, k, v = by_head(qkv, group, num_heads, 3)  # (S, H, T, K) each
        p = q @ k.swapaxes(2, 3)  # (S, H, T, T)
        p *= qkv.dtype.type(1 / np.sqrt(D // num_heads))
        if bias is not None:
            places = np.arange(p.shape[-1])
            p += bias[:, bias.shape[1] // 2 + places - places[:, np.newaxis]]
        softmax(p)
        mask = tape.mask(p.shape, tape.rates.attention)
        [c] = by_head(context, group, num_heads, 1)
        np.matmul(gradients.dropout(p.copy(), mask), v, out=c)
        kept.append((group, p, mask))
    tape.keep((qkv, kept))
    return context
