"""Quantising and comparing finished vectors, against the reference implementation's results."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minisbert
from conftest import largest, load_golden
from minisbert import vectors
from minisbert.config import SIMILARITIES


@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
def test_quantised_vectors_are_the_reference_s(precision: str) -> None:
    golden = load_golden("outputs")
    found = vectors.quantize(golden["vectors"], precision)
    assert found.dtype == golden[precision].dtype
    np.testing.assert_array_equal(found, golden[precision])


def test_quantising_to_float32_changes_nothing() -> None:
    x = np.ones((2, 3), np.float32)
    assert vectors.quantize(x, "float32") is x


@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_ranges_need_more_than_one_vector(precision: str) -> None:
    with pytest.raises(minisbert.EncodeValueError, match=f"{precision}.*one sentence"):
        vectors.quantize(np.ones((1, 3), np.float32), precision)
    assert vectors.quantize(np.ones((0, 3), np.float32), precision).shape == (0, 3)


def test_a_component_that_never_changes_is_quantised_too() -> None:
    x = np.array([[1, 0], [1, 255]], np.float32)
    assert vectors.quantize(x, "uint8").tolist() == [[0, 0], [0, 255]]


@pytest.mark.parametrize("name", SIMILARITIES)
def test_similarities_are_the_reference_s(name: str) -> None:
    golden = load_golden("outputs")
    found = vectors.similarity(golden["a"], golden["b"], name)
    pairs = vectors.similarity_pairwise(golden["a"], golden["c"], name)
    assert largest(found - golden[name]) <= 2e-6
    assert largest(pairs - golden[f"{name}_pairwise"]) <= 2e-6


@pytest.mark.parametrize("name", SIMILARITIES)
def test_one_vector_counts_as_a_list_of_one(name: str) -> None:
    a, b = np.array([1.0, 2.0]), np.array([[1.0, 2.0], [3.0, 4.0]])
    assert vectors.similarity(a, b, name).shape == (1, 2)
    assert vectors.similarity_pairwise(a, a, name).shape == ()
    assert vectors.similarity(b[:0], b, name).shape == (0, 2)


def test_a_zero_vector_is_similar_to_nothing() -> None:
    assert vectors.similarity(np.zeros(3), np.ones(3), "cosine").tolist() == [[0]]


def test_integers_and_lists_are_compared_as_floats() -> None:
    a = np.array([[100, 100]], np.int8)
    assert vectors.similarity(a, a, "dot").tolist() == [[20000]]
    assert vectors.similarity([[1, 0]], [[0.0, 1.0]], "cosine").tolist() == [[0]]


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), r"\(2, 3\) and \(2, 4\)"),
        (np.ones((2, 3, 1)), np.ones((2, 1)), r"\(2, 3, 1\)"),
        (np.float64(1), np.ones((2, 1)), r"\(\)"),
        (["text"], ["text"], "not an array of numbers"),
        ([[1.0], [1.0, 2.0]], [[1.0]], "not an array of numbers"),
        ([[10**400]], [[1]], "not an array of numbers"),
        ([[1j]], [[1]], "not an array of numbers .*complex128"),
        ([["1"]], [["1"]], "not an array of numbers"),
    ],
)
def test_what_is_no_matrix_is_refused(a: object, b: object, message: str) -> None:
    for compare in (vectors.similarity, vectors.similarity_pairwise):
        with pytest.raises(minisbert.EncodeValueError, match=message):
            compare(a, b, "cosine")  # type: ignore[arg-type]


def test_pairs_need_equal_numbers() -> None:
    with pytest.raises(minisbert.EncodeValueError, match="as many vectors"):
        vectors.similarity_pairwise(np.ones((2, 3)), np.ones((4, 3)), "dot")


@pytest.mark.parametrize("name", ["maxsim", None, ["cosine"], np.zeros(2)])
def test_an_unknown_similarity_is_refused(name: Any) -> None:
    with pytest.raises(minisbert.EncodeValueError, match=r"is not known.*cosine"):
        vectors.similarity(np.ones(2), np.ones(2), name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_cosine_has_an_arc_cosine(dtype: Any) -> None:
    x = np.random.default_rng(0).standard_normal((200, 384)).astype(dtype)
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    for a in (x, x / norms):
        assert not np.isnan(np.arccos(vectors.similarity(a, a, "cosine"))).any()
        assert not np.isnan(np.arccos(vectors.similarity_pairwise(a, -a, "cosine"))).any()


# --- Packed bits ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize("dimension", [2, 16, 384, 75])
def test_packed_bits_are_compared_as_the_signs_that_they_are(name: str, dimension: int) -> None:
    rng = np.random.default_rng(dimension)
    a, b = rng.standard_normal((5, dimension)), rng.standard_normal((7, dimension))
    x, y = (np.where(side > 0, 1.0, -1.0) for side in (a, b))
    for one, other in (("binary", "binary"), ("ubinary", "ubinary"), ("binary", "ubinary")):
        packed = vectors.quantize(a, one), vectors.quantize(b, other)
        found = vectors.similarity(*packed, name, dimension)
        assert found.dtype == np.float32
        assert largest(found - vectors.similarity(x, y, name)) <= 1e-6 * dimension
        pairs = vectors.similarity_pairwise(packed[0], packed[1][:5], name, dimension)
        assert largest(pairs - vectors.similarity_pairwise(x, y[:5], name)) <= 1e-6 * dimension
        assert vectors.similarity_pairwise(packed[0][0], packed[1][0], name, dimension) == pairs[0]


def test_bytes_of_another_width_are_refused() -> None:
    bits, numbers = np.zeros((2, 48), np.uint8), np.zeros((2, 384), np.float32)
    for a, b in ((bits[:, :8], bits[:, :8]), (bits, numbers), (numbers, bits)):
        with pytest.raises(minisbert.EncodeValueError, match=r"384 components.*48 wide.*truncate_dim"):
            vectors.similarity(a, b, "cosine", 384)
    with pytest.raises(minisbert.EncodeValueError, match="the similarity 'l2' is not known"):
        vectors.similarity(bits, bits, "l2", 384)


def test_quantised_vectors_are_numbers() -> None:
    a = np.random.default_rng(1).integers(-128, 128, (3, 16)).astype(np.int8)
    np.testing.assert_array_equal(
        vectors.similarity(a, a, "dot", 16), a.astype(np.float32) @ a.astype(np.float32).T
    )


def test_an_encoder_knows_its_packed_bits(bert: minisbert.SentenceEncoder) -> None:
    texts = ["a cat", "a dog", "tax returns of the year"]
    bits, found = bert.encode(texts, precision="ubinary"), bert.encode(texts)
    signs = np.where(found > 0, 1, -1)
    assert largest(bert.similarity(bits, bits) - signs @ signs.T / found.shape[1]) <= 1e-6
    assert bert.similarity_pairwise(bits, bits).tolist() == [1, 1, 1]
