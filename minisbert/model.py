"""The forward pass of the BERT family: token ids in, sentence vectors or a classifier's logits out.

Read it from top to bottom: it is in execution order. `kernels` stands for the functions in
`minisbert.kernels.reference.ops`, or for their compiled twins. The compiled backend
records `sentence_vectors` and `last_states` once, as a list of operations on addresses, and replays that for each
micro-batch (`kernels.compiled.plan`); modules that are not plain run after it, as they are written.

A micro-batch is ragged: the tokens of its sentences stand end to end, and ``offsets`` says where each
sentence starts and ends. So there is no padding and no attention mask.

Dimensions: S sentences, N tokens in the micro-batch, T tokens of one sentence, D width, H heads,
K = D // H head width, F feed-forward width, V vocabulary, P positions, L layers, C labels; D' width of a
sentence vector, and I, O the widths of a Dense module.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from minisbert.arrays import Floats, Ints
from minisbert.checkpoint import modules
from minisbert.checkpoint.config import TransformerConfig
from minisbert.checkpoint.modules import SENTENCE, TOKENS, needs_all_layers
from minisbert.kernels import Kernels
from minisbert.weights import Attention, DenseWeights, Embeddings, FeedForward, Head, Step, Weights

MODULE_EPS = 1e-5  # torch's own: a LayerNorm module does not store it


def sentence_vectors(
    ids: Ints,
    types: Ints,
    offsets: Ints,
    kernels: Kernels,
    weights: Weights,
    config: TransformerConfig,
    steps: Sequence[Step],
) -> Floats:
    """Return the vectors of sentences (S, D'); poolings include the tokens of a prompt."""
    states = hidden_states(ids, types, offsets, weights, config, kernels)
    return features(states, offsets, 0, steps, kernels)[SENTENCE]


def last_states(
    ids: Ints, types: Ints, offsets: Ints, kernels: Kernels, weights: Weights, config: TransformerConfig
) -> Floats:
    """Return the states (N, D) that come out of the last layer."""
    [last] = deque(hidden_states(ids, types, offsets, weights, config, kernels), maxlen=1)
    return last


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


def embed(
    ids: Ints, types: Ints, offsets: Ints, w: Embeddings, config: TransformerConfig, kernels: Kernels
) -> Floats:
    """Look up and add each token's vectors: ``norm(word + token_type + position)``, (N,) -> (N, D).

    BERT counts positions from 0. RoBERTa counts the tokens that are not padding, from ``pad_token_id + 1``. It
    knows padding by its id: so a literal ``<pad>`` in the text gets no position, and later tokens one lower.
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


# --- After the transformer ------------------------------------------------------------------------------------


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
