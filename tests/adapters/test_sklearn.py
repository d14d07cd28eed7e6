"""scikit-learn: pipelines, clones and searches that load the model once, and tables in and out."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sklearn")

import joblib
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.validation import check_is_fitted

import minisbert
from minisbert.adapters.sklearn import SentenceVectorizer
from tests.conftest import DATA, edit_json
from tests.support.stores import corpus, in_new_process

TINY_BERT = DATA / "tiny-bert"
TEXTS = [f"{word} number {i}" for i in range(15) for word in ("cat", "stock market")]
LABELS = [0, 1] * 15


@pytest.fixture(scope="module")
def expected() -> Any:
    return minisbert.load(TINY_BERT).encode(TEXTS)


def test_it_transforms_with_and_without_fit(expected: Any) -> None:
    vectorizer = SentenceVectorizer(TINY_BERT)
    np.testing.assert_array_equal(vectorizer.transform(TEXTS), expected)
    np.testing.assert_array_equal(vectorizer.fit_transform(TEXTS, LABELS), expected)
    assert vectorizer.transform([]).shape == (0, 75)


def test_parameters_count_as_they_are_now(expected: Any) -> None:
    vectorizer = SentenceVectorizer(TINY_BERT).fit(TEXTS)
    assert vectorizer.set_params(truncate_dim=9).transform(TEXTS).shape == (30, 9)
    vectorizer.set_params(truncate_dim=None, prompts={"query": "cat: "}, default_prompt_name="query")
    assert not np.array_equal(vectorizer.transform(TEXTS), expected)
    np.testing.assert_array_equal(clone(vectorizer).transform(TEXTS), vectorizer.transform(TEXTS))


def test_a_column_comes_in_any_table(expected: Any) -> None:
    vectorizer = SentenceVectorizer(TINY_BERT)
    column: Any = np.array(TEXTS)
    tables = [column, column.astype(object)[:, np.newaxis], tuple(TEXTS), iter(TEXTS)]
    for name, make in (
        ("pandas", lambda pandas: [pandas.Series(TEXTS), pandas.DataFrame({"text": TEXTS})]),
        ("polars", lambda polars: [polars.Series(TEXTS), polars.DataFrame({"text": TEXTS})]),
        ("pyarrow", lambda arrow: [arrow.table({"text": TEXTS}), arrow.chunked_array([TEXTS])]),
    ):
        try:
            tables += make(__import__(name))
        except ImportError:
            continue
    for table in tables:
        np.testing.assert_array_equal(vectorizer.transform(table), expected)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ("a text", "X is the string 'a text'; expected many texts"),
        (np.array([["a", "b"]]), r"X has shape \(1, 2\); expected one column of texts"),
        (["a", None], "sentence 1 is NoneType None; expected a string"),
        (np.zeros((2, 1)), "sentence 0 is float64"),
        (3, "sentences is int 3"),
        (csr_array((2, 1)), "X is a sparse csr_array; expected texts"),
    ],
)
def test_what_is_no_column_of_texts_is_refused(X: Any, message: str) -> None:
    with pytest.raises(minisbert.MinisbertError, match=message):
        SentenceVectorizer(TINY_BERT).transform(X)


def test_columns_have_names() -> None:
    vectorizer = SentenceVectorizer(TINY_BERT, truncate_dim=2)
    assert [*vectorizer.get_feature_names_out()] == ["sentencevectorizer0", "sentencevectorizer1"]
    polars = pytest.importorskip("polars")
    assert vectorizer.set_output(transform="polars").transform(polars.Series(TEXTS)).shape == (30, 2)


def test_rows_keep_their_index() -> None:
    pandas = pytest.importorskip("pandas")
    some = pandas.DataFrame({"text": TEXTS, "length": range(30)}).iloc[10:20]
    steps = [
        (name, SentenceVectorizer(TINY_BERT, truncate_dim=2), column)
        for name, column in (("a", "text"), ("b", ["text"]))
    ]
    table = ColumnTransformer([*steps, ("rest", "passthrough", ["length"])]).set_output(transform="pandas")
    found = table.fit_transform(some)
    assert [*found.index] == [*some.index]
    np.testing.assert_array_equal(found["a__sentencevectorizer1"], found["b__sentencevectorizer1"])
    assert not found.isna().any(axis=None)


def test_it_says_of_itself_what_scikit_learn_wants_to_know() -> None:
    tags = SentenceVectorizer(TINY_BERT).__sklearn_tags__()
    assert (tags.requires_fit, tags.input_tags.string, tags.input_tags.two_d_array) == (False, True, False)
    check_is_fitted(SentenceVectorizer(TINY_BERT))
    assert repr(SentenceVectorizer("a", truncate_dim=3)) == "SentenceVectorizer(model='a', truncate_dim=3)"


def test_a_pickle_is_small_and_refuses_another_checkpoint(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("tiny-bert")
    pipeline = make_pipeline(SentenceVectorizer(folder), LogisticRegression()).fit(TEXTS, LABELS)
    pickled = pickle.dumps(pipeline)
    assert len(pickle.dumps(pipeline[0])) < 700
    assert len(pickled) < 3_000
    np.testing.assert_array_equal(pickle.loads(pickled).predict(TEXTS), pipeline.predict(TEXTS))
    edit_json(folder / "1_Pooling" / "config.json", pooling_mode="cls")
    with pytest.raises(minisbert.CheckpointError, match="is not the checkpoint that was meant"):
        pickle.loads(pickled).predict(TEXTS)
    pickle.loads(pickled).fit(TEXTS, LABELS).predict(TEXTS)  # made anew


def test_a_cache_does_not_mix_up_checkpoints(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copy_of("tiny-bert")
    memory = joblib.Memory(tmp_path / "cache", verbose=0)

    def vectors() -> Any:
        steps = SentenceVectorizer(folder), LogisticRegression()
        return make_pipeline(*steps, memory=memory).fit(TEXTS, LABELS)[0].transform(TEXTS)

    before = vectors()
    np.testing.assert_array_equal(vectors(), before)
    assert joblib.hash(SentenceVectorizer(folder)) == joblib.hash(SentenceVectorizer(folder).fit(TEXTS))
    edit_json(folder / "1_Pooling" / "config.json", pooling_mode="cls")
    assert not np.array_equal(vectors(), before)


def test_a_search_in_processes_finds_the_same() -> None:
    grid = {"sentencevectorizer__truncate_dim": np.array([5, 75])}
    pipeline = make_pipeline(SentenceVectorizer(TINY_BERT), LogisticRegression())
    found = [GridSearchCV(pipeline, grid, cv=2, n_jobs=n).fit(TEXTS, LABELS).cv_results_ for n in (1, 2)]
    np.testing.assert_array_equal(found[0]["mean_test_score"], found[1]["mean_test_score"])


def most_memory() -> float:
    """The most memory that this process has had, in MB."""
    [line] = [
        line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")
    ]
    return int(line.split()[1]) / 1024


def search(model: str) -> tuple[int, float]:
    """Search a grid of 3 values and 5 folds; return how often a model was read, and the memory above one encoder's."""
    texts = corpus()[:100]
    labels = [i % 2 for i in range(100)]
    loads = []
    read = minisbert.SentenceEncoder._read
    minisbert.SentenceEncoder._read = lambda *args: loads.append(args[1]) or read(*args)
    one = minisbert.load(model)
    one.encode(texts)
    before = most_memory()
    pipeline = make_pipeline(SentenceVectorizer(model), LogisticRegression())
    GridSearchCV(pipeline, {"logisticregression__C": [0.1, 1, 10]}, cv=5).fit(texts, labels)
    return len(loads), most_memory() - before


def search_alone(model: str) -> int:
    """Search as in `search`, where nobody else holds an encoder; return how often one was read."""
    loads = []
    read = minisbert.SentenceEncoder._read
    minisbert.SentenceEncoder._read = lambda *args: loads.append(args[1]) or read(*args)
    pipeline = make_pipeline(SentenceVectorizer(model), LogisticRegression())
    grid = {"logisticregression__C": [0.1, 1, 10], "sentencevectorizer__truncate_dim": [64, None]}
    GridSearchCV(pipeline, grid, cv=5).fit(TEXTS, LABELS)
    return len(loads)


@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is read from /proc")
def test_a_grid_search_loads_the_model_once(minilm: Path) -> None:
    assert in_new_process(search_alone, str(minilm)) == 1
    loads, more = in_new_process(search, str(minilm))
    assert loads == 1
    assert more <= 20
