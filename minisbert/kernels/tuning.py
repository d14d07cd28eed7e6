"""The kernels' shape: vector length, micro-tile and cache blocks for the processor at hand.

The level is fixed when this is imported. The glossary is in `minisbert.kernels`.
"""

from __future__ import annotations

from minisbert.kernels.levels import CHOSEN, LEVELS

__all__ = [
    "DOTS",
    "FIRST_TILES",
    "FUSES",
    "IS_ARM",
    "KC",
    "KC_NARROW",
    "K_SUM",
    "LANES",
    "LINE",
    "MC",
    "MR",
    "NARROW_MR",
    "NARROW_NR",
    "NARROW_VECTORS",
    "NR",
    "OFFSET",
    "PAIRS",
    "PREFETCH_L1",
    "PREFETCH_L2",
    "QUERY_ROWS",
    "SOFTMAX_ROWS",
    "SUM_LANES",
    "TILE",
    "TILES",
    "UNROLL",
    "VECTORS",
    "WIDEST",
    "attention_room",
    "columns_of_scores",
    "columns_of_values",
    "count_panels",
    "per_word",
    "row_bytes",
    "start_of_panel",
    "word_bytes",
    "words",
]

_LEVEL = (
    LEVELS[CHOSEN] if CHOSEN else LEVELS["x86-64-v2"]
)  # with which no kernel will run, but weights are packed
LANES, REGISTERS = (
    _LEVEL.lanes,
    _LEVEL.registers,
)  # float32 in a vector register, and how many of these there are
FUSES, IS_ARM = _LEVEL.fuses, _LEVEL.architecture == "aarch64"
# Sums over a row are kept in so many lanes on every processor, whose registers may have fewer: so all add in one order.
SUM_LANES = 16
LINE = 64  # bytes in a cache line

# --- The micro-tile: MR rows x NR columns of sums, NR being VECTORS vectors ------------------------------
#
# The budget: MR x VECTORS sums, VECTORS vectors of B, and broadcast numbers of A. On x86 one of these is enough: that
# is 27 + 3 + 1 = 31 of 32 registers for 9 x 3, and 12 + 2 + 1 = 15 of 16 for 6 x 2. On ARM LLVM loads them well ahead:
# with 9 rows it runs out of registers, and 28 of 209 instructions in the loop move sums to the stack and back; with 8,
# which is 24 + 3 + 4 = 31, none of 163.

VECTORS = 3 if REGISTERS == 32 else 2
NR = LANES * VECTORS
_AHEAD = 4 if IS_ARM else 1
MR = (REGISTERS - VECTORS - _AHEAD) // VECTORS  # 9, or 8 on ARM, or 6
# A narrower tile: for attention, whose heads are two or four vectors of 16 wide, and for the columns that are left
# when the others are taken three vectors at a time. 14 rows would fit in 32 registers: they are no faster than 8, and
# take another third of a second to compile.
NARROW_VECTORS = 2
NARROW_NR = LANES * NARROW_VECTORS
NARROW_MR = min((REGISTERS - NARROW_VECTORS - _AHEAD) // NARROW_VECTORS, 8)  # 8, or 6
# Steps of k in one turn of the micro-kernel's loop, for the tallest tiles: counting and prefetching once for all.
UNROLL = 4 if REGISTERS == 32 else 8

# --- The cache blocks, and the accumulation block --------------------------------------------------------

# Rows of A that go through all panels of B before the next rows do. More mean fewer readings of the weights, but A is
# read from farther away: best from 108 to 117 on a Xeon with 2 MB of second-level cache, at 192 on a Zen 3 with 512 kB,
# and anything from 36 to 180 on a Zen 5 with 1 MB.
MC = 13 * MR if REGISTERS == 32 else 32 * MR
# The accumulation block: a sum over k is made in blocks of so many terms, which are then added up. A float32 sum of
# thousands of terms, one after the other, loses twice the digits; smaller blocks would be stored and loaded too often.
K_SUM = 128
# Steps of a panel that are done for all MC rows before the next ones, which are prefetched meanwhile: 147 kB in use and
# as much on its way. A whole panel of 3072 steps would be four times that, and push A out of the second-level cache.
KC = 6 * K_SUM
# Prefetch distances for a tile's own B. From the second-level cache, in bytes; 0 where the processor is in time by
# itself, as the 6 x 2 tile goes through B at two thirds of the pace.
PREFETCH_L1 = 1536 if REGISTERS == 32 else 0
# And from memory, in steps, for the first tile, for which no other can have prefetched: 200 nanoseconds with 9 rows,
# fewer with less. Where PREFETCH_L1 is 0 there is none.
PREFETCH_L2 = K_SUM // 2

# --- Attention -------------------------------------------------------------------------------------------

SOFTMAX_ROWS = (
    (8 if REGISTERS == 32 else 4) * LANES // SUM_LANES
)  # rows of scores that go through softmax together
QUERY_ROWS = 4 * NARROW_MR  # rows of scores that are in work at once
assert QUERY_ROWS % SOFTMAX_ROWS == 0


# --- Fewer bits ------------------------------------------------------------------------------------------

# Steps of a panel that are widened at a time: 48 kB. Sums of so many products of integers are exact in float32.
KC_NARROW = K_SUM
WIDEST = 4096  # the widest row that is made ready beside where it goes to: 16 kB
TILE = 16  # rows of a tile of the matrix unit (AMX), and words in each


# The numbers of which some processors of the level multiply whole tiles; and what `source.dot` does of `ARITHMETICS`.
TILES = {"x86-64-v4": ("int8", "bfloat16"), "aarch64": ("int8",)}.get(str(CHOSEN), ())
DOTS = {
    "x86-64-v4": ("int8 pairs", "int8 dot", "bfloat16 dot"),
    "x86-64-v3": ("int8 pairs", "int8 dot"),
    "x86-64-v2": ("int8 pairs",),
    "aarch64": ("int8 dot", "int8 tiles"),
}.get(str(CHOSEN), ())
OFFSET = 0 if IS_ARM else 128  # that is added to int8 of rows, which are unsigned on x86
# Of `operations.ARITHMETICS`: the first that is not widened to float32; and not by panels of vectors, into which ARM's
# tiles fit, but by wider ones.
PAIRS, FIRST_TILES = 3, 8 if IS_ARM else 6


def per_word(arithmetic: int) -> int:
    """Return how many numbers of a row are multiplied together, in a word of 32 bits; 1 where weights are widened."""
    return 1 if arithmetic < PAIRS else 4 if arithmetic > PAIRS and arithmetic % 2 else 2


def word_bytes(arithmetic: int) -> int:
    """Return how many bytes of a panel are multiplied together."""
    return 4 if arithmetic > PAIRS else 1 if arithmetic == 1 else 2


def words(K: int, arithmetic: int) -> int:
    """Return how many words K numbers take, rounded up to whole tiles; they are K where weights are widened."""
    together = TILE * (4 if arithmetic > PAIRS and arithmetic % 2 else 2)
    return K if arithmetic < PAIRS else (K + together - 1) // together * TILE


def row_bytes(width: int) -> int:
    """Return the leading dimension in bytes of rows of so many floats: an odd number of cache lines.

    The micro-kernel reads up to 9 rows of A side by side. The first-level cache has 64 sets of 8 or 12 lines, and the
    address of a line says which set it may be in, so lines that are a multiple of 4 KiB apart share one (*4 KiB
    aliasing*). Rows of 3072 floats, one after the other, are 12 KiB apart: all lines of a step would fall into one set
    and throw each other out. An odd distance spreads them over all sets.
    """
    return ((width * 4 + LINE - 1) // LINE | 1) * LINE


def count_panels(width: int) -> tuple[int, int]:
    """Return how many panels of NR columns a matrix so wide has, and how many with those of NARROW_NR that follow.

    Of four or more vectors, in threes and twos, none is wasted: 16 are 4 x 3 + 2 x 2.
    """
    vectors = (width + LANES - 1) // LANES
    wide = max(0, vectors - -vectors % VECTORS * NARROW_VECTORS) // VECTORS
    return wide, wide + (width - wide * NR + NARROW_NR - 1) // NARROW_NR


def start_of_panel(p: int, wide: int) -> int:
    """Return the first column of panel p, where so many are wide."""
    return min(p, wide) * NR + max(0, p - wide) * NARROW_NR


def columns_of_scores(columns: int) -> int:
    """Return how many columns rows of scores have whose panels have so many: whole vectors of SUM_LANES."""
    return (columns + SUM_LANES - 1) // SUM_LANES * SUM_LANES


def columns_of_values(K: int) -> int:
    """Return how many columns the panels of a head's values have, all of which are narrow."""
    return (K + NARROW_NR - 1) // NARROW_NR * NARROW_NR


def attention_room(T: int, K: int) -> int:
    """Return how many floats `attention.attend` needs beside its arguments, for T tokens and heads of width K."""
    wide, P = count_panels(T)
    keys, values = start_of_panel(P, wide), columns_of_values(K)
    inverses = -(-QUERY_ROWS // NARROW_NR) * NARROW_NR
    usual = keys * K + values * T + QUERY_ROWS * (columns_of_scores(keys) + values) + inverses
    return max(usual, _tiles_room(T, K)) if "bfloat16" in TILES else usual


def _tiles_room(T: int, K: int) -> int:
    """Return what `amx.attend_by_tiles` needs."""
    keys, columns, of_head = (-(-n // NARROW_NR) * NARROW_NR for n in (T, K, K))
    return (keys * of_head + keys * columns + 2 * TILE * (of_head + keys + keys)) // 2 + 2 * TILE * (
        keys + columns + 1
    )
