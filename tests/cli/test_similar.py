"""``minisbert similar``: pairs of stored vectors above a threshold."""

from __future__ import annotations

import pytest

import minisbert
from minisbert.cli import similar
from tests.conftest import BATCH_TOLERANCE
from tests.support.commandline import (
    Encoder,
    Run,
    check_error,
    small_chunks,
    write_input,
    write_rows,
)
from tests.support.rows import KINDS, ROWS, TEXTS, found, store

pytestmark = pytest.mark.usefixtures("place")


@pytest.mark.parametrize("source", ["rows.jsonl", *KINDS])
@pytest.mark.parametrize("threshold", [0.93, -1.0])
@small_chunks
def test_pairs_above_a_threshold(
    run: Run, bert: Encoder, monkeypatch: pytest.MonkeyPatch, source: str, threshold: float
) -> None:
    monkeypatch.setattr(similar, "ROWS", 3)
    argv = [write_rows("jsonl", ROWS)] if source == "rows.jsonl" else store(run, source)
    if source != "rows.jsonl":  # nobody needs a model
        monkeypatch.setattr(minisbert.cli.models, "load_model", None)
    ids = [row for row, text in enumerate(TEXTS) if text.strip()]
    vectors = bert.encode([TEXTS[row] for row in ids], normalize_embeddings=True)
    scores = vectors @ vectors.T
    expected = {
        (ids[a], ids[b]): float(scores[a, b])
        for b in range(len(ids))
        for a in range(b)
        if scores[a, b] >= threshold
    }
    pairs = found(run("similar", *argv, "--threshold", str(threshold), "--json"))
    assert {(pair["first"]["id"], pair["second"]["id"]) for pair in pairs} == set(expected)
    assert [pair["score"] for pair in pairs] == sorted((pair["score"] for pair in pairs), reverse=True)
    for pair in pairs:
        rows = (pair["first"], pair["second"])
        assert pair["score"] == pytest.approx(expected[tuple(row["id"] for row in rows)], abs=BATCH_TOLERANCE)
        assert all(row == ROWS[row["id"]] | {"line": row["id"] + 1} for row in rows)
    few = run("similar", *argv, "--threshold", "-1", "--max-pairs", "2", "--json")
    assert [pair["score"] for pair in found(few)] == sorted(
        [pytest.approx(score, abs=BATCH_TOLERANCE) for score in sorted(expected.values(), reverse=True)[:2]],
        key=lambda score: -score.expected,
    )
    assert "there are 21 pairs; --max-pairs leaves the best 2" in few.err
    lines = run("similar", *argv, "--threshold", "0.93").out.splitlines()
    assert lines[:3] == [" score  line  text", "1.0000     1  red shoes", "           6  red shoes"]


def test_pairs_of_packed_bits(run: Run) -> None:
    argv = store(run, "out.parquet", "--precision", "ubinary")
    pairs = found(run("similar", *argv, "--threshold", "0.999", "--json"))
    assert [(pair["first"]["id"], pair["second"]["id"]) for pair in pairs] == [(0, 5)]
    assert pairs[0]["score"] == pytest.approx(1, abs=1e-6)
    argv = store(run, "out.npy", "--precision", "ubinary")
    check_error(
        run("similar", *argv), "rows.jsonl: its vectors are uint8, and it doesn't say whether they are packed"
    )


def test_no_pairs_are_no_output(run: Run) -> None:
    source = write_input("txt", ["red", "", "an umbrella for the rain"])
    said = "minisbert: texts.txt: no two of 2 texts are as similar as 1.0\n"
    assert run("similar", source, "--threshold", "1") == (0, "", said)
    assert run("similar", write_input("txt", []))[:2] == (0, "")
    check_error(
        run("similar", "-"),
        "standard input: is read twice, for the vectors and for what to show; name a file",
    )
    for bad in ("2", "nan", "x"):
        check_error(
            run("similar", source, "--threshold", bad), f"expected a number from -1 to 1, found '{bad}'"
        )
