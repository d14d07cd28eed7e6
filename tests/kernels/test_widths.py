"""The kernels as other processors get them, of this one's architecture: their tests, at each of its levels."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import minisbert
from minisbert.kernels.levels import LEVELS, host_levels
from tests.support.environment import PATIENCE

pytest.importorskip("numba", reason="other levels are built by Numba, which is not installed")

NARROW = ("test_linear_is_what_is_defined", "test_all_arithmetics_of_integers_give_the_same_bits")
TESTS = [
    str(Path(__file__).parent / name)
    for name in ("test_ops.py", *(f"test_narrow.py::{test}" for test in NARROW))
]


@pytest.mark.parametrize("level", host_levels()[1:])
def test_kernels(level: str) -> None:
    shape = LEVELS[level].lanes, LEVELS[level].registers
    code = f"""
import sys
import pytest
from minisbert.kernels import tuning
assert (tuning.LANES, tuning.REGISTERS) == {shape}
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *{TESTS!r}]))
"""
    told = {"MINISBERT_LEVEL": level, "MINISBERT_TEST_BACKEND": "jit"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(minisbert.__file__).parents[1]), **told},
        capture_output=True,
        text=True,
        timeout=600 * PATIENCE,
    )
    assert done.returncode == 0, done.stdout + done.stderr
