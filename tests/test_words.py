"""The first multiply by words and places: the same numbers as the operations that it stands for, and the same bits."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minisbert
from conftest import TINY

pytest.importorskip("numba", reason="numba is not installed, so there are no programs to test")

from minisbert.kernels import jit, machine, memory, reference, words
from minisbert.kernels.memory import address
from minisbert.kernels.words import Parts, Products

V, P, D, OUT = 300, 40, 48, 72


def make(seed: int = 0, segments: int = 2, dtype: str = "float32", shared: float = 0.0) -> tuple[Parts, Any]:
    """Return parts of random tables, and the weights as a checkpoint has them; all words have `shared` in common."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Any:
        return rng.standard_normal(shape).astype(np.float32)

    word = (normal(V, D) + shared * normal(D)).astype(dtype)
    token_type = normal(segments, D) if segments else None
    weight, bias = normal(OUT, D), normal(OUT)
    parts = Parts(word, normal(P, D), token_type, 0, normal(D), normal(D), jit.pack(weight, bias, np.float32))
    return parts, (weight, bias)


def tokens(N: int, segments: int = 2, seed: int = 0) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    return tuple(rng.integers(0, most, N, np.int32) for most in (V, P, max(segments, 1)))


def look_up(products: Products, ids: Any, types: Any, longest: int) -> tuple[Any, Any]:
    """Return the addresses of tokens' products, and what must live as long as they are needed."""
    addresses, missing, table = products.look_up(ids, types, longest)
    addresses, made = products.complete(ids, types, addresses, missing)
    return addresses, [array for array in (table, made) if array is not None]


def multiply(products: Products, parts: Parts, ids: Any, positions: Any, types: Any) -> Any:
    """Do what a program does for the first multiply."""
    x = jit.embed(ids, positions, types, parts.word, parts.position, parts.token_type)
    y, scales, normed = memory.rows(len(ids), OUT), np.empty(len(ids), np.float32), memory.rows(*x.shape)
    norm = *map(address, (x, parts.weight, parts.bias)), 1e-5, address(normed), address(scales)
    machine.kernels().layer_norm(*x.shape, *norm)
    addresses, held = look_up(products, ids, types, P)
    assert all(array.shape[1:] == (OUT,) for array in held)
    places = map(address, (addresses, positions, products.places, products.bias, scales, y))
    machine.kernels().combine(len(ids), OUT, *places)
    return y


@pytest.mark.parametrize("segments", [0, 1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
@pytest.mark.parametrize("shared", [0.0, 3.0])
def test_it_is_what_embedding_norm_and_multiply_give(segments: int, dtype: str, shared: float) -> None:
    parts, (weight, bias) = make(1, segments, dtype, shared)
    given = tokens(200, segments, 1)

    def steps(to: Any) -> Any:
        tables = [None if t is None else t.astype(to) for t in (parts.word, parts.position, parts.token_type)]
        x = reference.embed(*given, *tables)
        x = reference.layer_norm(x, parts.weight.astype(to), parts.bias.astype(to), 1e-5)
        return reference.linear(x, reference.pack(weight, bias, to))

    expected, plain = steps(np.float64), steps(np.float32)
    found = multiply(Products(parts, jit.linear), parts, *given)
    assert abs(found - expected).max() <= 1.5 * abs(plain - expected).max()


def test_no_bit_depends_on_what_was_expected() -> None:
    parts, _ = make()
    ids, positions, types = tokens(P)
    expected = multiply(Products(parts, jit.linear), parts, ids, positions, types)
    products = Products(parts, jit.linear)
    for start in range(0, P, 7):
        some = slice(start, start + 7)
        for _ in range(2):  # without its words, and with them
            found = multiply(products, parts, ids[some], positions[some], types[some])
            np.testing.assert_array_equal(found, expected[some])
            products.expect(ids[some], types[some])
        found = multiply(
            products, parts, ids, positions, types
        )  # some words are there by now, and some are not
        np.testing.assert_array_equal(found, expected)


class Counting:
    """A multiply that notes of how many rows."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, x: Any, dense: Any) -> Any:
        self.rows.append(len(x))
        return jit.linear(x, dense)


def test_a_word_is_multiplied_once() -> None:
    parts, _ = make()
    counting = Counting()
    products = Products(parts, counting)
    ids = np.array([5, 7, 5, 5, 7], np.int32)
    types = np.zeros_like(ids)
    products.expect(ids, types)
    products.expect(ids, types)
    look_up(products, ids, types, 0)
    assert counting.rows == [2]
    products.expect(ids, types + 1)  # the same words in the other segment
    look_up(products, ids, types + 1, 0)
    assert counting.rows == [2, 2]
    look_up(products, ids + 1, types, 0)  # words that were not expected
    look_up(products, ids + 1, types, 0)
    assert counting.rows == [2, 2, 2]


@pytest.mark.parametrize("first", [0, 2])
def test_a_place_is_multiplied_once_and_not_before_it_is_needed(
    first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "AT_ONCE", 16)
    parts, _ = make()
    whole, counting = Products(parts, jit.linear), Counting()
    look_up(whole, *[np.empty(0, np.int32)] * 2, P)
    products, nothing = Products(replace(parts, first=first), counting), np.empty(0, np.int32)
    for longest, expected in (
        (0, []),
        (1, [16]),
        (16 - first, [16]),
        (17 - first, [16, 16]),
        (P, [16, 16, P - 32]),
    ):
        look_up(products, nothing, nothing, longest)
        filled = min(-(-(first + longest) // 16) * 16, P)
        np.testing.assert_array_equal(products.places[:filled], whole.places[:filled])
        if not first:
            assert [rows for rows in counting.rows if rows > 1] == expected
    np.testing.assert_array_equal(products.bias, whole.bias)


def test_no_tokens() -> None:
    parts, _ = make()
    products, nothing = Products(parts, jit.linear), np.empty(0, np.int32)
    products.expect(nothing, nothing)
    addresses, _ = look_up(products, nothing, nothing, 0)
    assert addresses.shape == (0,)


def test_it_starts_afresh_when_it_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "KEPT", P)
    parts, _ = make()
    products = Products(parts, jit.linear)
    tables = set()
    for seed in range(12):
        given = tokens(P, seed=seed)
        expected = multiply(Products(parts, jit.linear), parts, *given)
        products.expect(given[0], given[2])
        np.testing.assert_array_equal(multiply(products, parts, *given), expected)
        tables.add(products._words)
        assert products._words is not None
        assert products._words.rows.shape == (P, OUT)
    assert len(tables) > 5


def test_of_too_many_words_the_most_frequent_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "KEPT", P)
    parts, _ = make()
    counting = Counting()
    products = Products(parts, counting)
    ids = np.concatenate([np.arange(2 * P), np.arange(P, 2 * P)]).astype(np.int32)  # the second half twice
    types = np.zeros_like(ids)
    products.expect(ids, types)
    assert counting.rows == [P]
    look_up(products, ids[2 * P :], types[2 * P :], 0)
    assert counting.rows == [P]
    for expected in ([P, P], [P, P, P]):  # there is no room for the others
        look_up(products, ids, types, 0)
        assert counting.rows == expected


def test_there_may_be_any_number_of_segments() -> None:
    parts, _ = make()
    many = replace(
        parts, token_type=np.zeros((1 << 20, D), np.float32), word=np.zeros((1 << 20, D), np.float32)
    )
    last = np.array([(1 << 20) - 1], np.int32)
    given = last, last % P, last
    products = Products(many, jit.linear)
    products.expect(last, last)
    expected = multiply(Products(many, jit.linear), many, *given)
    np.testing.assert_array_equal(multiply(products, many, *given), expected)


def test_many_threads_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "KEPT", 2 * P)
    parts, _ = make()
    products = Products(parts, jit.linear)
    some = [tokens(P, seed=seed) for seed in range(60)]
    expected = [multiply(Products(parts, jit.linear), parts, *given) for given in some]

    def use(given: Any) -> Any:
        products.expect(given[0], given[2])
        return multiply(products, parts, *given)

    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            for one, other in zip(pool.map(use, some), expected, strict=True):
                np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", TINY)
def test_an_encoder_finds_its_words_again(name: str, copy_of: Callable[[str], Path]) -> None:
    encoder: Any = minisbert.load(copy_of(name), backend="numba")  # whose words nobody else has looked up
    texts = ["the cat sat", "the dog sat on the cat", "a dog"]
    first = encoder.encode(texts)
    products = encoder._vectors.program.products
    taken = products._words.taken
    assert taken == len({int(i) for ids in encoder.tokenize(texts)["input_ids"] for i in ids})
    np.testing.assert_array_equal(encoder.encode(texts), first)
    assert products._words.taken == taken


def test_vectors_that_are_too_large_are_not_finite() -> None:
    parts, _ = make()
    huge = replace(parts, word=np.full_like(parts.word, 3e38) * np.sign(parts.word))
    assert not np.isfinite(multiply(Products(huge, jit.linear), huge, *tokens(20))).any()
