"""The first multiply of a model: once for each word instead of once for each token.

It is given ``norm(word + place)``: what a word adds, with its segment, and what its place in the sentence adds. But for
the scale, norm and multiply are linear. So with ``v' = (v - mean(v)) * weight`` of a vector v, a product for each word
and one for each place are all that it takes::

    norm(word + place) @ W.T + b  =  scale * (word' @ W.T + place' @ W.T) + (bias @ W.T + b)

Products of places are made once, when a text first is that long. Those of words are kept: the words of a thousand texts
are multiplied at once, each once, before anything else, and most of them were in the texts before. This spares most of
the first multiply, one of four in the first of L layers and a quarter of their work. It changes no bit of a vector
whether a product was there already, as each row of a multiply is by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count, islice
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from minisbert.kernels import Floats, Ints, memory
from minisbert.kernels.packing import Packed

__all__ = ["Parts", "Products"]

Multiply: TypeAlias = Callable[[Floats, Packed], Floats]

KEPT = 3072  # words: all but a few of those that a thousand texts have, and 14 MB at MiniLM's width
# So many words or places are multiplied at once: what that takes beside the table is soon given back.
AT_ONCE = 512


@dataclass(frozen=True, eq=False)
class Parts:
    """What the first multiply is made of: tables of word (V, D), position (P, D) and segment, a norm, and weights.

    The first token of a sentence is at place `first`, unless it is padding.
    """

    word: Floats
    position: Floats
    token_type: Floats | None
    first: int
    weight: Floats
    bias: Floats
    dense: Packed

    def keys(self, ids: Ints, types: Ints) -> Ints:
        """Number the words of N tokens, in each segment anew: (N,) -> (N,)."""
        return types.astype(np.int64) * len(self.word) + ids

    def words(self, keys: Ints) -> Floats:
        """Return word', ready to be multiplied: (n,) -> (n, D)."""
        types, ids = np.divmod(keys, len(self.word))
        x = self.word[ids].astype(np.float64)
        if self.token_type is not None:
            x += self.token_type[types]
        return self._prime(x)

    def places(self, start: int, stop: int) -> Floats:
        """Return place' of some places, likewise: (stop - start, D)."""
        return self._prime(self.position[start:stop].astype(np.float64))

    def _prime(self, x: NDArray[np.float64]) -> Floats:
        # What overflows ends as an error about the vectors.
        with np.errstate(over="ignore", invalid="ignore"):
            return ((x - x.mean(axis=1, keepdims=True)) * self.weight).astype(np.float32)


class _Words:
    """The products of some words, and which row each has; a row is written before anybody can find it."""

    def __init__(self, parts: Parts) -> None:
        self.rows = memory.rows(KEPT, parts.dense.width)
        self.address, self.step = memory.address(self.rows), self.rows.strides[0]
        self.taken = 0
        # Threads, and signals in the midst of things, take rows from one counter: nobody needs a lock, or waits.
        self._next = count()
        # The keys in order and their rows, always replaced as a whole; the last key is larger than any.
        self._known = np.array([np.iinfo(np.int64).max]), np.array([-1], np.int64)

    def find(self, keys: Ints) -> Ints:
        """Return the rows of words: (n,) -> (n,), -1 for those that are not there."""
        known, rows = self._known
        places = np.searchsorted(known, keys)
        return np.where(known[places] == keys, rows[places], -1)

    def add(self, keys: Ints, products: Floats) -> None:
        """Keep the products of some words, if there is room for all of them."""
        taken = list(islice(self._next, len(keys)))
        self.taken = last = taken[-1] + 1
        if last > len(self.rows):
            return
        self.rows[taken] = products
        known, rows = self._known
        known, rows = np.append(known, keys), np.append(rows, taken)
        order = np.argsort(known)
        self._known = known[order], rows[order]


class Products:
    """The products of a program's first multiply.

    Attributes
    ----------
    places : ndarray of float32, shape (P, width)
        ``place' @ W.T``, of as many places as were needed so far.
    bias : ndarray of float32, shape (1, width)
        ``bias @ W.T + b``, once a place was needed.
    """

    def __init__(self, parts: Parts, multiply: Multiply) -> None:
        self.places = memory.rows(len(parts.position), parts.dense.width)
        self.bias = memory.rows(1, parts.dense.width)
        self._parts, self._multiply = parts, multiply
        self._plain = replace(parts.dense, bias=np.zeros_like(parts.dense.bias))
        self._words = _Words(parts)
        self._filled = 0

    def expect(self, ids: Ints, types: Ints) -> None:
        """Make the products of all words of N tokens that come soon; if there are too many, of the most frequent ones.

        Where there is no more room, all that was kept is let go.
        """
        words, keys = self._words, self._parts.keys(ids, types)
        unknown = keys[words.find(keys) < 0]
        if len(unknown) == 0:
            return
        new = np.unique(unknown)
        if words.taken + len(new) > len(words.rows):
            words = _Words(self._parts)
            new, counts = np.unique(keys, return_counts=True)
            new = new[np.argsort(-counts, kind="stable")[: len(words.rows)]]
        for start in range(0, len(new), AT_ONCE):
            some = new[start : start + AT_ONCE]
            words.add(some, self._products(some))
        self._words = words

    def look_up(self, ids: Ints, types: Ints, longest: int) -> tuple[Ints, Ints, Floats]:
        """Look for ``word' @ W.T`` of N tokens.

        `longest` is the longest sentence's T, up to which `places` is filled.

        Returns
        -------
        ndarray of int64, shape (N,)
            The addresses.
        ndarray of int64, shape (n,)
            Which tokens have none, as their words were not expected.
        ndarray of float32
            What must live as long as the addresses are needed.
        """
        self._fill(self._parts.first + longest)
        words = self._words
        rows = words.find(self._parts.keys(ids, types))
        return words.address + rows * words.step, np.flatnonzero(rows < 0), words.rows

    def complete(self, ids: Ints, types: Ints, addresses: Ints, missing: Ints) -> tuple[Ints, Floats | None]:
        """Make the products that `look_up` did not find, and keep them if there is room.

        Returns all addresses (N,), and what else must live as long as they are needed.
        """
        if len(missing) == 0:
            return addresses, None
        keys, which = np.unique(self._parts.keys(ids, types)[missing], return_inverse=True)
        products = self._products(keys)
        self._words.add(keys, products)
        addresses = addresses.copy()  # another thread may do the same
        addresses[missing] = memory.address(products) + which * products.strides[0]
        return addresses, products

    def _products(self, keys: Ints) -> Floats:
        return self._multiply(self._parts.words(keys), self._plain)

    def _fill(self, needed: int) -> None:
        start, stop = self._filled, min(-(-needed // AT_ONCE) * AT_ONCE, len(self.places))
        if start >= stop:
            return
        if start == 0:
            self.bias[:] = self._multiply(self._parts.bias[np.newaxis], self._parts.dense)
        self.places[start:stop] = self._multiply(self._parts.places(start, stop), self._plain)
        self._filled = stop  # threads that fill at the same time write the same
