"""Rows of several columns, and how they are stored with their vectors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.commandline import Run, write_rows

BRANDS = ["Acme", "Zeta", "Ünï=1"]
ROWS = [
    {"id": row, "brand": BRANDS[row % 3], "price": row / 2, "new": row % 2 == 0, "text": text}
    for row, text in enumerate(
        [
            "red shoes",
            "",
            "blue shoes",
            "an umbrella",
            "  ",
            "red  shoes",
            "猫",
            "a coat",
            "red shoes for men",
        ]
    )
]
TEXTS = [row["text"] for row in ROWS]
KINDS = ["out.parquet", "out.jsonl", "out.npy"]


def found(ran: Any) -> list[dict[str, Any]]:
    assert ran.status == 0, ran.err
    return [json.loads(line) for line in ran.out.splitlines()]


def store(run: Run, output: str, *options: str) -> list[str]:
    """Encode the rows, and return the arguments with which they are searched."""
    if output == "out.parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow, which is optional")
    keep = [] if output == "out.npy" else ["--keep"]
    assert run("encode", write_rows("jsonl", ROWS), "-o", output, *keep, *options).status == 0
    return ["rows.jsonl", "--vectors", output] if output == "out.npy" else [output]
