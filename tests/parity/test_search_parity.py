"""Search, paraphrases and communities beside the reference's, on vectors of the standard library's docstrings.

Scores of equal texts, and of others that differ by a rounding, are in no order: two BLAS round in two ways. So what is
found is compared place by place by scores in float64. Where both are given the same scores, these are to be equal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minisbert
from minisbert import vectors
from minisbert.search import paraphrase_mining_embeddings
from tools.demo import standard_library

torch = pytest.importorskip(
    "torch", reason="torch is not installed: python tools/dev.py test --parity installs it"
)
util = pytest.importorskip("sentence_transformers.util", reason="sentence-transformers is not installed")

ROUNDING = 1e-6  # of a sum of 384 products in float32


@pytest.fixture(scope="module")
def embeddings(minilm: Path) -> Any:
    return minisbert.load(minilm).encode(list(standard_library()), truncation="silent")


@pytest.fixture(scope="module")
def exact(embeddings: Any) -> Any:
    """Cosines in float64."""
    unit = embeddings / np.linalg.norm(embeddings.astype(np.float64), axis=1, keepdims=True)
    return unit @ unit.T


def cosines(a: Any, b: Any) -> Any:
    """Compare as the reference does, to the bit if as many are compared at a time."""
    return util.cos_sim(torch.from_numpy(a), torch.from_numpy(b)).numpy()


def test_search(embeddings: Any, exact: Any) -> None:
    found = minisbert.semantic_search(embeddings, embeddings)
    expected = util.semantic_search(embeddings, embeddings)
    for row, ours, theirs in zip(exact, found, expected, strict=True):
        ids = [hit["corpus_id"] for hit in ours]
        np.testing.assert_allclose(row[ids], row[[hit["corpus_id"] for hit in theirs]], atol=ROUNDING)
        np.testing.assert_allclose([hit["score"] for hit in ours], row[ids], atol=ROUNDING)
    found = minisbert.semantic_search(embeddings, embeddings, 100, 500, 7, cosines)
    expected = util.semantic_search(embeddings, embeddings, 100, 500, 7)
    scores = [[[hit["score"] for hit in hits] for hits in every] for every in (found, expected)]
    assert scores[0] == scores[1]


@pytest.mark.parametrize(("most", "top_k"), [(500_000, 100), (2_000, 10)])
def test_paraphrases(embeddings: Any, exact: Any, most: int, top_k: int) -> None:
    found = paraphrase_mining_embeddings(embeddings, max_pairs=most, top_k=top_k)
    expected = util.paraphrase_mining_embeddings(torch.from_numpy(embeddings), max_pairs=most, top_k=top_k)
    places = [np.array(every)[:, 1:].astype(int).T for every in (found, expected)]
    np.testing.assert_allclose(exact[tuple(places[0])], exact[tuple(places[1])], atol=ROUNDING)
    arguments: Any = (300, 500, most, top_k)
    found = paraphrase_mining_embeddings(embeddings, *arguments, score_function=cosines)
    expected = util.paraphrase_mining_embeddings(torch.from_numpy(embeddings), *arguments)
    assert [score for score, *_ in found] == [score for score, *_ in expected]
    assert np.mean([ours == theirs for ours, theirs in zip(found, expected, strict=True)]) > 0.99


@pytest.mark.parametrize(("threshold", "smallest"), [(0.75, 2), (0.5, 5), (0.4, 10), (0.3, 30)])
def test_communities(embeddings: Any, exact: Any, threshold: float, smallest: int) -> None:
    found = minisbert.community_detection(embeddings, threshold, smallest)
    expected = util.community_detection(embeddings, threshold, smallest)
    assert [ours[0] for ours in found] == [theirs[0] for theirs in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert set(ours) == set(theirs)
        np.testing.assert_allclose(exact[ours[0]][ours], exact[ours[0]][theirs], atol=ROUNDING)


def test_bits_and_integers_are_rescored_as_by_the_reference(embeddings: Any) -> None:
    """With as many candidates as there are vectors: which of equal distances are candidates, no one says."""
    pytest.importorskip("faiss", reason="faiss-cpu is not installed")
    quantization = pytest.importorskip("sentence_transformers.util.quantization")
    corpus, queries = embeddings, embeddings[::50]
    ranges = np.stack([corpus.min(axis=0), corpus.max(axis=0)])
    times = -(-len(corpus) // 10)
    for precision, own in (("ubinary", None), ("uint8", ranges)):
        codes = vectors.quantize(corpus, precision, own)
        expected, _ = quantization.semantic_search_faiss(
            queries, codes, corpus_precision=precision, ranges=own, rescore_multiplier=times
        )
        found = minisbert.semantic_search(
            queries,
            codes,
            score_function="dot",
            corpus_precision=precision,
            ranges=own,
            rescore_multiplier=times,
        )
        for query, ours, theirs in zip(queries, found, expected, strict=True):
            scores = np.array([hit["score"] for hit in ours])
            if precision == "ubinary":  # to the reference bits are 0 and 1
                scores = (scores + query.sum()) / 2
            np.testing.assert_allclose(scores, [hit["score"] for hit in theirs], atol=2e-6)
