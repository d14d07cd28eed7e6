"""`SentenceEncoder.encode`: what goes in."""

from __future__ import annotations

import re
from collections import UserList
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minisbert
from minisbert.engine import inputs
from minisbert.text import base
from tests.conftest import FEW

Encoder = minisbert.SentenceEncoder
SOURCES = str(Path(minisbert.__file__).parents[1])


@pytest.mark.parametrize("kind", [set, frozenset])
def test_a_set_has_no_order(bert: Encoder, kind: Any) -> None:
    with pytest.raises(minisbert.EncodeTypeError, match="a set has no order: sort it"):
        bert.encode(kind(FEW))
    np.testing.assert_array_equal(bert.encode(dict.fromkeys(FEW).keys()), bert.encode(FEW))


class Column:
    """A column of a data frame, as pandas, Polars and Arrow have them: a length, items, an iterator."""

    def __init__(self, values: list[Any]) -> None:
        self._values = values
        self.shape = (len(values),)

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)


@pytest.mark.parametrize(
    "make",
    [
        list,
        tuple,
        iter,
        UserList,
        Column,
        dict.fromkeys,
        np.array,
        lambda t: np.array(t, object),
        lambda t: (x for x in t),
    ],
    ids=[
        "list",
        "tuple",
        "iterator",
        "UserList",
        "column",
        "dict keys",
        "U array",
        "object array",
        "generator",
    ],
)
def test_collections_that_are_accepted(bert: Encoder, make: Callable[[list[str]], Any]) -> None:
    collection = make(FEW)
    if isinstance(collection, dict):
        collection = collection.keys()
    found = bert.encode(collection)
    assert found.shape == (6, 75)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, bert.encode(FEW))


def test_one_string_gives_one_vector(bert: Encoder) -> None:
    vector = bert.encode("third")
    assert vector.shape == (75,)
    np.testing.assert_array_equal(bert.encode(np.str_("third")), vector)
    np.testing.assert_array_equal(bert.encode(["third"]), [vector])


@pytest.mark.parametrize("empty", [[], (), np.array([], str), iter([])])
def test_nothing_gives_no_rows(bert: Encoder, empty: Any) -> None:
    assert bert.encode(empty).shape == (0, 75)


@pytest.mark.parametrize("empty", [[], iter([])])
@pytest.mark.parametrize(
    ("precision", "shape"), [("int8", (0, 75)), ("uint8", (0, 75)), ("ubinary", (0, 10))]
)
def test_nothing_in_any_precision(bert: Encoder, precision: str, shape: tuple[int, int], empty: Any) -> None:
    assert bert.encode(empty, precision=precision).shape == shape
    assert bert.encode([], output_value="token_embeddings") == []


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "NoneType None"),
        (b"bytes", "bytes b'bytes'"),
        (bytearray(b"x"), "bytearray"),
        (3, "int 3"),
        (2.5, "float 2.5"),
        ({"a": 1}, "dict"),
        (np.array("text"), r"shape \(\)"),
        (np.array([["a", "b"]]), r"shape \(1, 2\)"),
    ],
)
def test_what_is_no_collection_of_texts(bert: Encoder, value: Any, message: str) -> None:
    for method in (bert.encode, bert.tokenize, bert.token_counts):
        with pytest.raises(minisbert.EncodeTypeError, match=f"sentences is .*{message}.*expected a string"):
            method(value)


@pytest.mark.parametrize("value", [None, b"bytes", 3, float("nan"), ["nested"], ("a", "pair"), {"text": "x"}])
def test_an_item_that_is_no_string_is_named(bert: Encoder, value: Any) -> None:
    shown = f"sentence 2 is {re.escape(type(value).__name__)}"
    for collection in (["a", "b", value], iter(["a", "b", value]), Column(["a", "b", value])):
        with pytest.raises(minisbert.EncodeTypeError, match=shown):
            bert.encode(collection)
    with pytest.raises(TypeError) as info:
        bert.encode([value])
    assert isinstance(info.value, minisbert.MinisbertError)


def test_the_index_counts_over_chunks(bert: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "CHUNK", 2)
    with pytest.raises(minisbert.EncodeTypeError, match="sentence 5 is int"):
        bert.encode(["a"] * 5 + [1])
    with pytest.raises(minisbert.EncodeValueError, match="sentence 3 holds a lone surrogate"):
        bert.encode(["a"] * 3 + ["\ud800"])
    with pytest.raises(minisbert.TruncationError, match="sentence 4 has") as raised:
        bert.encode(["a"] * 4 + ["word " * 99], truncation="error")
    assert raised.value.rows == (4,)
    with pytest.warns(minisbert.TruncationWarning) as seen:
        bert.encode(["word " * 99, "a", "a", "word " * 99])
    assert seen[0].message.rows == (0, 3)


@pytest.mark.parametrize("text", ["\udfff", "fine until \ud800 here"])
def test_lone_surrogates_are_refused(bert: Encoder, text: str) -> None:
    position = next(i for i, c in enumerate(text) if "\ud800" <= c <= "\udfff")
    for collection in ([text], ["a", text]):
        index = len(collection) - 1
        with pytest.raises(
            minisbert.EncodeValueError, match=rf"sentence {index} .*surrogate.*character {position}"
        ):
            bert.encode(collection)


def test_a_lone_surrogate_far_into_a_chunk_is_found(bert: Encoder) -> None:
    texts = ["a"] * (base.AT_ONCE + 130)
    texts[-1] = "\ud800"
    with pytest.raises(minisbert.EncodeValueError, match=f"sentence {len(texts) - 1} .*surrogate"):
        bert.encode(texts)
