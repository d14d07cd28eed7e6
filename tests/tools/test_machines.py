"""The plan for a billion texts: what is reckoned, from made-up figures. Nothing here is timed."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tools.bench import billion

FOUND: dict[str, Any] = {
    "date": "2026-01-02",
    "machine": {"processor": "A processor", "threads": 2, "float32 a vector": 16, "python": "3.11.7"},
    "versions": {"minisbert": "0.1.0"},
    "model": "a model",
    "dtype": "float32",
    "dimension": 384,
    "kinds": {
        "titles": {"texts": 4000, "tokens": 12.6, "seconds": [2.0, 1.0, 4.0]},
        "paragraphs": {"texts": 100, "tokens": 230.4, "seconds": [1.0]},
    },
    "engines": {
        "kind": "titles",
        "texts": 2000,
        "seconds": {
            "ray": {
                "start": 3.0, "first": 5.0, "loads": [1, 1], "identical": True,
                "alone": [0.9, 0.9, 0.9], "engine": [1.0, 0.9, 1.2],
            },
            "pyspark": {
                "start": 3.0, "first": 5.0, "loads": [1, 2], "identical": False,
                "alone": [0.8, 1.6, 1.0], "engine": [1.0, 2.0, 1.0],
            },
        },
    },
}  # fmt: skip


def rows(found: dict[str, Any], price: float = 0.05) -> dict[str, list[str]]:
    """Return the cells of each row by the first of them."""
    lines = [
        line[2:-2].split(" | ") for line in billion.markdown(found, price).splitlines() if line[:1] == "|"
    ]
    return {first: others for first, *others in lines}


def test_engines_stand_beside_one_process() -> None:
    table = rows(FOUND)
    assert table["Ray Data"] == [
        "2,000 (1,667–2,222)", "0.90 (0.75–1.00)", "2 in 2 workers", "bit-identical", "3 s + 5 s",
    ]  # fmt: skip
    assert table["Spark"][1:4] == ["0.80 (0.80–1.00)", "3 in 2 workers", "DIFFERENT"]


def test_the_plan_tells_what_is_reckoned() -> None:
    table = rows(FOUND)
    assert table["*measured:* tokens a text"] == ["13", "230"]
    assert table["*measured:* texts a second and core"] == ["1,000", "50"]
    assert table["*measured:* the slowest engine ÷ one process"] == ["0.80", "0.80"]
    hours = [1e9 / rate / 0.8 / 3600 for rate in (1000, 50)]
    assert table["*reckoned:* core hours"] == [f"{x:,.0f}" for x in hours] == ["347", "6,944"]
    assert table["*reckoned:* hours on 100 cores"] == ["3.5", "69.4"]
    assert table["*reckoned:* cost, at $0.05 a core hour"] == ["$17", "$347"]
    vectors = "1.54 TB float32 · 384 GB int8 · 48 GB binary"
    assert table["*reckoned:* vectors of 384 components"] == [vectors] * 2


def test_without_engines_nothing_is_lost() -> None:
    found = copy.deepcopy(FOUND)
    found["engines"]["seconds"] = {}
    assert rows(found)["*measured:* the slowest engine ÷ one process"] == ["1.00", "1.00"]
    assert "Ray Data" not in rows(found)


@pytest.mark.parametrize(("size", "text"), [(1.536e12, "1.54 TB"), (384e9, "384 GB"), (48e9, "48 GB")])
def test_amounts(size: float, text: str) -> None:
    assert billion.amount(size) == text
