"""The compiled backend that is tested: that of the package, or with MINISBERT_TEST_BACKEND=jit Numba's."""

from __future__ import annotations

import os
from typing import Any

from minisbert.kernels import select, tuning
from minisbert.kernels.compiled import arithmetic
from minisbert.kernels.operations import ARITHMETICS

__all__ = ["ARITHMETICS_HERE", "NAME", "compiled"]

NAME = os.environ.get("MINISBERT_TEST_BACKEND", "native")
compiled: Any = select(NAME, "float32")


def is_here(name: str) -> bool:
    """Whether this processor multiplies by an arithmetic."""
    dtype, _, how = name.partition(" ")
    if how in ("tiles", "dot"):
        return {"tiles": arithmetic.has_tiles, "dot": arithmetic.has_dots}[how](dtype)
    return not how or name in tuning.DOTS


ARITHMETICS_HERE = [name for name in ARITHMETICS if is_here(name)]
