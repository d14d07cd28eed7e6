"""The shape of the fast kernels: how long a vector is on this processor, and how large a tile fits in its registers.

It needs no Numba, so weights can be packed while Numba is still being imported.
"""

from __future__ import annotations

import os

import llvmlite.binding as llvm

__all__ = ["AHEAD", "BLOCK", "COLUMNS", "LANES", "QUERIES", "ROWS", "UNROLL", "VECTORS", "attention_room"]

# Processors that Numba can be told to compile for (NUMBA_CPU_NAME) whose widest vectors are AVX2's.
_AVX2_NAMES = {"haswell", "broadwell", "skylake", "znver1", "znver2", "znver3", "alderlake", "x86-64-v3"}


def _vector_shape() -> tuple[int, int]:
    """Return how many float32 a vector register holds, and how many such registers there are."""
    features = {name for name, there in llvm.get_host_cpu_features().items() if there}
    told = os.environ.get("NUMBA_CPU_FEATURES")
    if told is not None:
        features = {feature[1:] for feature in told.split(",") if feature.startswith("+")}
    if "avx512f" in features and os.environ.get("NUMBA_CPU_NAME") not in _AVX2_NAMES:
        return 16, 32
    if "avx2" in features:
        return 8, 16
    return 4, 32 if "neon" in features else 16


LANES, _registers = _vector_shape()
VECTORS = 2
COLUMNS = LANES * VECTORS
ROWS = (_registers - VECTORS - 1) // VECTORS  # 14 with 32 registers, 6 with 16
AHEAD = 16  # steps ahead of which B is asked for: 2 kB with AVX-512, about 200 cycles' work
# Steps of the tile in a turn of its loop: where there are few registers a step is short, and counting and the addresses
# of A would take as many instructions as the arithmetic.
UNROLL = 1 if _registers == 32 else 4
# Rows of A that are multiplied by all panels of B before the next ones. More mean fewer readings of the weights, but A
# is read from farther away: best at 112 on a Xeon with 2 MB of second-level cache, at 192 on a Zen 3 with 512 kB.
BLOCK = 8 * ROWS if _registers == 32 else 32 * ROWS
QUERIES = 4 * ROWS  # so many rows of attention scores are in work at once


def attention_room(T: int, K: int) -> int:
    """Return how many floats `attend.attend` needs beside its arguments, for T tokens and heads of width K."""
    key_panels, value_panels = -(-T // COLUMNS), -(-K // COLUMNS)
    packed = (key_panels * K + value_panels * T) * COLUMNS
    return packed + QUERIES * (key_panels + value_panels) * COLUMNS + QUERIES
