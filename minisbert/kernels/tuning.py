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
    "EARLY",
    "LANES",
    "LINE",
    "NARROW_COLUMNS",
    "NARROW_ROWS",
    "NARROW_VECTORS",
    "NEAR",
    "PART",
    "QUERIES",
    "ROWS",
    "UNROLL",
    "VECTORS",
    "attention_room",
    "columns_of_values",
    "count_panels",
    "row_bytes",
    "start_of_panel",
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


def _rows(vectors: int) -> int:
    """Return how many rows fit in the registers for a tile so many vectors wide: B takes as many of them, A one."""
    return (_registers - vectors - 1) // vectors


LANES, _registers = _vector_shape()
VECTORS = 3 if _registers == 32 else 2
COLUMNS, ROWS = LANES * VECTORS, _rows(VECTORS)  # 9 rows with 32 registers, 6 with 16
# A narrower tile: for attention, whose heads are two or four vectors of 16 wide, and for the columns that are left when
# others are taken three vectors at a time.
NARROW_VECTORS = 2
NARROW_COLUMNS = LANES * NARROW_VECTORS
# 8 rows with 32 registers, 6 with 16. There is room for 14: they are no faster, and take another third of a second to
# compile.
NARROW_ROWS = min(_rows(NARROW_VECTORS), 8)
LINE = 64  # bytes in a cache line
# Bytes ahead at which a tile asks for B, from the second-level cache into the first; 0 where the processor does that in
# time by itself: a tile of few registers goes through B at two thirds of the pace.
NEAR = 1536 if _registers == 32 else 0
# A sum over k is made in parts of so many terms, which are then added up. A float32 sum of thousands of terms, one
# after the other, loses twice the digits; smaller parts would be stored and loaded too often.
PART = 128
# Steps ahead at which the first tile of a chunk asks for B, which may still be in memory: 200 nanoseconds for a tile of
# 9 rows, fewer for lower ones. Where NEAR is 0 no tile asks for its own B.
EARLY = PART // 2
# So many steps of a panel are done for all rows of a block before the next ones, which are fetched meanwhile: 147 kB in
# use and as much on its way, where a whole panel of 3072 steps would be four times that, and push A out of the cache.
CHUNK = 6 * PART
# Steps in a turn of the loop of the tallest tiles: counting, and asking for memory, is done once for all of them.
UNROLL = 4 if _registers == 32 else 8
# Rows of A that are multiplied by all panels of B before the next ones. More mean fewer readings of the weights, but A
# is read from farther away: best from 108 to 117 on a Xeon with 2 MB of second-level cache, at 192 on a Zen 3 with
# 512 kB, and anything from 36 to 180 on a Zen 5 with 1 MB.
BLOCK = 13 * ROWS if _registers == 32 else 32 * ROWS
ABREAST = 8 if _registers == 32 else 4  # so many rows of attention scores go through softmax side by side
QUERIES = 4 * NARROW_ROWS  # so many of them are in work at once; a multiple of ABREAST
assert QUERIES % ABREAST == 0


def row_bytes(width: int) -> int:
    """Return how far apart rows of so many floats stand in memory: an odd number of cache lines.

    A tile reads up to 9 rows of A side by side. The innermost cache has 64 sets of 8 or 12 lines, and a line's address
    says which set it may be in. Rows of 3072 floats, one after the other, are 192 lines apart: all lines of a step
    would fall into one set and throw each other out. An odd distance spreads them over all sets.
    """
    return ((width * 4 + LINE - 1) // LINE | 1) * LINE


def count_panels(width: int) -> tuple[int, int]:
    """Return how many panels of COLUMNS so many columns take, and how many with those of NARROW_COLUMNS that follow.

    Of four or more vectors, in threes and twos, none is wasted: 16 are 4 x 3 + 2 x 2.
    """
    vectors = (width + LANES - 1) // LANES
    wide = max(0, vectors - -vectors % VECTORS * NARROW_VECTORS) // VECTORS
    return wide, wide + (width - wide * COLUMNS + NARROW_COLUMNS - 1) // NARROW_COLUMNS


def start_of_panel(p: int, wide: int) -> int:
    """Return the first column of panel p, where so many are wide."""
    return min(p, wide) * COLUMNS + max(0, p - wide) * NARROW_COLUMNS


def columns_of_values(K: int) -> int:
    """Return how many columns the panels of a head's values have, all of which are narrow."""
    return (K + NARROW_COLUMNS - 1) // NARROW_COLUMNS * NARROW_COLUMNS


def attention_room(T: int, K: int) -> int:
    """Return how many floats `attend.attend` needs beside its arguments, for T tokens and heads of width K."""
    wide, P = count_panels(T)
    keys, values = start_of_panel(P, wide), columns_of_values(K)
    inverses = -(-QUERIES // NARROW_COLUMNS) * NARROW_COLUMNS
    return keys * K + values * T + QUERIES * (keys + values) + inverses
