"""Rows from Python and from files, and which of them are in which step."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minisbert
from minisbert.training.data import DataSet, hold_out, read
from minisbert.training.plan import Plan
from minisbert.training.settings import Settings

DEFAULTS = {
    "epochs": 1, "batch_size": 4, "loss": "MultipleNegativesRankingLoss", "scale": 20.0, "similarity_fct": "cos_sim",
    "lr": 2e-5, "weight_decay": 0.01, "scheduler": "WarmupLinear", "warmup_steps": 0, "max_grad_norm": 1.0,
    "steps_per_epoch": None, "evaluation_steps": 0, "dropout": None, "seed": 3, "dtype": "float32", "shuffle": True,
    "no_duplicates": True, "sampling": "proportional",
}  # fmt: skip
PAIRS = [("a b", "c"), ("d, e", 'f "g"'), ("h\ni", "café")]


def data_of(*texts: tuple[str, ...], name: str = "data") -> DataSet:
    return DataSet(name, list(texts), [])


def distinct(count: int, name: str = "data") -> DataSet:
    return data_of(*((f"a{i}", f"b{i}") for i in range(count)), name=name)


def steps(*sets: DataSet, start: int = 0, **change: Any) -> list[tuple[str, list[int]]]:
    plan = Plan(Settings(**{**DEFAULTS, **change}), list(sets))
    return [(data.name, rows) for data, rows in plan.steps(start)]


@pytest.mark.parametrize(
    "rows", [PAIRS, [list(pair) for pair in PAIRS], np.array(PAIRS), (pair for pair in PAIRS)]
)
def test_rows_from_python(rows: Any) -> None:
    assert read(rows, False) == [DataSet("data", PAIRS, [])]


def test_scored_rows() -> None:
    assert read([("a", "b", 1), ("c", "d", "0.5")], True) == [
        DataSet("data", [("a", "b"), ("c", "d")], [1.0, 0.5])
    ]


FILES = {
    "pairs.csv": 'anchor,positive\na b,c\n"d, e","f ""g"""\n\n"h\ni",café\n',
    "semicolons.csv": '\ufeffq;p\r\na b;c\r\nd, e;"f ""g"""\r\n"h\ni";café\r\n',
    "tabs.tsv": 'q\tp\na b\tc\nd, e\t"f ""g"""\n"h\ni"\tcafé\n',
    "commas in the header.tsv": 'q, r, s\tp\na b\tc\nd, e\t"f ""g"""\n"h\ni"\tcafé\n',
    "objects.jsonl": '{"q": "a b", "p": "c"}\n{"q": "d, e", "p": "f \\"g\\""}\n\n{"p": "café", "q": "h\\ni"}\n',
    "lists.ndjson": '["a b", "c"]\n["d, e", "f \\"g\\""]\n["h\\ni", "caf\\u00e9"]\n',
}


@pytest.mark.parametrize("name", FILES)
def test_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name].encode())
    assert read(path, False) == [DataSet(str(path), PAIRS, [])]
    assert read({"first": path, "second": PAIRS}, False)[0].name == "first"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "data: has no rows; expected some"),
        ({}, "data has no data sets"),
        ("nowhere.csv", "nowhere.csv: can't be read (No such file or directory)"),
        (
            "pairs.txt",
            "pairs.txt: is no file of rows; expected a name that ends in .csv, .tsv, .jsonl, .ndjson",
        ),
        (7, "data is int 7; expected rows of texts"),
        (["a", "b"], "data, row 0: is str 'a'; expected (anchor, positive)"),
        (
            [("a", "b"), ("c",)],
            "data, row 1: has 1 column, and the first row has 2; expected (anchor, positive)",
        ),
        ([("a",)], "data, row 0: has 1 column; expected (anchor, positive)"),
        ([("a", "b"), ("c", "d", "e")], "data, row 1: has 3 columns, and the first row has 2"),
        ([("a", None)], "data, row 0: column 1 is NoneType None; expected a string"),
        ([("a", "b"), ("c", " \t")], "data, row 1: column 1 is an empty text; leave the row out"),
        ([("a", "\ud83d")], "data, row 0: column 1 holds a lone surrogate"),
    ],
)
def test_rows_that_are_refused(rows: Any, message: str) -> None:
    with pytest.raises((minisbert.EncodeValueError, minisbert.EncodeTypeError)) as caught:
        read(rows, False)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("score", [math.nan, math.inf, "high", None, 1 << 2000])
def test_scores_that_are_refused(score: Any) -> None:
    with pytest.raises(
        minisbert.EncodeValueError, match=r"data, row 1: the score is .*; expected a finite number"
    ):
        read([("a", "b", 0.5), ("c", "d", score)], True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "one.csv",
            "text\na\n",
            "the header has the columns ['text']; expected anchor, positive, and perhaps negatives",
        ),
        ("none.csv", "", "the header has the columns []"),
        (
            "scores.csv",
            "a,b,score\nx,y,1\n",
            "the last column is 'score'; leave it out, or choose loss='CosineSimilarity",
        ),
        ("short.csv", "a,b\nx,y\n\nz\n", "line 4: has 1 column, and the first row has 2"),
        ("quote.csv", 'a,b\nx,"y\n', "is not CSV (unexpected end of data)"),
        ("bytes.csv", b"a,b\nx,\xff\n", "is not UTF-8"),
        ("bad.jsonl", '["a", "b"]\n{', "line 2: is not JSON"),
        ("deep.jsonl", "[" * 100_000, "line 1: is not JSON"),
        ("keys.jsonl", '{"q": "a", "p": "b"}\n{"q": "c"}', "line 2: has the keys ['q']; expected ['q', 'p']"),
        ("number.jsonl", "7", "line 1: is int 7; expected (anchor, positive)"),
        ("empty.jsonl", '["a", ""]', "line 1: column 1 is an empty text"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, name: str, content: Any, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises((minisbert.EncodeValueError, minisbert.EncodeTypeError)) as caught:
        read(path, False)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)


# --- steps ----------------------------------------------------------------------------------------------------


def test_each_row_is_used_once_in_an_epoch_and_in_another_order_in_the_next() -> None:
    found = steps(distinct(18), epochs=2)
    rows = [row for _, batch in found for row in batch]
    assert [len(batch) for _, batch in found] == [4, 4, 4, 4, 2] * 2
    assert sorted(rows[:18]) == sorted(rows[18:]) == list(range(18))
    assert rows[:18] != rows[18:]


def test_without_shuffling_rows_come_as_they_are() -> None:
    assert [batch for _, batch in steps(distinct(8), shuffle=False)] == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_run_can_go_on_in_the_middle() -> None:
    options = {"epochs": 3, "no_duplicates": False}
    assert steps(distinct(18), start=7, **options) == steps(distinct(18), **options)[7:]


def test_steps_per_epoch_goes_through_the_rows_as_often_as_it_takes() -> None:
    found = [batch for _, batch in steps(distinct(8), steps_per_epoch=5, epochs=2, shuffle=False)]
    assert found == [[0, 1, 2, 3], [4, 5, 6, 7]] * 5


def test_no_text_is_twice_in_a_batch() -> None:
    rows = [("x", f"b{i}") if i % 3 == 0 else (f"a{i}", "y" if i % 4 == 0 else f"c{i}") for i in range(40)]
    for _, batch in steps(data_of(*rows)):
        texts = Counter(text for row in batch for text in rows[row])
        assert set(texts.values()) == {1}
    both = steps(data_of(*rows), no_duplicates=False, shuffle=False)
    assert [batch for _, batch in both] == [list(range(start, start + 4)) for start in range(0, 40, 4)]


def test_a_single_row_can_not_be_ranked_but_scored() -> None:
    assert [len(batch) for _, batch in steps(distinct(9))] == [4, 4]
    scored = distinct(9)._replace(scores=[0.5] * 9)
    assert [len(batch) for _, batch in steps(scored, loss="CosineSimilarityLoss")] == [4, 4, 1]


def test_data_sets_by_size_and_in_turn() -> None:
    sets = distinct(40, "large"), distinct(8, "small")
    names = [name for name, _ in steps(*sets)]
    assert Counter(names) == {"large": 10, "small": 2}
    assert names[-2:] != ["small", "small"]
    assert [name for name, _ in steps(*sets, sampling="round_robin")] == ["large", "small"] * 2
    assert [name for name, _ in steps(*sets, shuffle=False)] == ["large"] * 10 + ["small"] * 2


def test_rows_that_are_held_out_are_not_trained_on() -> None:
    [kept], held = hold_out([distinct(20)], 5, 0)
    assert len(kept.rows) == 15
    assert sorted(kept.rows + held.rows) == sorted(distinct(20).rows)
    assert hold_out([distinct(20)], 5, 0)[1] == held
