"""The loops whose pace is a processor's peak: each runs, and counts what its instruction does."""

from __future__ import annotations

import pytest

pytest.importorskip("llvmlite", reason="the loops are compiled by llvmlite, which is not installed")

from minisbert.kernels.operations import ARITHMETICS
from minisbert.kernels.tuning import LANES, per_word
from tests.support.backends import ARITHMETICS_HERE
from tools.bench import instructions

HERE = [name for name in ARITHMETICS_HERE if name in instructions.INSTRUCTIONS]


@pytest.mark.parametrize("name", HERE)
def test_a_loop_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instructions, "TURNS", 100)
    instructions.loop(name)(1)
    assert instructions.peak_of(name, 1) > 0


@pytest.mark.parametrize("name", [name for name in HERE if not name.endswith("tiles")])
def test_an_instruction_multiplies_and_adds_what_its_lanes_hold(name: str) -> None:
    assert instructions.INSTRUCTIONS[name].operations == 2 * LANES * per_word(ARITHMETICS.index(name))


def test_all_that_are_not_widened_have_one() -> None:
    assert {name for name in ARITHMETICS_HERE if " " in name} == {*HERE}
