"""Metrics against the reference's evaluators and independent libraries, wherever these are installed: to 1e-12.

Vectors are float64, in which two ways to the same number differ by 1e-15.
"""

from __future__ import annotations

import warnings
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from minisbert.checkpoint.config import SIMILARITIES
from minisbert.evaluation import metrics, retrieval_metrics, sts_metrics

TOLERANCE = 1e-12
RNG = np.random.default_rng(3)
FIRST = RNG.standard_normal((500, 32))
SECOND = 0.6 * FIRST + RNG.standard_normal((500, 32))
LABELS = np.round(RNG.uniform(0, 5, 500) * 4) / 4  # with many equal ones


def far(found: dict[str, float], expected: dict[str, float], record: Any) -> float:
    assert found.keys() == expected.keys()
    largest = max(abs(found[name] - expected[name]) for name in found)
    record("largest difference", largest)
    print(f"\nlargest difference of {len(found)} metrics: {largest:.1e}")
    return largest


@pytest.mark.parametrize(
    "labels", [LABELS, RNG.standard_normal(500), np.arange(500.0), RNG.integers(0, 2, 500)]
)
def test_correlations_are_scipy_s(labels: np.ndarray, record_property: Any) -> None:
    stats = pytest.importorskip("scipy.stats")
    for other in (FIRST[:, 0], np.round(FIRST[:, 1]), 1e9 + FIRST[:, 2], FIRST[:, 3] * 1e-9):
        found = {"p": metrics.pearson(labels, other), "s": metrics.spearman(labels, other)}
        expected = {"p": stats.pearsonr(labels, other)[0], "s": stats.spearmanr(labels, other)[0]}
        assert far(found, expected, record_property) <= TOLERANCE


def test_what_is_undefined_is_so_to_scipy_too() -> None:
    stats = pytest.importorskip("scipy.stats")
    for x, y in ((np.ones(9), np.arange(9.0)), (np.arange(9.0), np.full(9, 0.1))):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.ConstantInputWarning)
            assert np.isnan([stats.pearsonr(x, y)[0], stats.spearmanr(x, y)[0]]).all()
        assert np.isnan([metrics.pearson(x, y), metrics.spearman(x, y)]).all()


class Model:
    """As much of a model as the reference's evaluators ask for: it has a vector for each text."""

    similarity_fn_name = "cosine"
    model_card_data = Mock()

    def __init__(self, vectors: dict[str, np.ndarray], name: str = "cosine") -> None:
        util = pytest.importorskip("sentence_transformers.util")
        self.vectors = vectors
        self.similarity_fn_name = name
        self.similarity = {
            "cosine": util.cos_sim,
            "dot": util.dot_score,
            "euclidean": util.euclidean_sim,
        }.get(name)

    def encode(
        self, texts: list[str], precision: str | None = None, normalize_embeddings: bool = False,
        truncate_dim: int | None = None, convert_to_tensor: bool = False, **_: Any,
    ) -> Any:  # fmt: skip
        import torch
        from sentence_transformers.util import quantize_embeddings

        vectors = np.stack([self.vectors[text] for text in texts])[:, :truncate_dim]
        if normalize_embeddings:
            vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        if convert_to_tensor:
            return torch.from_numpy(vectors)
        return vectors if precision in (None, "float32") else quantize_embeddings(vectors, precision)

    encode_query = encode_document = encode


PRECISIONS = [None, "float32", "int8", "uint8", "binary", "ubinary"]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("truncate_dim", [None, 11])
def test_similarity_as_the_reference_evaluates_it(
    precision: Any, truncate_dim: Any, record_property: Any
) -> None:
    evaluation = pytest.importorskip("sentence_transformers.sentence_transformer.evaluation")
    texts = [f"a{i}" for i in range(500)], [f"b{i}" for i in range(500)]
    model = Model(dict(zip([*texts[0], *texts[1]], [*FIRST, *SECOND], strict=True)))
    evaluator = evaluation.EmbeddingSimilarityEvaluator(
        *texts,
        LABELS.tolist(),
        similarity_fn_names=list(SIMILARITIES),
        precision=precision,
        truncate_dim=truncate_dim,
    )
    expected = {name: value for name, value in evaluator(model).items() if not name.endswith("_max")}
    found = sts_metrics(FIRST, SECOND, LABELS, SIMILARITIES, precision, truncate_dim)
    if precision in (None, "float32"):
        assert far(found, expected, record_property) <= TOLERANCE
        return
    # It compares integers in float32, where equal cosines, as those of bits are, are no longer equal.
    assert far(found, expected, record_property) <= (2e-2 if precision in ("binary", "ubinary") else 1e-4)


@pytest.mark.parametrize("precision", PRECISIONS[2:])
def test_similarity_of_integers_by_the_reference_s_functions(precision: Any, record_property: Any) -> None:
    """In float64, and with equal cosines made equal."""
    util = pytest.importorskip("sentence_transformers.util")
    stats = pytest.importorskip("scipy.stats")
    both = np.concatenate([FIRST, SECOND])
    both = util.quantize_embeddings(both / np.linalg.norm(both, axis=1, keepdims=True), precision)
    if precision in ("binary", "ubinary"):
        both = both if precision == "ubinary" else (both.astype(np.int16) + 128).astype(np.uint8)
        both = np.unpackbits(both, axis=1)
    first, second = both.astype(np.float64)[:500], both.astype(np.float64)[500:]
    expected = {}
    names = {"cosine": "cos", "dot": "dot", "euclidean": "euclidean", "manhattan": "manhattan"}
    for name, start in names.items():
        function = util.pairwise_dot_score if name == "dot" else getattr(util, f"pairwise_{start}_sim")
        similarities = np.round(function(first, second).numpy(), 12)
        expected[f"pearson_{name}"] = stats.pearsonr(LABELS, similarities)[0]
        expected[f"spearman_{name}"] = stats.spearmanr(LABELS, similarities)[0]
    found = sts_metrics(FIRST, SECOND, LABELS, list(names), precision)
    assert far(found, expected, record_property) <= TOLERANCE


def collection(
    graded: bool = False,
) -> tuple[list[str], list[str], dict[str, dict[str, int]], np.ndarray, np.ndarray]:
    """Queries, documents, judgements and vectors; some scores are equal, and some queries have many documents."""
    queries, documents = [f"q{i}" for i in range(60)], sorted(f"d{i}" for i in range(400))
    corpus = RNG.standard_normal((400, 24))
    corpus[100:130] = corpus[99]
    asked = RNG.standard_normal((60, 24))
    judged = {}
    for row, query in enumerate(queries):
        count = int(RNG.integers(1, 30))
        names = RNG.choice(documents, count, replace=False).tolist()
        names += [documents[i] for i in np.argsort(-(corpus @ asked[row]))[: RNG.integers(0, 12)]]
        judged[query] = {name: int(RNG.integers(1, 4)) if graded else 1 for name in names}
    return queries, documents, judged, asked, corpus


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean"])
@pytest.mark.parametrize("truncate_dim", [None, 5])
def test_rankings_as_the_reference_evaluates_them(name: str, truncate_dim: Any, record_property: Any) -> None:
    evaluation = pytest.importorskip("sentence_transformers.sentence_transformer.evaluation")
    queries, documents, judged, asked, corpus = collection()
    model = Model(dict(zip([*queries, *documents], [*asked, *corpus], strict=True)), name)
    relevant = {query: set(names) for query, names in judged.items()}
    at_k: dict[str, Any] = {
        "accuracy_at_k": [1, 7],
        "mrr_at_k": [5, 10],
        "map_at_k": [3, 100, 500],
        "ndcg_at_k": [1, 10, 500],
    }
    evaluator = evaluation.InformationRetrievalEvaluator(
        dict(zip(queries, queries, strict=True)), dict(zip(documents, documents, strict=True)), relevant,
        truncate_dim=truncate_dim, corpus_chunk_size=150, **at_k,
    )  # fmt: skip
    expected = {key.removeprefix(f"{name}_"): value for key, value in evaluator(model).items()}
    found = retrieval_metrics(
        asked, corpus, queries, documents, relevant, score_function=name, truncate_dim=truncate_dim, **at_k
    )
    assert far(found, expected, record_property) <= TOLERANCE


def ranking(
    asked: np.ndarray, corpus: np.ndarray, queries: list[str], documents: list[str]
) -> dict[str, dict[str, float]]:
    """Return scores that fall from one place to the next: other libraries break ties in ways of their own."""
    order = np.argsort(-(asked @ corpus.T), axis=1, kind="stable")
    return {
        query: {documents[i]: float(len(documents) - place) for place, i in enumerate(row.tolist())}
        for query, row in zip(queries, order, strict=True)
    }


def test_rankings_as_trec_evaluates_them(record_property: Any) -> None:
    pytrec_eval = pytest.importorskip("pytrec_eval")
    queries, documents, judged, asked, corpus = collection()
    names = {"P_1": "precision@1", "P_10": "precision@10", "recall_10": "recall@10", "ndcg_cut_10": "ndcg@10"}
    names |= {"success_5": "accuracy@5", "recip_rank": "mrr@400", "map": "map@400"}
    evaluator = pytrec_eval.RelevanceEvaluator(
        judged, {"P.1,10", "recall.10", "ndcg_cut.10", "success.5", "recip_rank", "map"}
    )
    results = evaluator.evaluate(ranking(asked, corpus, queries, documents)).values()
    expected = {ours: float(np.mean([row[name] for row in results])) for name, ours in names.items()}
    relevant = {query: set(row) for query, row in judged.items()}
    found = retrieval_metrics(
        asked, corpus, queries, documents, relevant, score_function="dot", mrr_at_k=[400], map_at_k=[400]
    )
    assert far({name: found[name] for name in expected}, expected, record_property) <= TOLERANCE
