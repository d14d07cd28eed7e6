"""The matrix multiply: weights packed once, then walked through by the tile of `minisbert.kernels.source.microkernel`.

The loop nest, outermost first::

    for each block of rows of A              at most BLOCK: 1.4 MB for the widest layer of BERT-base
        for each panel of B                  three vectors of columns, as a rule, packed: K x COLUMNS floats in a row
            for each chunk of k              at most CHUNK steps of a panel, as a rule: 147 kB
                for each tile of rows        at most ROWS
                    tile: for each k         in registers, PART steps at a time; bias and residual are added to the sums
                    the activation           on the tile just stored, which is still in the innermost cache

Why so: a chunk is used for every row of the block before the next one is touched, and stays in the second-level cache
meanwhile; so does the block of A, to which every panel comes back. The tile needs 192 bytes of B for 27 FMAs, 13.5
cycles: a quarter of what the second level delivers. The weights come through memory once for each block: for 117 rows
a few gigabytes a second, of the twenty that there are. Without blocks A would be read from the third level again for
each panel, where 512 rows of 3072 are 6 MB: a tenth of the speed was lost.

Memory takes some 400 cycles to answer, and is kept busy all the time: while the tiles of a block work on a chunk, each
asks for its share of the one that follows in memory. After the last chunk of a panel that is the next panel's first,
and after the last panel the next layer's, as a rule, for layers are packed in the order of their use. The first tile of
a chunk also asks for its own B, some way ahead: with few tiles not all of it is there.

Blocks of a matrix, and tiles of a block, are as even as they go: 10 rows are done as 5 + 5, not as 9 + 1. Any height
from 5 on keeps the FMA units busy, a height of 1 does not; and there is a tile for every height, so no row is computed
in vain. Nor is any vector of columns: where their number is no multiple of three, the last one or two panels are two
vectors wide, and have a tile of their own. Columns that do not fill a vector are computed (on zeros) and left out.
"""

from __future__ import annotations

from typing import Any

from minisbert.kernels.runtime.compiler import (
    count_panels,
    floats_at,
    kernel,
    part,
    row_bytes,
    scratch,
    start_of_panel,
)
from minisbert.kernels.source.microkernel import make_tile
from minisbert.kernels.source.vector import gelu, gelu_tanh, quick_gelu, relu, silu, tanh
from minisbert.kernels.tuning import (
    CHUNK,
    COLUMNS,
    EARLY,
    LANES,
    NARROW_COLUMNS,
    NARROW_ROWS,
    NARROW_VECTORS,
    NEAR,
    PART,
    ROWS,
    VECTORS,
)

_TILE = """
def {name}(height, a, a_step, b, steps, c, c_step, d, d_step, e, e_step, near, far, far_step):
    {chain}
"""


def tile_of_any_height(name: str, rows: int, vectors: int) -> Any:
    """Compile the tile of 1 to `rows` rows: a chain of ifs, as Numba can't index functions.

    It is a kernel of its own, so that its heights are not compiled into each of its callers.
    """
    call = "tile_{0}(a, a_step, b, steps, c, c_step, d, d_step, e, e_step, near, far, far_step)"
    heights = range(rows, 0, -1)
    chain = " ".join(
        f"\n    {'if' if h == rows else 'elif'} height == {h}: {call.format(h)}" for h in heights
    )
    scope = {f"tile_{h}": make_tile(h, vectors) for h in heights} | {"__name__": __name__}
    exec(_TILE.format(name=name, chain=chain.strip()), scope)
    return kernel(*["i8"] * 14)(scope[name])


tile = narrow_tile = tile_of_any_height("tile", ROWS, VECTORS)
if NARROW_VECTORS < VECTORS:
    narrow_tile = tile_of_any_height("narrow_tile", NARROW_ROWS, NARROW_VECTORS)


@part
def any_tile(is_wide: bool, given: Any) -> None:
    """Compute a tile of a wide or of a narrow panel, from a tuple of its arguments."""
    if is_wide:
        tile(given)
    else:
        narrow_tile(given)


LARGEST = max(ROWS * COLUMNS, NARROW_ROWS * NARROW_COLUMNS)
block, other_block = scratch(LARGEST), scratch(LARGEST)


@kernel("i8", "i8", "i8", "i8", "i8")
def activate(c: int, c_step: int, height: int, vectors: int, code: int) -> None:
    """Apply an activation in place to a tile: `height` rows of so many vectors at address c."""
    for i in range(height):
        for v in range(vectors):
            place = c + i * c_step + v * LANES * 4
            if code == 1:
                gelu(place)
            elif code == 2:
                gelu_tanh(place)
            elif code == 3:
                relu(place)
            elif code == 4:
                silu(place)
            elif code == 5:
                tanh(place)
            elif code == 6:
                quick_gelu(place)


@kernel(*["i8"] * 6)
def copy(a: int, a_step: int, b: int, b_step: int, height: int, width: int) -> None:
    """Copy a block of floats from address a to address b, the rows of which are so many bytes apart."""
    for i in range(height):
        source, target = floats_at(a + i * a_step), floats_at(b + i * b_step)
        for j in range(width):
            target[j] = source[j]


@kernel("i8", "i8")
def zero(a: int, count: int) -> None:
    """Write so many zeros to address a."""
    numbers = floats_at(a)
    for j in range(count):
        numbers[j] = 0


@kernel(*["i8"] * 10)
def multiply_panel(
    N: int, K: int, width: int, x: int, panel: int, bias: int, residual: int, activation: int, y: int, p: int
) -> None:
    """``y = activation(x @ weight.T + bias + residual)`` for the columns of panel p: (N, K) -> (N, its columns).

    All but the sizes are addresses, and rows stand `shape.row_bytes` apart. A residual at address 0 stands for none,
    and no layer has both that and an activation. The tiles of a panel that is not full are made beside y, and what
    counts of them is copied.
    """
    edge, beside = block(), other_block()
    wide, _ = count_panels(width)
    rows, vectors = (ROWS, VECTORS) if p < wide else (NARROW_ROWS, NARROW_VECTORS)
    x_step, step, b_step, left = row_bytes(K), row_bytes(width), vectors * LANES * 4, start_of_panel(p, wide)
    columns = min(vectors * LANES, width - left)
    is_full = columns == vectors * LANES
    tiles, chunk = (N + rows - 1) // rows, CHUNK
    if not is_full:
        chunk = K  # beside y is room for one tile, which must be finished there
    elif tiles <= 2:
        chunk = PART  # little is used twice: less to wait for at the start, a twentieth of a short sentence's time
    far, far_step = panel + min(chunk, K) * b_step, (b_step + tiles - 1) // tiles
    for k in range(0, K, chunk):
        steps, row = min(chunk, K - k), 0
        is_last = k + steps == K
        for t in range(tiles):
            height = (N - row) // (tiles - t)
            place = row * step + left * 4
            a, to, added = x + row * x_step + k * 4, y + place, residual + place
            c, c_step, e, e_step = to, step, added, step
            if not is_full:
                c, c_step, e, e_step = edge, b_step, beside, b_step
                if residual:
                    zero((beside, LARGEST))
                    copy((added, step, beside, b_step, height, columns))
            if residual == 0 or not is_last:
                e = 0
            d, d_step = (c, c_step) if k else (bias + left * 4, 0)
            b, near = panel + k * b_step, NEAR if t else EARLY * b_step
            given = height, a, x_step, b, steps, c, c_step, d, d_step, e, e_step, near, far, far_step
            any_tile(p < wide, given)
            if activation and is_last:
                activate((c, c_step, height, vectors, activation))
            if not is_full:
                copy((edge, b_step, to, step, height, columns))
            row, far = row + height, far + steps * far_step
