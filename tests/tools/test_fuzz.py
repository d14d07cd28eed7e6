"""A sample of `python tools/dev.py fuzz`, and whether the run would notice what it looks for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import DATA
from tests.support import mutations
from tests.support.environment import PATIENCE

SAMPLE = 300

# A child whose inputs do one after another what none should.
FAULTY = """\
import itertools
import os
import sys
import time
import warnings
from tools import fuzz
FAULTS = {
    1: lambda: 1 / 0,
    2: lambda: warnings.warn("odd"),
    3: lambda: bytearray(1 << 33),
    4: lambda: os._exit(5),
    6: lambda: os.abort(),
    8: lambda: time.sleep(1000),
}
def attempt(folder):
    if folder.name == "mutated":
        FAULTS.get(int((folder / "seed").read_text()), lambda: None)()
    return fuzz.VECTORS
def mutate(seed, checkpoints):
    return "name", "kind", {"seed": str(seed).encode()}
fuzz.attempt, fuzz.mutations.mutate = attempt, mutate
sys.exit(fuzz.main(sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def fuzz() -> Any:
    from tools import fuzz

    return fuzz


def test_damaged_checkpoints_give_vectors_or_our_exceptions(fuzz: Any) -> None:
    results = fuzz.run(0, SAMPLE, jobs=1).results
    assert [result for result in results if not result.expected] == []
    assert [result.seed for result in results] == list(range(SAMPLE))
    outcomes = {result.outcome for result in results}
    assert outcomes >= {
        fuzz.VECTORS,
        "CheckpointError",
        "UnsupportedCheckpointError",
        "CheckpointNotFoundError",
    }


def test_a_seed_makes_the_same_damage_each_time(fuzz: Any) -> None:
    checkpoints = fuzz.read_checkpoints(DATA)
    same = 0
    for seed in range(100):
        name, kind, files = mutations.mutate(seed, checkpoints)
        assert mutations.mutate(seed, checkpoints) == (name, kind, files)
        same += files == checkpoints[name]
    assert same < 10


@pytest.mark.skipif(sys.platform != "linux", reason="the memory limit needs /proc")
def test_faults_are_noticed(
    fuzz: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "faulty.py"
    program.write_text(FAULTY)
    monkeypatch.setattr(fuzz, "SECONDS", 10)
    report = fuzz.run(0, 10, jobs=1, program=str(program))
    assert [result.seed for result in report.results] == list(range(10))
    outcomes = {result.seed: result.outcome for result in report.results if not result.expected}
    unexpected = len(outcomes)
    if PATIENCE > 1:  # an emulator keeps no limit of memory
        outcomes[3] = "unexpected MemoryError"
    assert outcomes == {
        1: "unexpected ZeroDivisionError",
        2: "unexpected UserWarning",
        3: "unexpected MemoryError",
        4: "unexpected crash: exit code 5",
        6: "unexpected crash: exit code -6",
        8: "unexpected hang: 10 s",
    }
    monkeypatch.setattr(fuzz, "run", lambda first, count, jobs: report)
    assert fuzz.main(["--count", "10"]) == 1
    printed = capsys.readouterr().out
    assert f"10 inputs, {unexpected} unexpected" in printed
    assert "seed 1 (name, kind): unexpected ZeroDivisionError\nTraceback" in printed
