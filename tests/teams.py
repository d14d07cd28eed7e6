"""What tests of helper threads have in common: a job, and how to leave it to them."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from minisbert.kernels import jit, memory, team
from minisbert.kernels.shape import BLOCK


def weights() -> tuple[Any, Any]:
    """Return a multiply's weights and its input."""
    rng = np.random.default_rng(0)
    packed = jit.pack(rng.standard_normal((500, 70)), rng.standard_normal(500), np.float32)
    return packed, rng.standard_normal((9, 70)).astype(np.float32)


def left_to_helpers(x: Any, packed: Any) -> Any:
    """Do what `jit.linear` does in such a way that the thread that the helpers help takes no unit itself."""
    board, y = team._helpers.board, memory.rows(len(x), packed.width)
    y[:] = np.nan
    x, units = jit._rows(x), packed.P * -(-len(x) // BLOCK)
    places = memory.address(x), packed.address, packed.bias_address, 0, 0, memory.address(y)
    for place, number in enumerate((len(x), packed.K, packed.width, *places), team.ARGUMENTS):
        board[place] = number
    board[team.KIND], board[team.UNITS], board[team.FIRST] = team.MULTIPLY, units, 0
    board[team.FINISHED] = 0
    board[team.TICKET] = (board[team.TICKET] >> 2 * team.BITS) + 1 << 2 * team.BITS | units
    give_up = time.monotonic() + 60
    while board[team.FINISHED] < units:
        assert time.monotonic() < give_up, "no helper has taken a unit"
    return y
