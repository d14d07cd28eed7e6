"""The kernels with vectors of other lengths: the code that other processors get, tested on this one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import minisbert

pytest.importorskip("numba", reason="numba is not installed, so nothing is compiled")

from llvmlite import binding

TESTS = Path(__file__).parent / "test_ops.py"
X86 = ("avx", "avx2", "fma")  # features without which such code can't be run
CODE = """
import sys
import pytest
from minisbert.kernels import tuning
assert (tuning.LANES, tuning.VECTORS, tuning.MR) == {expected}
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", {tests!r}]))
"""


@pytest.mark.parametrize(
    ("name", "features", "expected"),
    [
        ("haswell", "+avx2,+fma", (8, 2, 6)),
        ("generic", "", (4, 2, 6)),  # no fused multiply-add either
        ("generic", "+avx,+fma", (4, 2, 6)),
        ("generic", "+neon", (4, 3, 9)),  # for which an x86 has too few registers: it is only slower
    ],
    ids=["AVX2", "SSE", "16 registers, fused", "NEON"],
)
def test_kernels(name: str, features: str, expected: tuple[int, int, int], tmp_path: Path) -> None:
    there = binding.get_host_cpu_features()
    lacking = [
        feature for feature in features.split(",") if feature[1:] in X86 and not there.get(feature[1:])
    ]
    if lacking:
        pytest.skip(
            f"this processor has no {lacking}: the process would be killed at the first such instruction"
        )
    told = {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features, "NUMBA_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(expected=expected, tests=str(TESTS))],
        env={**os.environ, "PYTHONPATH": str(Path(minisbert.__file__).parents[1]), **told},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
