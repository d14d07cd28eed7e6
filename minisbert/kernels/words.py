"""The first multiply of a model: once for each word instead of once for each token.

It is given ``norm(word + place)``: what a word adds, with its segment, and what its place in the sentence adds. But for
the scale, norm and multiply are linear. So with ``v' = (v - mean(v)) * weight`` of a vector v, a product for each word
and one for each place are all that it takes::

    norm(word + place) @ W.T + b  =  scale * (word' @ W.T + place' @ W.T) + (bias @ W.T + b)

There are P places, and their products are made once. Those of words are kept as they come up: half of the tokens of a
long text are words that stood in it before, and of a few thousand texts all but a few percent are. This spares most of
the first multiply, one of four in the first of L layers and a quarter of their work. It changes no bit of a vector
whether a product was there already, as each row of a multiply is by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from minisbert.kernels import Floats, Ints, memory
from minisbert.kernels.packing import Packed

if TYPE_CHECKING:
    Multiply = Callable[[Floats, Packed], Floats]

__all__ = ["Parts", "Products"]

# So many words are kept for each place that there is: a micro-batch, which as a rule has no more tokens than there are
# places, always finds room for its own.
WORDS_PER_PLACE = 8


@dataclass(frozen=True, eq=False)
class Parts:
    """What the first multiply is made of: tables of word (V, D), position (P, D) and segment, a norm, and weights."""

    word: Floats
    position: Floats
    token_type: Floats | None
    weight: Floats
    bias: Floats
    dense: Packed

    @property
    def num_keys(self) -> int:
        """How many words in a segment there are: word v in segment t is number ``t * V + v``."""
        return len(self.word) * (1 if self.token_type is None else len(self.token_type))

    def keys(self, ids: Ints, types: Ints) -> Ints:
        """Number the words of N tokens: (N,) -> (N,)."""
        return ids if self.token_type is None else types * len(self.word) + ids

    def words(self, keys: Ints) -> Floats:
        """Return word', ready to be multiplied: (n,) -> (n, D)."""
        types, ids = np.divmod(keys, len(self.word))
        x = self.word[ids].astype(np.float64)
        return self._prime(x if self.token_type is None else x + self.token_type[types])

    def places(self) -> Floats:
        """Return place' of every place: (P, D)."""
        return self._prime(self.position.astype(np.float64))

    def _prime(self, x: NDArray[np.float64]) -> Floats:
        # What overflows ends as an error about the vectors.
        with np.errstate(over="ignore", invalid="ignore"):
            return ((x - x.mean(axis=1, keepdims=True)) * self.weight).astype(np.float32)


class _Words:
    """The products of the words that came up, and which row each has; a row is written before anybody can find it."""

    def __init__(self, parts: Parts) -> None:
        self.rows = memory.rows(WORDS_PER_PLACE * len(parts.position), parts.dense.width)
        self.address = memory.address(self.rows)
        self.row_of = np.full(parts.num_keys, -1, np.int32)
        # Threads, and signals in the midst of things, take rows from one counter: nobody needs a lock, or waits.
        self.free = count()

    def add(self, keys: Ints, products: Floats) -> bool:
        """Keep the products of some words, if there is room."""
        taken = list(islice(self.free, len(keys)))
        if taken[-1] >= len(self.rows):
            return False
        self.rows[taken] = products
        self.row_of[keys] = taken
        return True


class Products:
    """The products of a program's first multiply.

    Attributes
    ----------
    places : ndarray of float32, shape (P, width)
        ``place' @ W.T``, once a micro-batch was looked up.
    bias : ndarray of float32, shape (1, width)
        ``bias @ W.T + b``, likewise.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.places = memory.rows(len(parts.position), parts.dense.width)
        self.bias = memory.rows(1, parts.dense.width)
        self._plain = replace(parts.dense, bias=np.zeros_like(parts.dense.bias))
        self._words: _Words | None = None

    def look_up(self, ids: Ints, types: Ints, multiply: Multiply) -> tuple[_Words, Ints]:
        """Return ``word' @ W.T`` of some words, and which of its rows N tokens have: (N,)."""
        words = self._words or self._begin(multiply)
        keys = self.parts.keys(ids, types)
        while (rows := words.row_of[keys]).min(initial=0) < 0:
            new = np.unique(keys[rows < 0])
            if not words.add(new, multiply(self.parts.words(new), self._plain)):
                words = self._words = _Words(self.parts)  # the old ones go when nobody uses them any more
        return words, rows

    def _begin(self, multiply: Multiply) -> _Words:
        self.places[:] = multiply(self.parts.places(), self._plain)
        self.bias[:] = multiply(self.parts.bias[np.newaxis], self.parts.dense)
        words = self._words = _Words(self.parts)
        return words
