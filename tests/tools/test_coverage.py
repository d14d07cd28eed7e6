"""`python tools/dev.py coverage`: which rows are measured, and what is written of them. Without torch."""

from __future__ import annotations

import json
from typing import Any

import pytest

from minisbert.checkpoint.config import read_config
from minisbert.checkpoint.families import FAMILIES
from tests.conftest import DATA, TINY
from tools.coverage import cases as coverage_cases
from tools.coverage import report as coverage_report
from tools.coverage.cases import DTYPES, FULL_SIZE, LAYOUTS, POOLINGS, TITLES, Case

ROW: dict[str, Any] = {
    "title": "A family",
    "layout": "plain",
    "pooling": "mean, Normalize",
    "dtype": "float32",
    "kind": "unit",
    "texts": 1000,
    "ids_equal": 1000,
    "float64": 2.5e-16,
    "numba": 1.25e-7,
    "reference": 2.5e-7,
    "invariant": True,
}
SCORES = {key: ROW[key] for key in ROW if key not in ("layout", "pooling")} | {
    "kind": "score",
    "ranks_equal": True,
}
FOUND: dict[str, Any] = {
    "date": "2026-01-02",
    "python": "3.11.7",
    "versions": {"minisbert": "0.1.0", "torch": "2.13.0"},
    "vectors": [
        ROW,
        {**ROW, "layout": "shards", "numba": 5e-7, "ids_equal": 999},
        {**ROW, "title": "Another", "pooling": "cls", "kind": "any", "dtype": "float16", "reference": 1.5e-6},
    ],
    "scores": [{**SCORES, "title": "A scorer"}, {**SCORES, "title": "A scorer", "dtype": "float64"}],
}


def cells(table: str, title: str) -> list[str]:
    """Return the cells of the only line whose first one is this."""
    (line,) = [line for line in table.split("\n") if line.startswith(f"| {title} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


# --- What is measured -------------------------------------------------------------------------------------


def test_every_family_has_every_pooling_layout_and_dtype() -> None:
    assert set(TITLES) == {*TINY, *FULL_SIZE}
    assert {read_config(DATA / name).transformer.model_type for name in TINY} == set(FAMILIES)
    for name in TINY:
        rows = list(coverage_cases.cases(name))
        assert len(set(rows)) == len(rows)
        assert {row.layout for row in rows} == set(LAYOUTS)
        assert {row.pooling for row in rows} == set(POOLINGS)
        assert {row.dtype for row in rows} == set(DTYPES)
    assert 150 <= sum(len(list(coverage_cases.cases(name))) for name in TITLES) <= 250


def test_a_checkpoint_without_modules_has_mean_pooling_alone() -> None:
    (row,) = [row for row in coverage_cases.cases(TINY[0]) if row.layout == "no modules.json"]
    assert (row.pooling, row.kind) == ("mean", "any")


def test_which_vectors_have_length_one() -> None:
    assert [name for name in POOLINGS if Case("", pooling=name).kind == "any"] == list(
        coverage_cases.pipelines.MODES
    )


@pytest.mark.parametrize("family", [TINY[0], *FULL_SIZE])
def test_texts_of_every_kind(family: str) -> None:
    found = coverage_cases.sentences(family)
    assert len(set(found)) == len(found)
    for part in ("[SEP]", "[PAD]", "<pad>", "</s>", "\u4e2d\u6587", "\U0001f44d"):
        assert any(part in text for text in found), part
    assert "" in found
    assert any(text.startswith(" ") and text.strip() for text in found)
    assert any(text.endswith(" ") and text.strip() for text in found)
    assert max(len(text.split()) for text in found) + 2 > 256  # the largest limit of all checkpoints


# --- What is written of it --------------------------------------------------------------------------------


def test_a_family_has_a_line_with_the_largest_errors_of_its_rows() -> None:
    tables = coverage_report.markdown(FOUND)
    assert cells(tables, "A family") == [
        "2", "2", "1", "1", "1,999 of 2,000", "2.5e-16", "5.0e-07", "2.5e-07", "yes",
    ]  # fmt: skip
    assert cells(tables, "Another")[1:5] == ["1", "1", "1", "1,000 of 1,000"]
    assert cells(tables, "A scorer") == [
        "2", "2", "2,000 of 2,000", "2.5e-16", "1.2e-07", "2.5e-07", "yes", "yes",
    ]  # fmt: skip


def test_unit_vectors_and_others_have_errors_of_their_own() -> None:
    rows = [ROW, {**ROW, "kind": "any", "numba": 1.5e-6}, {**ROW, "kind": "any", "reference": 1e-9}]
    errors = cells(coverage_report.markdown({**FOUND, "vectors": rows}), "A family")[5:8]
    assert errors == ["2.5e-16 / 2.5e-16", "1.2e-07 / 1.5e-06", "2.5e-07 / 2.5e-07"]


def test_each_table_has_as_many_columns_in_every_line() -> None:
    blocks = [block.split("\n") for block in coverage_report.markdown(FOUND).split("\n\n")]
    tables = [block for block in blocks if block[0].startswith("|")]
    assert [len(table) for table in tables] == [4, 3]
    assert all(len({line.count("|") for line in table}) == 1 for table in tables)


def test_the_text_says_what_was_measured_and_with_what() -> None:
    text = coverage_report.markdown(FOUND)
    for part in ("3 checkpoints and 2 cross-encoders", "Layouts: plain; shards.", "mean, Normalize; cls.",
                 "float32; float16.", "torch 2.13.0", "Python 3.11.7", "2026-01-02"):  # fmt: skip
        assert part in text


@pytest.mark.parametrize(("key", "column"), [("invariant", -1), ("ranks_equal", -2)])
def test_what_does_not_hold_in_every_row_is_counted(key: str, column: int) -> None:
    rows = [FOUND["scores"][0], {**FOUND["scores"][1], key: False}]
    tables = coverage_report.markdown({**FOUND, "scores": rows})
    assert cells(tables, "A scorer")[column] == "in 1 of 2 rows"


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"ids_equal": 998}, "ids of 2 texts"),
        ({"float64": 2e-12}, "float64 is off by 2.0e-12, more than 1e-12"),
        ({"numba": 1.01e-6}, "float32 is off by 1.0e-06, more than 1e-06"),
        ({"reference": float("nan")}, "NumPy alone is off by nan"),
        ({"reference": 2.1e-6, "kind": "any"}, "more than 2e-06"),
        ({"invariant": False}, "depend on the batch"),
    ],
)
def test_each_bound_that_is_missed_is_named(change: dict[str, Any], part: str) -> None:
    (found,) = coverage_report.misses({**ROW, **change})
    assert found.startswith("A family, plain, mean, Normalize, float32: ")
    assert part in found
    assert coverage_report.line({**ROW, **change}).endswith("MISSED")


def test_ranks_that_differ_are_a_miss() -> None:
    assert coverage_report.misses(SCORES) == []
    (found,) = coverage_report.misses({**SCORES, "ranks_equal": False})
    assert found == "A family, float32: the ranks differ"


def test_a_row_within_all_bounds_misses_none() -> None:
    assert coverage_report.misses(ROW) == []
    assert coverage_report.misses({**ROW, "kind": "any", "numba": 1.9e-6}) == []
    assert "MISSED" not in coverage_report.line(ROW)


def test_a_result_can_be_stored() -> None:
    assert coverage_report.markdown(json.loads(json.dumps(FOUND))) == coverage_report.markdown(FOUND)
