"""`semantic_search` against its definition: all scores, sorted."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

import minisbert
from minisbert import vectors
from minisbert.search import nearest

RNG = np.random.default_rng(8)
QUERIES = RNG.standard_normal((7, 20)).astype(np.float32)
CORPUS = RNG.standard_normal((300, 20)).astype(np.float32)
TEXTS = ["one apple", "a pear", "five", "a house by the sea", "the end", "x"]
RANGES = np.stack([CORPUS.min(axis=0), CORPUS.max(axis=0)])


def ids(found: list[list[dict[str, Any]]]) -> list[list[int]]:
    return [[hit["corpus_id"] for hit in hits] for hits in found]


def scores(found: list[list[dict[str, Any]]]) -> list[list[float]]:
    return [[hit["score"] for hit in hits] for hits in found]


def check(found: list[list[dict[str, Any]]], expected: np.ndarray, k: int) -> None:
    """Compare with all scores (Q, N): of equal ones the lowest id is first."""
    order = np.argsort(-expected, axis=1, kind="stable")[:, :k]
    assert ids(found) == order.tolist()
    np.testing.assert_allclose(scores(found), np.take_along_axis(expected, order, axis=1), atol=1e-5)


@pytest.mark.parametrize("score_function", ["cosine", "dot", "euclidean", "manhattan"])
@pytest.mark.parametrize(("rows", "block", "k"), [(None, None, 10), (3, 64, 1), (2, 7, 20), (100, 1, 300)])
def test_it_finds_what_scores_best(score_function: str, rows: Any, block: Any, k: int) -> None:
    dtype = np.float32 if k <= 10 else np.float64  # of many scores some differ by too little for float32
    expected = vectors.similarity(QUERIES.astype(np.float64), CORPUS.astype(np.float64), score_function)
    found = minisbert.semantic_search(QUERIES.astype(dtype), CORPUS, rows, block, k, score_function)
    check(found, expected, k)


@pytest.mark.parametrize("block", [1, 5, 64, 1000])
@pytest.mark.parametrize("k", [1, 3, 50, 2000])
def test_of_equal_scores_the_lowest_id_is_first(block: int, k: int) -> None:
    """Also in collections that get better, or worse, from one end to the other, and where nothing differs."""
    rising = np.repeat(np.arange(100.0), 4)
    for column in (rising, rising[::-1], RNG.integers(0, 4, 400), np.ones(400)):
        corpus = np.stack([column, np.zeros(400)], axis=1).astype(np.float32)
        query = np.array([[1, 0], [-1, 0]], np.float32)
        found = minisbert.semantic_search(query, corpus, None, block, k, "dot")
        check(found, query.astype(np.float64) @ corpus.T, k)


def test_a_memory_map_lists_other_dtypes_and_one_vector(tmp_path: Any) -> None:
    np.save(tmp_path / "corpus.npy", CORPUS)
    found = minisbert.semantic_search(QUERIES, np.load(tmp_path / "corpus.npy", mmap_mode="r"))
    assert found == minisbert.semantic_search(QUERIES, CORPUS)
    assert ids(found) == [ids(minisbert.semantic_search(query, CORPUS))[0] for query in QUERIES]
    for corpus in (CORPUS.tolist(), CORPUS.astype(np.float64), np.asfortranarray(CORPUS)):
        assert ids(minisbert.semantic_search(QUERIES.tolist(), corpus)) == ids(found)
    half = CORPUS.astype(np.float16)
    expected = minisbert.semantic_search(QUERIES, half.astype(np.float32))
    assert minisbert.semantic_search(QUERIES, half) == expected


def test_of_few_all_and_of_none_nothing() -> None:
    assert len(minisbert.semantic_search(QUERIES, CORPUS[:3])[0]) == 3
    assert minisbert.semantic_search(QUERIES, []) == [[]] * 7
    assert minisbert.semantic_search(QUERIES, CORPUS[:0]) == [[]] * 7
    assert minisbert.semantic_search([], CORPUS) == []


def test_cosines_are_never_more_than_1() -> None:
    found = minisbert.semantic_search(CORPUS, CORPUS, top_k=1)
    assert ids(found) == [[i] for i in range(300)]
    assert max(map(max, scores(found))) <= 1


@pytest.mark.parametrize("block", [4, 1000])
def test_what_is_no_number_is_never_found(block: int) -> None:
    corpus = CORPUS[:20].copy()
    corpus[[2, 5]] = np.nan
    corpus[7, 3] = np.inf
    for score_function in ("cosine", "dot", "euclidean"):
        found = minisbert.semantic_search(QUERIES, corpus, None, block, 20, score_function)
        assert all({2, 5}.isdisjoint(row) for row in ids(found))
        assert np.isfinite([score for row in scores(found) for score in row if score != np.inf]).all()
    kept = np.delete(np.arange(20), [2, 5, 7])
    found = minisbert.semantic_search(QUERIES, corpus, None, block, 20)
    assert ids(found) == kept[ids(minisbert.semantic_search(QUERIES, CORPUS[kept], None, block, 20))].tolist()
    queries = np.stack([QUERIES[0], np.full(20, np.nan, np.float32)])
    assert [len(hits) for hits in minisbert.semantic_search(queries, CORPUS)] == [10, 0]
    zero = minisbert.semantic_search(np.zeros(20), CORPUS)
    assert scores(zero) == [[0.0] * 10]


def test_a_function_compares(bert: minisbert.SentenceEncoder) -> None:
    queries, corpus = bert.encode(TEXTS[:2]), bert.encode(TEXTS)
    found = minisbert.semantic_search(queries, corpus, score_function=bert.similarity)
    assert ids(found) == ids(minisbert.semantic_search(queries, corpus))
    found = minisbert.semantic_search(
        QUERIES, CORPUS, 2, 50, score_function=lambda a, b: -np.abs(a[:, :1] - b[:, 0])
    )
    check(found, -np.abs(QUERIES[:, :1].astype(np.float64) - CORPUS[:, 0]), 10)


# --- Quantised vectors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["int8", "uint8"])
def test_integers_stand_for_numbers_of_their_ranges(precision: str) -> None:
    RANGES_ = RANGES.copy()
    RANGES_[:, 4] = RANGES[0, 4]  # a component that never changed
    codes = vectors.quantize(CORPUS, precision, RANGES_)
    lowest, step = RANGES_[0], (RANGES_[1] - RANGES_[0]).astype(np.float64) / 255
    step[4] = 1
    numbers = (codes.astype(np.float64) + (128 if precision == "int8" else 0)) * step + lowest
    expected = vectors.similarity(QUERIES.astype(np.float64), numbers, "cosine")
    found = minisbert.semantic_search(QUERIES, codes, None, 64, corpus_precision=precision, ranges=RANGES_)
    check(found, expected, 10)
    own = minisbert.semantic_search(codes[:7], codes, top_k=1, corpus_precision=precision, ranges=RANGES_)
    assert ids(own) == [[i] for i in range(7)]


def signs(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, 1.0, -1.0)


@pytest.mark.parametrize("precision", ["binary", "ubinary"])
def test_bits_are_found_by_hamming_and_rescored(precision: str) -> None:
    codes = vectors.quantize(CORPUS, precision)
    coarse = signs(QUERIES) @ signs(CORPUS).T / 20  # exact, but for the division
    packed = vectors.quantize(QUERIES, precision)
    run = partial(minisbert.semantic_search, corpus_chunk_size=64)
    check(run(QUERIES, codes, corpus_precision=precision, rescore=False), coarse, 10)
    wide = vectors.quantize(np.pad(CORPUS, ((0, 0), (0, 4))), precision)
    assert ids(run(packed, wide, corpus_precision=precision)) == ids(
        run(QUERIES, codes, corpus_precision=precision, rescore=False)
    )
    fine = vectors.similarity(QUERIES.astype(np.float64), signs(CORPUS), "cosine")
    exact = vectors.similarity(QUERIES.astype(np.float64), CORPUS.astype(np.float64), "cosine")
    for times in (1, 2, 5):
        candidates = np.argsort(-coarse, axis=1, kind="stable")[:, : 10 * times]
        left_out = np.ones_like(coarse, bool)
        np.put_along_axis(left_out, candidates, False, axis=1)
        options: dict[str, Any] = {"corpus_precision": precision, "rescore_multiplier": times}
        found = run(QUERIES, codes, **options)
        check(found, np.where(left_out, -np.inf, fine), 10)
        found = run(QUERIES, codes, rescore_embeddings=CORPUS, **options)
        check(found, np.where(left_out, -np.inf, exact), 10)
    int8 = vectors.quantize(CORPUS, "int8", RANGES)
    options = {"corpus_precision": precision, "rescore_multiplier": 60, "ranges": RANGES}
    found = run(QUERIES, codes, top_k=5, rescore_embeddings=int8, **options)
    assert ids(found) == ids(run(QUERIES, int8, top_k=5, corpus_precision="int8", ranges=RANGES))


# --- What is wrong ---------------------------------------------------------------------------------------------

BITS = vectors.quantize(CORPUS, "ubinary")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"top_k": 0}, ValueError, "top_k is 0; expected at least 1"),
        ({"top_k": 2.0}, TypeError, "top_k is 2.0; expected an integer"),
        ({"corpus_chunk_size": -1}, ValueError, "corpus_chunk_size is -1"),
        ({"query_chunk_size": True}, TypeError, "query_chunk_size"),
        ({"score_function": "cos"}, ValueError, "score_function is 'cos'; expected one of cosine, dot"),
        (
            {"score_function": lambda a, b: a},
            ValueError,
            r"score_function returned float32 \(7, 20\); expected.*\(7, 300\)",
        ),
        (
            {"corpus_embeddings": CORPUS[:, :9]},
            ValueError,
            r"is float32 \(300, 9\); expected 20 columns",
        ),
        ({"corpus_embeddings": BITS}, ValueError, "expected 20 columns.*if it is stored in another one"),
        ({"corpus_embeddings": "text"}, TypeError, "corpus_embeddings is <U4"),
        ({"corpus_embeddings": [[1, 2], [3]]}, TypeError, "corpus_embeddings is no array"),
        ({"query_embeddings": np.zeros((1, 2, 3))}, TypeError, r"query_embeddings is float64 \(1, 2, 3\)"),
        ({"corpus_precision": "int4"}, ValueError, "precision is 'int4'"),
        ({"corpus_precision": "int8"}, ValueError, "corpus_embeddings is float32; expected int8"),
        (
            {"corpus_embeddings": CORPUS.astype(np.int8), "corpus_precision": "int8"},
            ValueError,
            "pass the ranges",
        ),
        ({"ranges": RANGES}, ValueError, "ranges go with precision 'int8' or 'uint8'"),
        ({"corpus_embeddings": BITS, "corpus_precision": "binary"}, ValueError, "is uint8; expected int8"),
        (
            {"rescore_embeddings": CORPUS[:9]},
            ValueError,
            "rescore_embeddings has 9 vectors, and corpus_embeddings 300",
        ),
        (
            {"rescore": "yes", "rescore_embeddings": CORPUS},
            TypeError,
            "rescore is 'yes'; expected True or False",
        ),
        ({"rescore_multiplier": 0}, ValueError, "rescore_multiplier is 0"),
    ],
)
def test_what_is_wrong_is_said(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"query_embeddings": QUERIES, "corpus_embeddings": CORPUS} | arguments
    with pytest.raises(minisbert.MinisbertError, match=message) as raised:
        minisbert.semantic_search(**given)
    assert isinstance(raised.value, error)


def test_memory_is_that_of_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compared at a time is bounded, whatever the numbers of queries and vectors."""
    seen = []

    def compare(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        seen.append((len(a), len(b)))
        return np.tile(-np.arange(len(b), dtype=np.float32), (len(a), 1))

    many = np.zeros((40_000, 1), np.float32)
    minisbert.semantic_search(many[:600], many, score_function=compare, top_k=1)
    assert {rows for rows, _ in seen} == {nearest.ROWS, 600 - nearest.ROWS}
    assert max(columns for _, columns in seen) == nearest.BLOCK
    seen.clear()
    monkeypatch.setattr(nearest, "MOST_KEPT", 1000)
    minisbert.semantic_search(many[:50], many[:900], score_function=compare, top_k=100)
    assert max(rows for rows, _ in seen) == 10


def test_it_is_imported_when_it_is_asked_for() -> None:
    assert {"semantic_search", "paraphrase_mining", "community_detection"} <= set(dir(minisbert))
