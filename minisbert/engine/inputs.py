"""Inputs that are accepted: one text or pair, or any collection of them."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any

import numpy as np

from minisbert.engine.arguments import check_collection, plain
from minisbert.errors import EncodeTypeError, shown

__all__ = ["as_pairs", "check_pairs", "is_pair"]


def is_pair(inputs: Any) -> bool:
    """Whether this is one pair, and not a collection of pairs: a sequence that begins with a text."""
    return (
        isinstance(inputs, list | tuple | np.ndarray)
        and len(inputs) > 0
        and isinstance(plain(inputs[0]), str)
    )


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
    if len(getattr(inputs, "shape", ())) > 1 and not isinstance(
        inputs, np.ndarray
    ):  # a table gives its columns
        raise EncodeTypeError(f"inputs is {type(inputs).__name__} {shown(inputs)}; expected {expected}")
    return iter(inputs), len(inputs) if isinstance(inputs, Sized) else None


def check_pairs(pairs: list[Any], first: int) -> list[tuple[str, str]]:
    """Return the pairs, each checked to be two strings; `first` is the index of the first one."""
    checked = []
    for index, pair in enumerate(map(plain, pairs), first):
        if not isinstance(pair, list | tuple | np.ndarray) or len(pair) != 2:
            raise EncodeTypeError(
                f"pair {index} is {type(pair).__name__} {shown(pair)}; expected two strings, as in (query, document)"
            )
        texts = plain(pair[0]), plain(pair[1])
        for which, text in enumerate(texts):
            if not isinstance(text, str):
                raise EncodeTypeError(
                    f"text {which} of pair {index} is {type(text).__name__} {shown(text)}; expected a string"
                )
        checked.append(texts)
    return checked
