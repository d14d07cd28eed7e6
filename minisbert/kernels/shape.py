"""The shape of the fast kernels: how long a vector is on this processor, and how large a tile fits in its registers.

It needs no Numba, so weights can be packed while Numba is still being imported.
"""

from __future__ import annotations

import os

import llvmlite.binding as llvm

__all__ = [
    "ABREAST",
    "BLOCK",
    "CHUNK",
    "COLUMNS",
    "LANES",
    "LINE",
    "NEAR",
    "PART",
    "QUERIES",
    "ROWS",
    "UNROLL",
    "VECTORS",
    "attention_room",
    "row_bytes",
]

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
LINE = 64  # bytes in a cache line
NEAR = 1536  # bytes ahead at which a tile asks for B into the innermost cache
# A sum over k is made in parts of so many terms, which are then added up. A float32 sum of thousands of terms, one
# after the other, loses twice the digits; smaller parts would be stored and loaded too often.
PART = 128
# So many steps of a panel are done for all rows of a block before the next ones, which are fetched meanwhile: 98 kB in
# use and as much on its way, where a whole panel of 3072 steps would be four times that, and push A out of the cache.
CHUNK = 6 * PART
# Steps of the tile in a turn of its loop: where there are few registers a step is short, and counting and the addresses
# of A would take as many instructions as the arithmetic.
UNROLL = 1 if _registers == 32 else 4
# Rows of A that are multiplied by all panels of B before the next ones. More mean fewer readings of the weights, but A
# is read from farther away: best at 112 on a Xeon with 2 MB of second-level cache, at 192 on a Zen 3 with 512 kB.
BLOCK = 8 * ROWS if _registers == 32 else 32 * ROWS
ABREAST = 4  # so many rows of attention scores go through softmax side by side
QUERIES = 4 * ROWS  # so many of them are in work at once; a multiple of ABREAST


def row_bytes(width: int) -> int:
    """Return how far apart rows of so many floats stand in memory: an odd number of cache lines.

    A tile reads ROWS rows of A side by side. The innermost cache has 64 sets of 8 or 12 lines, and a line's address
    says which set it may be in. Rows of 3072 floats, one after the other, are 192 lines apart: all 14 lines of a step
    would fall into one set and throw each other out. An odd distance spreads them over all sets.
    """
    return ((width * 4 + LINE - 1) // LINE | 1) * LINE


def attention_room(T: int, K: int) -> int:
    """Return how many floats `attend.attend` needs beside its arguments, for T tokens and heads of width K."""
    key_panels, value_panels = -(-T // COLUMNS), -(-K // COLUMNS)
    rows = key_panels * K + value_panels * T + QUERIES * (key_panels + value_panels) - (-QUERIES // COLUMNS)
    return rows * COLUMNS
