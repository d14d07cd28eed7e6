"""Metrics against what their definitions give by hand, and what they refuse."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import minisbert
from minisbert.evaluation import evaluate_retrieval, evaluate_sts, metrics, retrieval_metrics, sts_metrics
from tests.conftest import FEW

# Three queries: relevant documents at places 1 and 3 of 4; at 2; and nowhere. There are 3, 1 and 2 of them.
RELEVANCE = np.array([[1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]], bool)
RELEVANT = np.array([3, 1, 2])


@pytest.mark.parametrize(
    ("metric", "k", "expected"),
    [
        (metrics.accuracy_at, 1, [1, 0, 0]),
        (metrics.accuracy_at, 2, [1, 1, 0]),
        (metrics.precision_at, 3, [2 / 3, 1 / 3, 0]),
        (metrics.precision_at, 8, [2 / 8, 1 / 8, 0]),
        (metrics.recall_at, 2, [1 / 3, 1, 0]),
        (metrics.recall_at, 100, [2 / 3, 1, 0]),
        (metrics.reciprocal_rank_at, 1, [1, 0, 0]),
        (metrics.reciprocal_rank_at, 4, [1, 1 / 2, 0]),
        (metrics.average_precision_at, 1, [1, 0, 0]),
        (metrics.average_precision_at, 3, [(1 + 2 / 3) / 3, 1 / 2, 0]),
        (metrics.average_precision_at, 100, [(1 + 2 / 3) / 3, 1 / 2, 0]),
        (metrics.ndcg_at, 1, [1, 0, 0]),
        (metrics.ndcg_at, 2, [1 / (1 + 1 / math.log2(3)), 1 / math.log2(3), 0]),
        (metrics.ndcg_at, 100, [(1 + 1 / 2) / (1 + 1 / math.log2(3) + 1 / 2), 1 / math.log2(3), 0]),
    ],
)
def test_rankings(metric: Any, k: int, expected: list[float]) -> None:
    assert metric(k, RELEVANCE, RELEVANT) == pytest.approx(np.mean(expected), abs=1e-15)


def test_correlations() -> None:
    assert metrics.average_ranks([3, 1, 3, 2, 3]).tolist() == [4, 1, 4, 2, 4]
    assert metrics.average_ranks([]).tolist() == []
    assert metrics.pearson([1, 2, 3], [2, 4, 6.0]) == pytest.approx(1, abs=1e-15)
    assert metrics.spearman([1, 2, 3], [1, 100, 10_000]) == pytest.approx(1, abs=1e-15)
    assert metrics.spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1, abs=1e-15)
    assert metrics.pearson([0, 1, 0, 1], [0, 0, 1, 1]) == 0
    assert metrics.pearson([1, 2, 4], [1, 3, 2]) == pytest.approx(np.corrcoef([1, 2, 4], [1, 3, 2])[0, 1])
    for x, y in (([1, 1, 1], [1, 2, 3]), ([1, 2, 3], [0.1, 0.1, 0.1]), ([1], [1]), ([], [])):
        assert math.isnan(metrics.pearson(x, y))
        assert math.isnan(metrics.spearman(x, y))


def test_equal_sentences_are_equally_alike() -> None:
    """Cosines of equal vectors are 1 and a little, which is no order."""
    x = np.random.default_rng(0).standard_normal((50, 30))
    found = sts_metrics(x, np.where(np.arange(50)[:, None] < 25, x, -x), [1] * 25 + [0] * 25)
    assert found == {"pearson_cosine": pytest.approx(1), "spearman_cosine": pytest.approx(1)}


def test_pairs_of_sentences(bert: minisbert.SentenceEncoder) -> None:
    scores = [5, 0, 1, 3, 2, 4.5]
    found = evaluate_sts(
        bert, FEW, FEW[::-1], scores, similarity_fn_names=["dot", "manhattan"], truncate_dim=30
    )
    vectors = bert.encode(FEW, truncate_dim=30).astype(np.float64)
    assert found["pearson_dot"] == pytest.approx(
        metrics.pearson((vectors * vectors[::-1]).sum(axis=1), scores)
    )
    assert set(found) == {f"{name}_{by}" for name in ("pearson", "spearman") for by in ("dot", "manhattan")}
    assert set(evaluate_sts(bert, FEW, FEW[::-1], scores)) == {"pearson_cosine", "spearman_cosine"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scores": [1, 2]}, r"there are 3 and 3 sentences, and scores of shape \(2,\)"),
        ({"embeddings2": np.ones((2, 4))}, "there are 3 and 2 sentences"),
        ({"scores": [1, float("nan"), 3]}, "score 1 is nan; expected a finite number"),
        ({"scores": ["a", "b", "c"]}, "scores are no numbers"),
        ({"similarity_fn_names": ["cos"]}, "similarity_fn_names is 'cos'"),
        ({"precision": "int4"}, "precision is 'int4'"),
        ({"truncate_dim": -1}, "truncate_dim is -1; expected 1 to 4"),
        ({"embeddings2": [[1, 2, 3, 4], [1, 2, np.nan, 4], [0] * 4]}, "embeddings2: vector 1 has NaN"),
        ({"embeddings1": np.ones((3, 2))}, r"widths of vectors are .*'embeddings1': 2, 'embeddings2': 4"),
        (
            {"embeddings1": np.ones((1, 4)), "embeddings2": np.ones((1, 4)), "scores": [1]},
            "expected at least 2",
        ),
    ],
)
def test_bad_pairs_are_refused(arguments: dict[str, Any], message: str) -> None:
    x = np.random.default_rng(1).standard_normal((3, 4))
    given = {"embeddings1": x, "embeddings2": x, "scores": [1, 2, 3]} | arguments
    with pytest.raises(minisbert.MinisbertError, match=message):
        sts_metrics(**given)


TEXTS = {"d1": "one apple", "d2": "a pear", "d10": "a house by the sea"}
QUERIES = {"q1": "one apple", "q2": "by the sea", "q3": "never asked"}


def test_a_collection(bert: minisbert.SentenceEncoder) -> None:
    """A query without relevant documents is left out; what is not in the corpus is not found."""
    found = evaluate_retrieval(
        bert, QUERIES, TEXTS, {"q1": {"d1"}, "q2": {"d10", "lost"}, "q3": set(), "q9": {"d1"}}
    )
    assert found["accuracy@3"] == 1  # k is as large as the corpus, and larger
    assert found["recall@10"] == (1 + 1 / 2) / 2
    assert found["precision@10"] == 1 / 10
    assert len(found) == 15
    with pytest.raises(
        minisbert.EncodeValueError, match="none of the 3 queries has a relevant document, though 1"
    ):
        evaluate_retrieval(bert, QUERIES, TEXTS, {"q9": {"d1"}})


def test_of_equal_scores_the_lowest_id_is_first() -> None:
    vectors = np.ones((3, 2))
    for lowest in ("a", "b", "c"):
        found = retrieval_metrics(vectors[:1], vectors, ["q"], ["a", "b", "c"], {"q": {lowest}}, mrr_at_k=[3])
        assert found["mrr@3"] == 1 / (1 + "abc".index(lowest))


@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
def test_what_is_stored_in_fewer_bits(precision: str) -> None:
    rng = np.random.default_rng(2)
    corpus = rng.standard_normal((200, 64)).astype(np.float32)
    names = [f"{i:03}" for i in range(200)]
    relevant = {name: {name} for name in names[:50]}
    queries = corpus[:50] + 0.3 * rng.standard_normal((50, 64)).astype(np.float32)
    found = retrieval_metrics(queries, corpus, names[:50], names, relevant, precision=precision)
    assert found["ndcg@10"] > 0.95
    noise = rng.standard_normal((50, 64)).astype(np.float32)
    assert retrieval_metrics(noise, corpus, names[:50], names, relevant, precision=precision)["ndcg@10"] < 0.3


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["b", "a"], "not in ascending order"),
        (["a", "a"], "or one is there twice"),
        (["a"], r"\[1, 1\] ids.*\[2, 1\]"),
    ],
)
def test_ids_that_do_not_fit_are_refused(ids: list[str], message: str) -> None:
    with pytest.raises(minisbert.EncodeValueError, match=message):
        retrieval_metrics(np.ones((1, 2)), np.ones((2, 2)), ["q"], ids, {"q": {"a"}})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"query_embeddings": [[np.inf, 1]]}, "query_embeddings: vector 0 has NaN or infinity"),
        ({"query_embeddings": [[1, 2, 3]]}, "'query_embeddings': 3, 'corpus_embeddings': 2"),
        ({"map_at_k": [10, 0]}, "k is 0; expected at least 1"),
        ({"ndcg_at_k": [2.5]}, "k is 2.5; expected an integer"),
        ({"precision": "int4"}, "precision is 'int4'"),
    ],
)
def test_bad_rankings_are_refused(arguments: dict[str, Any], message: str) -> None:
    given = {
        "query_embeddings": np.ones((1, 2)),
        "corpus_embeddings": np.ones((2, 2)),
        "query_ids": ["q"],
        "corpus_ids": ["a", "b"],
        "relevant_docs": {"q": {"a"}},
    }
    with pytest.raises(minisbert.MinisbertError, match=message):
        retrieval_metrics(**given | arguments)
    none = dict.fromkeys(["accuracy_at_k", "precision_recall_at_k", "mrr_at_k", "ndcg_at_k", "map_at_k"], ())
    assert retrieval_metrics(**given | none) == {}


def test_a_string_is_no_set_of_ids(bert: minisbert.SentenceEncoder) -> None:
    with pytest.raises(minisbert.EncodeTypeError, match="relevant_docs of 'q1' is 'd10'; expected a set"):
        evaluate_retrieval(bert, QUERIES, TEXTS, {"q1": "d10"})
