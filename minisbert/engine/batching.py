"""Micro-batches: which rows of a chunk are computed in one call."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["micro_batches", "tokens_per_batch"]

# What has no more tokens than SHARED_TOKENS is one micro-batch, and all threads share each multiply of it. Anything
# larger is cut into micro-batches of about TOKENS_PER_BATCH, one for each thread at a time: on two cores with 1 MB of
# second-level cache, 112 to 224 tokens were 2 to 3 % faster than 512 for short texts, and as fast for long ones. A wide
# model's have fewer tokens, so that a layer's widest activations are no more than FLOATS_PER_BATCH, 1.4 MB: at
# BERT-base's width titles are 1 % faster at 112 tokens than at 224 on a Zen 5. The last ones have fewer, so that all
# threads are done at about the same time.
SHARED_TOKENS = 512
TOKENS_PER_BATCH = 224
FLOATS_PER_BATCH = TOKENS_PER_BATCH * 1536
FEWEST_TOKENS = 56


def tokens_per_batch(width: int) -> int:
    """Return how many tokens a micro-batch may have, about, of a model whose widest activations are so wide."""
    return min(TOKENS_PER_BATCH, FLOATS_PER_BATCH // width)


def micro_batches(
    lengths: Sequence[int], batch_size: int, num_threads: int, most_tokens: int
) -> list[list[int]]:
    """Group rows into micro-batches of at most `batch_size` rows and about `most_tokens` tokens.

    Workers take them as they get free. So that `num_threads` of them finish at about the same time, the longest rows
    come first, and the last batches shrink: to a thread's share of what is left, and in the end to FEWEST_TOKENS, if
    `most_tokens` is not even less. What has no more than SHARED_TOKENS is one batch, if its rows allow. A row longer
    than the budget is a batch of its own.
    """
    order, left = sorted(range(len(lengths)), key=lambda row: -lengths[row]), sum(lengths)
    if order and left <= SHARED_TOKENS and len(order) <= batch_size:
        return [order]
    batches: list[list[int]] = []
    tokens, budget = 0, 0
    for row in order:
        if not batches or len(batches[-1]) == batch_size or tokens + lengths[row] > budget:
            tokens, budget = 0, min(max(left // num_threads, FEWEST_TOKENS), most_tokens)
            batches.append([])
        batches[-1].append(row)
        tokens, left = tokens + lengths[row], left - lengths[row]
    return batches
