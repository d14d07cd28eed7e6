"""What the benchmarks run: their texts, the loops whose pace is a peak, the ladder. Nothing here is timed."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minisbert
from minisbert.kernels.tuning import LANES
from tests.conftest import DATA, TINY
from tools.bench import search, workloads

# --- The texts --------------------------------------------------------------------------------------------


def test_the_workloads_are_the_same_in_every_run_and_as_many_as_asked_for() -> None:
    sizes = {"titles": 40, "paragraphs": 5, "code": 5, "mixed": 12}
    first = workloads.workloads(sizes)
    assert {name: len(texts) for name, texts in first.items()} == sizes
    assert first == workloads.workloads(sizes)
    assert all(len(text) > 300 for text in first["paragraphs"])
    assert all("def " in text for text in first["code"])
    assert not any("\n" in text for text in first["titles"])


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-roberta"])
def test_texts_of_a_length_have_exactly_so_many_tokens(name: str) -> None:
    encoder = minisbert.load(DATA / name)
    words = ["Return a string that stands for the given object, with no more than one line of it."]
    for tokens in (8, 9, 31, 32, 200):
        made = workloads.of_length(encoder, tokens, words, 4)
        assert encoder.token_counts(made).tolist() == [tokens] * 4


def test_operations_count_real_tokens_up_to_the_limit() -> None:
    encoder = minisbert.load(DATA / "tiny-bert")
    config = encoder.config.transformer
    D, F, L = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    T = encoder.max_seq_length
    one = L * (T * 2 * (4 * D * D + 2 * D * F) + 4 * T * T * D) / 1e9
    assert workloads.operations(encoder, ["word " * 500]) == pytest.approx(one)
    assert workloads.operations(encoder, ["word " * 500, "word " * 600]) == pytest.approx(2 * one)


# --- The peak ---------------------------------------------------------------------------------------------


def test_the_shares_of_the_kernels_are_of_one_whole() -> None:
    pytest.importorskip("numba", reason="without numba there are no kernels to time")
    from tools.bench.shares import shares

    texts, encoder = ["the cat sat", "a dog"], minisbert.load(DATA / TINY[0])
    found = shares(DATA / TINY[0], 1, {"some": texts})["some"]
    seconds, operations, _ = np.transpose([*found["kernels"].values()])
    assert seconds.all()
    assert seconds.sum() < found["seconds"]
    assert operations.sum() / 100 == pytest.approx(workloads.operations(encoder, texts) * 1e9)


def test_the_peak_counts_what_is_computed() -> None:
    """A sum that LLVM knew beforehand would be left out of the loop, and the peak come out too high."""
    pytest.importorskip("numba", reason="the peak's loop is compiled by numba, which is not installed")
    from tools.bench import peak

    code = "\n".join(peak.run.inspect_asm().values())
    made = re.findall(r"\b(?:vfn?m[a-z]+\d*|v?mul)ps\b|\bfml[as]\b", code)
    assert 2 * LANES * len(made) == peak.OPERATIONS * peak.AT_ONCE
    a, b = np.arange(peak.TALL * peak.STEPS), np.arange(peak.STEPS * peak.WIDE * LANES)
    a, b = a.reshape(-1, peak.STEPS) % 5, b.reshape(peak.STEPS, -1) % 7
    expected = 3 * (a @ b)[:, ::LANES].sum()
    a, b = a.astype(np.float32), b.astype(np.float32)
    assert peak.run(a.ctypes.data, b.ctypes.data, 3 * peak.STEPS) == expected


# --- The ladder -------------------------------------------------------------------------------------------


def test_every_rung_of_the_ladder_multiplies() -> None:
    pytest.importorskip("numba", reason="the ladder's rungs are compiled by numba, which is not installed")
    from tools import ladder

    generator = np.random.default_rng(0)
    a = generator.standard_normal((12, 40), np.float32)
    b = generator.standard_normal((40, 128), np.float32)
    for name, rung in ladder.RUNGS.items():
        assert ladder.check(name, rung.prepared(b), a, b) <= 1e-6 or name in ladder.LARGEST_ERRORS
    with pytest.raises(SystemExit, match="its speed says nothing"):
        ladder.check("wrong", lambda a: a @ b + 1, a, b)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is Linux's")
def test_search_is_timed_beside_a_product(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    argv = ["search", "--queries", "3", "--corpus", "500", "--dimension", "16", "--rounds", "2"]
    monkeypatch.setattr(sys, "argv", [*argv, "--json", str(tmp_path / "search.json")])
    search.main()
    assert "3 queries x 500 vectors of 16" in capsys.readouterr().out
    found = json.loads((tmp_path / "search.json").read_text())
    assert found["ratio"] == [a / b for a, b in zip(found["search"], found["product"], strict=True)]
    assert found["memory"] >= 0
