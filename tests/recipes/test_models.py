"""Recipes for what computes with an encoder: ours computes, and nobody else's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minisbert
from tests.recipes.conftest import RECIPES, ROOT, K, Rows, best, recipe

pytestmark = pytest.mark.filterwarnings("default")  # the packages' own

Encoder = minisbert.SentenceEncoder


def unit(vectors: Rows) -> Rows:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_keybert(encoder: Encoder) -> None:
    keybert_keywords = recipe("keybert_keywords", "keybert", "sklearn")
    from sklearn.feature_extraction.text import CountVectorizer

    text = keybert_keywords.TEXT
    words = CountVectorizer(stop_words="english").fit([text]).get_feature_names_out().tolist()
    cosines = unit(encoder.encode(words)) @ unit(encoder.encode(text))
    found = keybert_keywords.keywords(encoder, text, k=5)
    assert [word for word, _ in found] == [words[row] for row in best(cosines, 5)]
    np.testing.assert_allclose(
        [score for _, score in found], np.sort(cosines)[:-6:-1], atol=6e-5
    )  # four digits


def test_bertopic(encoder: Encoder, texts: list[str], vectors: Rows) -> None:
    bertopic_topics = recipe("bertopic_topics", "bertopic", "sklearn")
    from bertopic.dimensionality import BaseDimensionalityReduction
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score

    def clusters() -> Any:
        return KMeans(n_clusters=4, random_state=0, n_init=1)

    model = bertopic_topics.topics(
        encoder, texts, umap_model=BaseDimensionalityReduction(), hdbscan_model=clusters()
    )
    assert adjusted_rand_score(model.topics_, clusters().fit_predict(vectors)) == 1


def test_txtai(
    minilm: Path, texts: list[str], queries: list[str], cosines: Rows, tmp_path: Path, monkeypatch: Any
) -> None:
    recipe("txtai_index", "txtai")
    monkeypatch.syspath_prepend(RECIPES)  # as when the file is run
    import txtai_index

    txtai_index.build(str(minilm), texts, str(tmp_path / "index"))
    for query, scores in list(zip(queries, cosines, strict=True))[:5]:
        found = txtai_index.search(str(tmp_path / "index"), query, K)  # which names no model
        assert [row for row, _ in found] == best(scores).tolist()
        np.testing.assert_allclose([score for _, score in found], scores[best(scores)], atol=1e-6)


def trained_head(vectors: Rows) -> tuple[Any, list[int]]:
    from sklearn.linear_model import LogisticRegression

    labels = [int(x) for x in vectors[:, 0] > np.median(vectors[:, 0])]
    return LogisticRegression().fit(vectors, labels), labels


def test_setfit_head(minilm: Path, encoder: Encoder, texts: list[str], vectors: Rows, tmp_path: Path) -> None:
    setfit_head = recipe("setfit_head", "sklearn")
    import joblib

    folder = Path(shutil.copytree(minilm, tmp_path / "setfit"))
    head, _ = trained_head(vectors)
    joblib.dump(head, folder / "model_head.pkl")
    (folder / "config_setfit.json").write_text('{"normalize_embeddings": false, "labels": ["low", "high"]}')
    classifier = setfit_head.Classifier(folder)
    high = 1 / (1 + np.exp(-(vectors @ head.coef_[0] + head.intercept_[0])))
    np.testing.assert_allclose(classifier.predict_proba(texts)[:, 1], high, atol=1e-6)
    assert classifier.predict(texts) == ["high" if p > 0.5 else "low" for p in high]


def test_setfit_head_beside_setfit(minilm: Path, texts: list[str], vectors: Rows, tmp_path: Path) -> None:
    setfit_head = recipe("setfit_head", "setfit", "sklearn")
    from setfit import SetFitModel

    model = SetFitModel.from_pretrained(str(minilm), labels=["low", "high"])
    model.model_head, _ = trained_head(vectors)
    model.save_pretrained(str(tmp_path / "saved"))
    ours, theirs = (
        setfit_head.Classifier(tmp_path / "saved"),
        SetFitModel.from_pretrained(str(tmp_path / "saved")),
    )
    np.testing.assert_allclose(
        ours.predict_proba(texts), theirs.predict_proba(texts, as_numpy=True), atol=1e-5
    )
    assert ours.predict(texts) == list(theirs.predict(texts))


def test_mteb(minilm: Path, encoder: Encoder, texts: list[str], vectors: Rows, monkeypatch: Any) -> None:
    mteb_score = recipe("mteb_score", "mteb", "sentence_transformers", "scipy")
    from scipy.stats import spearmanr
    from sentence_transformers import SentenceTransformer

    overlap = [len(set(a.split()) & set(b.split())) for a, b in pairwise(texts)]
    pairs = list(zip(texts, texts[1:], map(float, overlap), strict=False))
    monkeypatch.setattr(mteb_score.Pairs, "pairs", pairs)
    ours = mteb_score.scores(mteb_score.Encoder(encoder), [mteb_score.Pairs()])
    theirs = mteb_score.scores(SentenceTransformer(str(minilm), device="cpu"), [mteb_score.Pairs()])
    cosines = (unit(vectors)[:-1] * unit(vectors)[1:]).sum(axis=1)
    assert ours["Pairs"] == pytest.approx(spearmanr(cosines, overlap).statistic, abs=1e-6)
    assert ours["Pairs"] == pytest.approx(theirs["Pairs"], abs=1e-6)


NEEDS = {
    "bertopic_topics": ["bertopic"],
    "daft_column": ["daft", "pyarrow"],
    "datasets_map": ["datasets"],
    "duckdb_sql": ["duckdb", "pyarrow"],
    "faiss_index": ["faiss"],
    "hnswlib_index": ["hnswlib"],
    "keybert_keywords": ["keybert"],
    "mteb_score": ["mteb"],
    "pandas_column": ["pandas", "pyarrow"],
    "polars_column": ["polars"],
    "pyarrow_parquet": ["pyarrow"],
    "qdrant_local": ["qdrant_client"],
    "sqlite_vec_table": ["sqlite_vec"],
    "txtai_index": ["txtai"],
    "usearch_index": ["usearch"],
}
ELSEWHERE = {"pgvector_table", "setfit_head"}  # need a server; a trained model


def test_all_recipes_are_run() -> None:
    assert {path.stem for path in RECIPES.glob("*.py")} - {"__init__"} == {*NEEDS, *ELSEWHERE}


@pytest.mark.parametrize("name", NEEDS)
def test_recipes_run_as_scripts(name: str, minilm: Path, tmp_path: Path) -> None:
    for package in NEEDS[name]:
        pytest.importorskip(package, reason=f"{package} is optional")
    path = RECIPES / f"{name}.py"
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(path), str(minilm)], cwd=tmp_path, env=offline, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
