"""Inputs on their way in: any collection of texts or pairs to chunks of token ids.

A chunk is what is read, tokenised and returned together, so that a stream takes constant memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from minisbert.engine.collect import OverlongTexts
from minisbert.errors import EncodeTypeError, shown
from minisbert.text.base import TokenIds

__all__ = [
    "as_pairs",
    "as_texts",
    "check_collection",
    "check_pairs",
    "check_texts",
    "is_pair",
    "plain",
    "read_chunks",
    "token_chunks",
]

T = TypeVar("T")

# How many inputs a chunk has. The first one is small, so that workers can start early, and each is
# four times as large as the one before.
CHUNK = 1024
FIRST_CHUNK = 32


def as_texts(sentences: str | Iterable[str]) -> tuple[Iterator[Any], int | None]:
    """Return an iterator over the sentences, and how many they are where that is known.

    Raises
    ------
    EncodeTypeError
        If this is no collection of texts; the texts themselves are checked as they are read.
    """
    if isinstance(sentences, str):
        return iter([sentences]), 1
    expected = "a string, or a list, array, Series or generator of strings"
    check_collection("sentences", sentences, expected)
    shape = getattr(sentences, "shape", (1,))
    if len(shape) != 1:
        raise EncodeTypeError(
            f"sentences is {type(sentences).__name__} of shape {shape}; expected {expected}"
        )
    return iter(sentences), len(sentences) if isinstance(sentences, Sized) else None


def is_pair(inputs: Any) -> bool:
    """Whether this is one pair, and not a collection of pairs: a sequence that begins with a text."""
    is_sequence = isinstance(inputs, list | tuple | np.ndarray)
    return is_sequence and len(inputs) > 0 and isinstance(plain(inputs[0]), str)


def as_pairs(inputs: Any) -> tuple[Iterator[Any], int | None]:
    """Return an iterator over the pairs, and how many they are where that is known.

    Raises
    ------
    EncodeTypeError
        If this is no collection; the pairs themselves are checked as they are read.
    """
    if is_pair(inputs):
        return iter([inputs]), 1
    expected = "a pair of strings, or a list, array or generator of pairs"
    check_collection("inputs", inputs, expected)
    is_table = len(getattr(inputs, "shape", ())) > 1 and not isinstance(inputs, np.ndarray)
    if is_table:  # which gives its columns
        raise EncodeTypeError(f"inputs is {type(inputs).__name__} {shown(inputs)}; expected {expected}")
    return iter(inputs), len(inputs) if isinstance(inputs, Sized) else None


def check_collection(name: str, value: object, expected: str) -> None:
    """Refuse what is no collection, and sets, whose order changes from run to run."""
    refused = isinstance(value, str | bytes | bytearray | memoryview | Mapping | set | frozenset)
    if refused or not isinstance(value, Iterable):
        hint = "; a set has no order: sort it" if isinstance(value, set | frozenset) else ""
        raise EncodeTypeError(f"{name} is {type(value).__name__} {shown(value)}; expected {expected}{hint}")


def plain(value: Any) -> Any:
    """Return what a scalar of Arrow stands for, and anything else as it is."""
    return value.as_py() if hasattr(type(value), "as_py") else value


def check_texts(texts: list[Any], first: int, prompt: str = "") -> list[str]:
    """Return the texts with a prompt, each checked to be a string; `first` is the index of the first one."""
    texts = list(map(plain, texts))
    for index, text in enumerate(texts, first):
        if not isinstance(text, str):
            hint = "; decode it first, as in text.decode('utf-8')" if isinstance(text, bytes) else ""
            raise EncodeTypeError(
                f"sentence {index} is {type(text).__name__} {shown(text)}; expected a string{hint}"
            )
    return [prompt + text for text in texts] if prompt else texts


def check_pairs(pairs: list[Any], first: int, prompt: str = "") -> list[tuple[str, str]]:
    """Return the pairs, each checked to be two strings, with a prompt before the first of them."""
    checked = []
    for index, pair in enumerate(map(plain, pairs), first):
        if not isinstance(pair, list | tuple | np.ndarray) or len(pair) != 2:
            raise EncodeTypeError(
                f"pair {index} is {type(pair).__name__} {shown(pair)}; expected two strings, as in (query, document)"
            )
        one, other = texts = plain(pair[0]), plain(pair[1])
        for which, text in enumerate(texts):
            if not isinstance(text, str):
                raise EncodeTypeError(
                    f"text {which} of pair {index} is {type(text).__name__} {shown(text)}; expected a string"
                )
        checked.append((prompt + one, other))
    return checked


def read_chunks(
    items: Iterator[Any], check: Callable[[list[Any], int, str], list[T]], prompt: str = ""
) -> Iterator[tuple[int, list[T]]]:
    """Yield the items a checked chunk at a time, with the index of its first one."""
    first, size = 0, min(CHUNK, FIRST_CHUNK)
    while chunk := check(list(islice(items, size)), first, prompt):
        yield first, chunk
        first, size = first + len(chunk), min(CHUNK, 4 * size)


def token_chunks(
    chunks: Iterable[tuple[int, list[T]]],
    tokenizer: Callable[[list[T], int, int], tuple[list[TokenIds], list[int]]],
    overlong: OverlongTexts,
) -> Iterator[list[TokenIds]]:
    """Yield the token ids of each input, cut, a chunk at a time: (T,) for a text, (T, 2) for a pair."""
    for first, chunk in chunks:
        rows, counts = tokenizer(chunk, first, overlong.max_tokens)
        overlong.add(counts, chunk, first)
        yield rows
