"""Which instructions multiply fewer bits: the best that this processor and its system have."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

from minisbert.kernels.tuning import HAS_TILES, WIDEST

__all__ = ["arithmetic", "has_tiles"]


def arithmetic(dtype: str, K: int) -> str:
    """Return the arithmetic, of `operations.ARITHMETICS`, by which rows of K numbers are multiplied."""
    if dtype == "float16" or K > WIDEST:
        return dtype
    return f"{dtype} tiles" if has_tiles() else dtype


# Linux's arch_prctl, and what it is asked for: leave to use the registers of tiles, for all threads of the process.
_ARCH_PRCTL, _REQUEST, _TILES = 158, 0x1023, 18


@cache
def has_tiles() -> bool:
    """Whether the processor has a matrix unit (AMX), and the system lets this process use it."""
    if not (HAS_TILES and sys.platform.startswith("linux")):
        return False
    return int(ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST, _TILES)) == 0
