"""The loss of a batch of any size and its gradient, in the memory of a few micro-batches, on several threads.

First the vectors of all texts; then the gradient of the loss by them; then each micro-batch's backward pass [1]_. What
that needs is kept from the first pass as far as there is room, and else computed anew: dropout has a key for each
micro-batch, so that it is the same.

References
----------
.. [1] Gao et al., Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup, 2021: GradCache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from typing import Any, TypeVar

import numpy as np

from minisbert.arrays import Floats, Ints
from minisbert.checkpoint.config import CheckpointConfig
from minisbert.engine.workers import Workers
from minisbert.text.tokenizer import load_tokenizer
from minisbert.training.backward import backward
from minisbert.training.forward import MicroBatch, Rates, Tape, forward
from minisbert.training.optimiser import AdamW
from minisbert.training.parameters import Parameters

__all__ = ["Model"]

T = TypeVar("T")
# Tokens of a micro-batch, about: so many that to add its gradients to the others' is a small part of the work.
TOKENS = 1024
# Bytes that are kept from the first pass to the second, a few thousand tokens of a MiniLM; and for all
# micro-batches that are computed at once.
ROOM = 320 << 20
TEXTS = 256  # that are encoded at once where there is nothing to train


class Model:
    """A checkpoint's weights, in training."""

    def __init__(
        self, config: CheckpointConfig, rates: Rates, dtype: np.dtype[Any], workers: Workers, threads: int
    ):
        self.parameters = Parameters(config)
        self.weights = self.parameters.load(dtype)
        self.has_truncated = False
        self._config, self._rates, self._tokenizer = config, rates, load_tokenizer(config)
        self._workers, self._threads = workers, threads
        # One sum of gradients for each thread; of the word vectors only the first one is ever touched.
        self._gradients = [np.zeros(self.parameters.size, dtype) for _ in range(threads)]
        self._w, *self._g = map(self.parameters.network, [self.weights, *self._gradients])
        # Bytes that the layers keep: of a token eight of its states, what goes into the activation, and two masks; of a
        # pair of tokens a probability and a mask for each head.
        c = config.transformer
        row = dtype.itemsize * (8 * c.hidden_size + c.intermediate_size) + 2 * c.hidden_size
        self._row_bytes = row * c.num_hidden_layers
        self._pair_bytes = (dtype.itemsize + 1) * c.num_attention_heads * c.num_hidden_layers

    def gradient(
        self, texts: Sequence[str], loss: Callable[[Floats], tuple[float, Floats]], key: Sequence[int]
    ) -> tuple[float, Floats]:
        """Return the loss of texts, given that by their vectors and its gradient, and the gradient by all weights.

        The gradient is an array (size,) that the next call uses again; `key` says which dropout there is.
        """
        batches = self._micro_batches(texts)
        kept: dict[int, Tape] = {}
        vectors = np.empty((len(texts), self._config.embedding_dimension), self.weights.dtype)
        stays = [total <= ROOM for total in accumulate(map(self._size, batches))]

        def encode(i: int, keeps: bool) -> Tape:
            tape = Tape(self._rates, [*key, i], keeps)
            vectors[batches[i].places] = self._forward(batches[i], tape)
            return tape

        def first(i: int, lane: int) -> None:
            tape = encode(i, stays[i])
            if stays[i]:
                kept[i] = tape

        self._on_all_threads(first, len(batches))
        value, d = loss(vectors)

        def second(i: int, lane: int) -> tuple[Ints, Floats]:
            batch, tape = batches[i], kept.pop(i, None) or encode(i, True)
            return backward(d[batch.places], batch, tape, self._w, self._config.transformer, self._g[lane])

        for gradient in self._gradients:
            gradient[self.parameters.num_words :] = 0
        words = self._on_all_threads(second, len(batches))
        return value, self._sum(words)

    def encode(self, texts: Sequence[str]) -> Floats:
        """Return the vectors (S, D') of texts, without dropout."""
        no_dropout = Rates(0, 0, (0,) * len(self._rates.modules))
        vectors = np.empty((len(texts), self._config.embedding_dimension), self.weights.dtype)
        for start in range(0, len(texts), TEXTS):
            batches, part = self._micro_batches(texts[start : start + TEXTS]), vectors[start : start + TEXTS]

            def compute(i: int, lane: int, batches: Any = batches, part: Floats = part) -> None:
                part[batches[i].places] = self._forward(batches[i], Tape(no_dropout, [0], keeps=False))

            self._on_all_threads(compute, len(batches))
        return vectors

    def norm(self, optimiser: AdamW, gradient: Floats) -> float:
        """Return the Euclidean norm of a gradient."""
        parts = [gradient[piece] for piece in optimiser.pieces()]
        squares = self._on_all_threads(lambda i, lane: float(np.vdot(parts[i], parts[i])), len(parts))
        return math.sqrt(math.fsum(squares))

    def update(self, optimiser: AdamW, gradient: Floats, factor: float, lr: float, t: int) -> None:
        """Make update t of all weights."""
        pieces = optimiser.pieces()
        self._on_all_threads(
            lambda i, lane: optimiser.update(pieces[i], gradient, factor, lr, t), len(pieces)
        )

    def _micro_batches(self, texts: Sequence[str]) -> list[MicroBatch]:
        """Put texts of about the same length together, in batches of about as many tokens, some for each thread."""
        most = self._config.max_seq_length
        rows, counts = self._tokenizer(texts, 0, most)
        self.has_truncated |= max(counts) > most
        lengths = np.array([len(row) for row in rows])
        order = np.argsort(lengths, kind="stable")
        before, total = np.cumsum(lengths[order]) - lengths[order], int(lengths.sum())
        rounds = -(-total // (min(TOKENS, ROOM // self._row_bytes // self._threads) * self._threads))
        numbers = before * (rounds * self._threads) // max(1, total)
        batches = []
        for places in np.split(order, np.flatnonzero(np.diff(numbers)) + 1):
            ids: Ints = np.concatenate([rows[place] for place in places])
            types, offsets = np.full(len(ids), self._tokenizer.token_type), np.cumsum([0, *lengths[places]])
            batches.append(MicroBatch(places, ids, types, offsets))
        return batches

    def _size(self, batch: MicroBatch) -> int:
        """Return how many bytes the layers keep of a micro-batch."""
        pairs = int(np.square(np.diff(batch.offsets)).sum())
        return len(batch.ids) * self._row_bytes + pairs * self._pair_bytes

    def _forward(self, batch: MicroBatch, tape: Tape) -> Floats:
        return forward(batch, self._w, self._config.transformer, tape)

    def _sum(self, words: list[tuple[Ints, Floats]]) -> Floats:
        """Add up the gradients of all threads, and those of word vectors of all micro-batches, in one order."""
        total, *others = self._gradients
        rest = slice(self.parameters.num_words, None)
        for other in others:
            total[rest] += other[rest]
        total[: self.parameters.num_words] = 0
        table = self._g[0].transformer.embeddings.word
        for ids, rows in words:
            table[ids] += rows
        return total

    def _on_all_threads(self, function: Callable[[int, int], T], count: int) -> list[T]:
        """Call a function with each number below count, and with the thread's, which has every so many of them."""

        def run(lane: int) -> list[T]:
            with np.errstate(all="ignore"):  # what overflows makes the loss NaN, which is an error
                return [function(i, lane) for i in range(lane, count, self._threads)]

        waits = [self._workers.submit(partial(run, lane)) for lane in range(self._threads)]
        results = [wait() for wait in waits]
        return [results[i % self._threads][i // self._threads] for i in range(count)]
