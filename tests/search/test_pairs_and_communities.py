"""`paraphrase_mining` and `community_detection` against their definitions in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import minisbert
from minisbert import vectors
from minisbert.search import communities, paraphrase_mining_embeddings
from tests.conftest import FEW

RNG = np.random.default_rng(9)
CENTERS = RNG.standard_normal((12, 16))
GROUPS = RNG.integers(0, 12, 200)
CLOUD = CENTERS[GROUPS] + 0.35 * RNG.standard_normal((200, 16))
COSINES = vectors.similarity(CLOUD, CLOUD, "cosine")
RANGES = np.stack([CLOUD.min(axis=0), CLOUD.max(axis=0)])


def mined(similarities: np.ndarray, top_k: int, most: int) -> list[tuple[int, int]]:
    """Return the best pairs that have one in the nearest others of the other."""
    others = similarities.copy()
    np.fill_diagonal(others, -np.inf)
    near = np.argsort(-others, axis=1, kind="stable")[:, :top_k]
    pairs = {(min(i, j), max(i, j)) for i, row in enumerate(near.tolist()) for j in row if i != j}
    return sorted(pairs, key=lambda pair: -similarities[pair])[:most]


@pytest.mark.parametrize(
    ("top_k", "most", "rows", "block"),
    [(100, 500_000, None, None), (3, 50, 7, 33), (199, 9, 100, 200), (1000, 10**6, None, 64)],
)
def test_the_best_pairs(top_k: int, most: int, rows: Any, block: Any) -> None:
    found = paraphrase_mining_embeddings(CLOUD, rows, block, most, top_k)
    assert [(i, j) for _, i, j in found] == mined(COSINES, top_k, most)
    np.testing.assert_allclose([row[0] for row in found], [COSINES[i, j] for _, i, j in found], atol=1e-6)
    assert max(row[0] for row in found) <= 1
    assert {type(value) for row in found for value in row} == {float, int}


def test_equal_vectors_are_pairs_too() -> None:
    """Ten times the same: no vector is its own pair, though others come before it in its list."""
    found = paraphrase_mining_embeddings(np.ones((10, 4)), top_k=3)
    assert all(i < j for _, i, j in found)
    assert all(score == pytest.approx(1) for score, *_ in found)
    assert {i for _, i, _ in found} | {j for *_, j in found} == set(range(10))
    assert len({(i, j) for _, i, j in found}) == len(found)


def test_of_sentences(bert: minisbert.SentenceEncoder) -> None:
    found = minisbert.paraphrase_mining(bert, FEW, top_k=2, truncate_dim=40)
    assert found == paraphrase_mining_embeddings(bert.encode(FEW, truncate_dim=40), top_k=2)
    seen: list[int] = []
    minisbert.paraphrase_mining(bert, FEW, show_progress_bar=seen.append)
    assert sum(seen) == 2 * len(FEW)  # encoded, and compared
    assert minisbert.paraphrase_mining(bert, []) == minisbert.paraphrase_mining(bert, ["one"]) == []


@pytest.mark.parametrize("precision", ["int8", "ubinary"])
def test_of_quantised_vectors(precision: str) -> None:
    ranges = RANGES if precision == "int8" else None
    codes = vectors.quantize(CLOUD, precision, ranges)
    numbers = np.where(CLOUD > 0, 1.0, -1.0)
    if precision == "int8":
        numbers = (codes.astype(np.float64) + 128) * ((RANGES[1] - RANGES[0]) / 255) + RANGES[0]
    options: dict[str, Any] = {"precision": precision, "ranges": ranges}
    cosines = [score for score, *_ in paraphrase_mining_embeddings(codes, top_k=5, max_pairs=100, **options)]
    expected = [score for score, *_ in paraphrase_mining_embeddings(numbers, top_k=5, max_pairs=100)]
    np.testing.assert_allclose(cosines, expected, atol=1e-6)
    found = minisbert.community_detection(codes, 0.61, 5, **options)
    assert sorted(map(sorted, found)) == sorted(map(sorted, minisbert.community_detection(numbers, 0.61, 5)))


def detected(threshold: float, smallest: int) -> list[list[int]]:
    """Return communities by the definition: the largest first, and none of its vectors in a later one."""
    near = [np.flatnonzero(row >= threshold) for row in COSINES]
    near = [ids[np.argsort(-COSINES[i, ids], kind="stable")] for i, ids in enumerate(near)]
    found: list[list[int]] = []
    used: set[int] = set()
    for center in sorted(range(len(near)), key=lambda i: -len(near[i])):
        free = [i for i in near[center].tolist() if i not in used]
        if len(near[center]) >= smallest and center not in used and len(free) >= smallest:
            found.append([center] + [i for i in free if i != center])
            used.update(found[-1])
    return sorted(found, key=len, reverse=True)


@pytest.mark.parametrize(
    ("threshold", "smallest"), [(0.75, 10), (0.85, 2), (0.5, 30), (0.9999, 1), (-1, 5), (0.99, 100)]
)
@pytest.mark.parametrize("held", [communities.MOST_HELD, 50])
def test_the_communities(monkeypatch: pytest.MonkeyPatch, threshold: float, smallest: int, held: int) -> None:
    monkeypatch.setattr(communities, "MOST_HELD", held)
    expected = detected(threshold, smallest)
    assert minisbert.community_detection(CLOUD, threshold, smallest) == expected
    assert minisbert.community_detection(CLOUD, threshold, smallest, batch_size=17) == expected


def test_of_few_vectors_and_of_none() -> None:
    assert minisbert.community_detection([]) == minisbert.community_detection(CLOUD[:9]) == []
    assert minisbert.community_detection(CLOUD[0], min_community_size=1) == [[0]]
    broken = np.full((12, 16), np.nan, np.float32)
    assert minisbert.community_detection(broken, -1, 1) == []
    assert paraphrase_mining_embeddings(broken) == []
    seen: list[int] = []
    minisbert.community_detection(CLOUD, batch_size=150, show_progress_bar=seen.append)
    assert seen == [150, 50]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"threshold": 1.5}, "threshold is 1.5; expected a cosine similarity, -1 to 1"),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"threshold": "0.5"}, "threshold is '0.5'; expected a number"),
        ({"min_community_size": 0}, "min_community_size is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"precision": "int8"}, "embeddings is float64; expected int8"),
    ],
)
def test_what_is_wrong_is_said(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(minisbert.MinisbertError, match=message):
        minisbert.community_detection(CLOUD, **arguments)


def test_one_sentence_makes_no_pairs(bert: minisbert.SentenceEncoder) -> None:
    with pytest.raises(minisbert.EncodeTypeError, match="sentences is 'a text'; expected many"):
        minisbert.paraphrase_mining(bert, "a text")


@pytest.mark.parametrize("name", ["max_pairs", "top_k", "query_chunk_size", "corpus_chunk_size"])
def test_numbers_of_pairs_are_checked(name: str) -> None:
    with pytest.raises(minisbert.EncodeValueError, match=f"{name} is 0; expected at least 1"):
        paraphrase_mining_embeddings(CLOUD, **{name: 0})
