"""Quantising and comparing finished vectors, against the reference implementation's results."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minisbert
from minisbert import vectors
from minisbert.checkpoint.config import SIMILARITIES
from tests.conftest import largest, load_golden


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


def quantised(value: float, lowest: float, highest: float) -> int:
    """Which of 256 steps a value is in, written out for one value in float32, as the reference has it."""
    step = np.float32(np.float32(highest) - np.float32(lowest)) / np.float32(255)
    return int(min(max(np.floor((np.float32(value) - np.float32(lowest)) / (step or np.float32(1))), 0), 255))


@pytest.mark.parametrize(("precision", "offset"), [("uint8", 0), ("int8", -128)])
def test_with_ranges_each_vector_is_quantised_by_itself(precision: str, offset: int) -> None:
    rng = np.random.default_rng(4)
    ranges = np.sort(rng.uniform(-1, 1, (2, 9)), axis=0)
    ranges[1, 3] = ranges[0, 3]  # a component that never changed
    x = rng.uniform(-1.5, 1.5, (20, 9)).astype(np.float32)  # also beyond the ranges
    expected = [[quantised(*values) + offset for values in zip(row, *ranges, strict=True)] for row in x]
    found = vectors.quantize(x, precision, ranges)
    assert found.dtype == precision
    assert {offset, 255 + offset} <= set(found.ravel().tolist())
    np.testing.assert_array_equal(found, expected)
    for row, vector in zip(found, x, strict=True):
        np.testing.assert_array_equal(vectors.quantize(vector, precision, ranges.tolist()), row)
        np.testing.assert_array_equal(vectors.quantize(vector[None], precision, ranges), row[None])


@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_the_ranges_of_vectors_are_taken_where_there_are_none(precision: str) -> None:
    x = load_golden("outputs")["vectors"]
    ranges = np.stack([x.min(axis=0), x.max(axis=0)])
    for vectors_ in (x, x.astype(np.float64)):
        found = vectors.quantize(vectors_, precision, ranges)
        np.testing.assert_array_equal(found, vectors.quantize(vectors_, precision))
    np.testing.assert_array_equal(vectors.quantize(x, precision, ranges), load_golden("outputs")[precision])


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        (np.zeros((3, 2)), r"float64 \(3, 2\); expected numbers of shape \(2, 3\)"),
        (np.zeros(3), r"\(3,\)"),
        (3, r"int64 \(\)"),
        ([[0, 0, 0], [1, 1]], "ranges is no array"),
        ([["a", "b", "c"]] * 2, "<U1"),
        (np.zeros((2, 3), complex), "complex"),
        ([[0, 0, 2], [1, 1, 1]], "component 2 is 2.0 to 1.0"),
        ([[0, np.nan, 0], [1, 1, 1]], "component 1 is nan to 1.0"),
        ([[0, 0, 0], [1e300, 1, 1]], "component 0 is 0.0 to inf"),
    ],
)
def test_impossible_ranges(ranges: Any, message: str) -> None:
    with pytest.raises(minisbert.EncodeValueError, match=f"ranges .*{message}|{message}"):
        vectors.quantize(np.ones((2, 3), np.float32), "int8", ranges)


@pytest.mark.parametrize("precision", ["float32", "binary", "ubinary"])
def test_ranges_go_with_8_bits(precision: str) -> None:
    with pytest.raises(minisbert.EncodeValueError, match=f"ranges go with .*int8.*it is '{precision}'"):
        vectors.quantize(np.ones((2, 3), np.float32), precision, [[0] * 3, [1] * 3])


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
    lists = (
        bits.astype(int),
        bits.tolist(),
    )  # as JSON gives them back, which doesn't tell signed from unsigned
    for a, b in ((bits[:, :8], bits[:, :8]), (bits, numbers), (numbers, bits), lists):
        with pytest.raises(minisbert.EncodeValueError, match=r"384 components.*48 wide.*truncate_dim"):
            vectors.similarity(a, b, "cosine", 384)
    with pytest.raises(minisbert.EncodeValueError, match="the similarity 'l2' is not known"):
        vectors.similarity(bits, bits, "l2", 384)
    for compare in (vectors.similarity, vectors.similarity_pairwise):
        with pytest.raises(minisbert.EncodeValueError, match=r"found shapes \(2, 1, 48\)"):
            compare(bits[:, np.newaxis], bits[:, np.newaxis], "cosine", 384)


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
