"""The levels that kernels are built for: which processors each is for, and which one this process can run.

A level names what a processor must be able to do, as the x86-64 psABI has it. Nothing here needs Numba or llvmlite:
NumPy knows the processor's features already.
"""

from __future__ import annotations

import os
import platform
from typing import Any, NamedTuple

import numpy as np

__all__ = ["CHOSEN", "HOST", "LEVELS", "Level", "features", "host_levels", "why_not"]


class Level(NamedTuple):
    """What code of a level is compiled for.

    `needs` are features by NumPy's names, and `dots` those, by LLVM's, that `source.dot` uses beyond them where the
    processor has them: see `compiled.arithmetic`. The system makes no difference: see `runtime.build`.
    """

    lanes: int  # float32 in a vector register
    registers: int
    architecture: str  # x86_64 or aarch64
    triple: str
    cpu: str
    features: str
    dots: str
    needs: frozenset[str]

    @property
    def fuses(self) -> bool:
        """Whether a multiply-add is rounded once; then all levels give the same bits."""
        return self.cpu != "x86-64-v2"


# Beyond AVX2 and FMA3, or AVX-512, whatever else these names stand for is left out: it is no faster, and need not be
# looked for then.
_V2 = frozenset({"SSE3", "SSSE3", "SSE41", "SSE42", "POPCNT"})
_V3 = _V2 | {"AVX", "AVX2", "FMA3"}
_V4 = _V3 | {"AVX512F", "AVX512CD", "AVX512_SKX"}
_LESS = "-bmi,-bmi2,-lzcnt,-movbe"
_X86, _ARM = "x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"

# Best first.
LEVELS = {
    "x86-64-v4": Level(16, 32, "x86_64", _X86, "x86-64-v4", _LESS, "+avx512vnni,+avx512bf16", _V4),
    "x86-64-v3": Level(8, 16, "x86_64", _X86, "x86-64-v3", _LESS, "+avxvnni", _V3),
    "x86-64-v2": Level(4, 16, "x86_64", _X86, "x86-64-v2", "", "", _V2),
    # Windows and macOS keep register x18 for themselves.
    "aarch64": Level(
        4, 32, "aarch64", _ARM, "generic", "+neon,+reserve-x18", "+dotprod", frozenset({"NEON"})
    ),
}
_NAMES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


HOST = _NAMES.get(platform.machine().lower())


def features() -> frozenset[str]:
    """Return what this processor has, by NumPy's names."""
    core: Any = getattr(np, "_core", None) or np.core  # NumPy 2 and 1
    return frozenset(name for name, there in core._multiarray_umath.__cpu_features__.items() if there)


def host_levels() -> list[str]:
    """Return the levels that this processor and system can run, best first."""
    found = features()
    return [name for name, level in LEVELS.items() if level.architecture == HOST and level.needs <= found]


def _chosen() -> str | None:
    """Return the level of this process: ``MINISBERT_LEVEL``, else the best one; None where there is none."""
    told = os.environ.get("MINISBERT_LEVEL")
    if told:
        return told if told in LEVELS else None
    return next(iter(host_levels()), None)


CHOSEN = _chosen()


def why_not() -> str:
    """Return why no kernels can run in this process; nothing if they can."""
    able = host_levels()
    if CHOSEN in able:
        return ""
    if told := os.environ.get("MINISBERT_LEVEL"):
        return f"MINISBERT_LEVEL is {told!r}; expected what this processor can run: {', '.join(able) or 'nothing'}"
    return f"kernels are built for no level that this processor has, which is {platform.machine()}"
