"""The compiled backend that is tested: that of the package, or with MINISBERT_TEST_BACKEND=jit Numba's."""

from __future__ import annotations

import os
from typing import Any

from minisbert.kernels import select

__all__ = ["NAME", "compiled"]

NAME = os.environ.get("MINISBERT_TEST_BACKEND", "native")
compiled: Any = select(NAME, "float32")
