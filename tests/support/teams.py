"""What tests of helper threads have in common: a job, and how to leave it to them."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from minisbert.kernels import layout
from minisbert.kernels.compiled import ops as compiled
from minisbert.kernels.runtime import helpers
from minisbert.kernels.tuning import BLOCK


def weights() -> tuple[Any, Any]:
    """Return a multiply's weights and its input."""
    rng = np.random.default_rng(0)
    packed = compiled.pack(rng.standard_normal((500, 70)), rng.standard_normal(500), np.float32)
    return packed, rng.standard_normal((9, 70)).astype(np.float32)


def left_to_helpers(x: Any, packed: Any) -> Any:
    """Do what `compiled.linear` does in such a way that the thread that the helpers help takes no unit itself."""
    board, y = helpers._helpers.board, layout.rows(len(x), packed.width)
    y[:] = np.nan
    x, units = compiled._rows(x), packed.P * -(-len(x) // BLOCK)
    places = layout.address(x), packed.address, packed.bias_address, 0, 0, layout.address(y)
    for place, number in enumerate((len(x), packed.K, packed.width, *places), helpers.ARGUMENTS):
        board[place] = number
    board[helpers.KIND], board[helpers.UNITS], board[helpers.FIRST] = helpers.MULTIPLY, units, 0
    board[helpers.FINISHED] = 0
    board[helpers.TICKET] = (board[helpers.TICKET] >> 2 * helpers.BITS) + 1 << 2 * helpers.BITS | units
    give_up = time.monotonic() + 60
    while board[helpers.FINISHED] < units:
        assert time.monotonic() < give_up, "no helper has taken a unit"
    return y
