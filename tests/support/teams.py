"""What tests of helper threads have in common: a job, and how to leave it to them."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from minisbert.kernels import layout
from minisbert.kernels.operations import OPERATIONS
from minisbert.kernels.runtime import helpers
from minisbert.kernels.tuning import MC
from tests.support.backends import compiled


def weights() -> tuple[Any, Any]:
    """Return a multiply's weights and its input."""
    rng = np.random.default_rng(0)
    packed = compiled.pack(rng.standard_normal((500, 70)), rng.standard_normal(500), "float32")
    return packed, rng.standard_normal((9, 70)).astype(np.float32)


def left_to_helpers(x: Any, packed: Any) -> Any:
    """Do what `compiled.linear` does in such a way that the thread that the helpers help takes no unit itself."""
    queue, y = helpers._helpers.queue, layout.rows(len(x), packed.width)
    y[:] = np.nan
    x, units = layout.laid_out("rows", x), packed.P * -(-len(x) // MC)
    given = (len(x), packed.K, packed.width, x, packed.panels, packed.bias, 0, 0, y)
    for place, number in enumerate(map(layout.number, given), helpers.GIVEN):
        queue[place] = number
    queue[helpers.CODE], queue[helpers.UNITS], queue[helpers.FIRST] = OPERATIONS["linear"].code, units, 0
    queue[helpers.FINISHED] = 0
    queue[helpers.RANGE] = (queue[helpers.RANGE] >> 2 * helpers.BITS) + 1 << 2 * helpers.BITS | units
    give_up = time.monotonic() + 60
    while queue[helpers.FINISHED] < units:
        assert time.monotonic() < give_up, "no helper has taken a unit"
    return y
