"""Which instructions multiply fewer bits: the best that this processor and its system have."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from pathlib import Path

from minisbert.kernels.levels import CHOSEN, features
from minisbert.kernels.tuning import IS_ARM, TILES, WIDEST

__all__ = ["arithmetic", "has_dots", "has_tiles"]


def arithmetic(dtype: str, K: int) -> str:
    """Return the arithmetic, of `operations.ARITHMETICS`, by which rows of K numbers are multiplied."""
    if dtype not in ("bfloat16", "int8") or K > WIDEST:
        return dtype
    if has_tiles(dtype):
        return f"{dtype} tiles"
    # Intel's processors sum products of bfloat16 at half the pace of a fused multiply-add; they have float16's, too.
    is_slow = dtype == "bfloat16" and "AVX512FP16" in features()
    if has_dots(dtype) and not is_slow:
        return f"{dtype} dot"
    return "int8 pairs" if dtype == "int8" and str(CHOSEN).startswith("x86-64") else dtype


# What a processor of a level has then, by NumPy's names, or in Linux's small letters.
_DOTS = {
    "x86-64-v4": {"int8": "AVX512VNNI", "bfloat16": "AVX512BF16"},
    "x86-64-v3": {"int8": "avx_vnni"},
    "aarch64": {"int8": "ASIMDDP"},
}


def has_dots(dtype: str) -> bool:
    """Whether the processor has an instruction that sums products of a dtype."""
    needed = _DOTS.get(str(CHOSEN), {}).get(dtype)
    return needed in features() or needed in _flags()


@cache
def _flags() -> frozenset[str]:
    """Return what Linux says that the processor has; NumPy does not know AVX-VNNI and I8MM.

    An emulator may show the processor that it runs on, from which NumPy's then differs.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    found = frozenset(next((line for line in lines if line.startswith(("flags", "Features"))), "").split())
    return found if ("avx512f" in found) == ("AVX512F" in features()) else frozenset()


# Linux's arch_prctl, and what it is asked for: leave to use the registers of tiles, for all threads of the process.
_ARCH_PRCTL, _REQUEST, _TILES = 158, 0x1023, 18


@cache
def has_tiles(dtype: str) -> bool:
    """Whether the processor multiplies tiles of a dtype, by I8MM or AMX, and the system lets this process use that."""
    if dtype not in TILES:
        return False
    if IS_ARM:
        return "i8mm" in _flags()
    return sys.platform.startswith("linux") and ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST, _TILES) == 0
