"""Weights to the panels that the matrix multiply reads.

A checkpoint stores a weight by output: (width, K). A panel has NR outputs, and what they have for one k next to each
other, so that the micro-kernel reads straight on: packing is a transposition. It is made in squares of LANES x LANES in
registers: each cache line of the weight is read once and whole, and each line of the panel written once.
"""

from __future__ import annotations

import numpy as np

from minisbert.kernels.runtime.compiler import count_panels, floats_at, kernel, start_of_panel
from minisbert.kernels.source.vector import transpose
from minisbert.kernels.tuning import LANES


@kernel(*["i8"] * 5)
def pack_panel(width: int, K: int, weight: int, panels: int, p: int) -> None:
    """Copy the rows of panel p of a weight (width, K), contiguous, as (K, its columns), over zeros."""
    wide, _ = count_panels(width)
    start = start_of_panel(p, wide)
    columns = start_of_panel(p + 1, wide) - start
    for first in range(start, min(start + columns, width), LANES):
        rows, squares = min(LANES, width - first), K // LANES * LANES
        source, panel = weight + first * K * 4, panels + (start * K + first - start) * 4
        if rows < LANES:
            squares = 0  # a square would be filled up with copies of the last row
        for k in range(0, squares, LANES):
            transpose(source + k * 4, K * 4, rows, panel + k * columns * 4, columns * 4, np.float32(1))
        for k in range(squares, K):
            to = floats_at(panel + k * columns * 4)
            for row in range(rows):
                to[row] = floats_at(source + row * K * 4)[k]
