"""The matrix multiply: weights packed once, then walked through by the micro-kernel.

The loop nest, outermost first. The two outer loops are units of the work queue (`workqueue.linear`); unlike BLIS,
which has the KC loop outside, each panel is finished before the next begins::

    for each MC rows of A                    so many: 1.4 MB for the widest layer of BERT-base
        for each panel of B                  NR columns, packed: K x NR floats in a row
            for each KC steps of k           147 kB of the panel
                for each MR rows             micro-tiles
                    micro-kernel: each k     in registers, K_SUM steps at a time; bias and residual join the sums
                    the activation           on the micro-tile just stored, which is still in the first-level cache

Why so: KC steps of a panel are used by all MC rows before the next KC are touched, and stay in the second-level cache
meanwhile. The MC rows of A stay there too: every panel reads them again. The micro-kernel needs 192 bytes of B for 27
FMAs, 13.5 cycles: a quarter of what the second level delivers. The weights are read from memory once for every MC rows:
for 117 rows a few gigabytes a second, where the machine has twenty. Without MC, 512 rows of 3072 floats (6 MB) would be
read from the third level for each panel: 10 % slower.

Memory takes some 400 cycles to answer, and is kept busy all the time: while the micro-tiles work on KC steps, each
prefetches its share of what follows in memory. After the last KC of a panel that is the next panel's first, and after
the last panel the next layer's, as a rule, for layers are packed in the order of their use. The first micro-tile also
prefetches its own B, some way ahead: the shares of few micro-tiles do not cover all of it.

Rows are divided as evenly as they go: 10 are done as 5 + 5, not as 9 + 1. Any height from 5 on keeps the FMA units
busy, a height of 1 does not; and there is a micro-kernel for every height, so no row is computed in vain. Nor is any
vector of columns: where their number is no multiple of VECTORS, the last one or two panels are narrow, and have a
micro-kernel of their own. Columns that do not fill a vector are computed (on zeros) and left out.
"""

from __future__ import annotations

from typing import Any

from minisbert.kernels.operations import ACTIVATION_CODES
from minisbert.kernels.runtime.compiler import (
    branch,
    count_panels,
    floats_at,
    inlined,
    kernel,
    row_bytes,
    scratch,
    start_of_panel,
)
from minisbert.kernels.source import vector
from minisbert.kernels.source.microkernel import make_microkernel
from minisbert.kernels.tuning import (
    K_SUM,
    KC,
    LANES,
    MR,
    NARROW_MR,
    NARROW_NR,
    NARROW_VECTORS,
    NR,
    PREFETCH_L1,
    PREFETCH_L2,
    VECTORS,
)


def microkernel_of_any_height(name: str, rows: int, vectors: int) -> Any:
    """Compile the micro-kernels of 1 to `rows` rows.

    They are one kernel: otherwise each caller would contain a copy of every height.
    """
    given = "a, a_step, b, steps, c, c_step, d, d_step, e, e_step, ahead, later, later_step"
    heights = {h: make_microkernel(h, vectors) for h in range(rows, 0, -1)}
    calls = {h: f"height_{h}({given})" for h in heights}
    scope = {f"height_{h}": function for h, function in heights.items()}
    return kernel(*["i8"] * 14)(branch(name, f"height, {given}", calls, scope))


wide_microkernel = narrow_microkernel = microkernel_of_any_height("wide_microkernel", MR, VECTORS)
if NARROW_VECTORS < VECTORS:
    narrow_microkernel = microkernel_of_any_height("narrow_microkernel", NARROW_MR, NARROW_VECTORS)


@inlined
def microkernel(is_wide: bool, given: Any) -> None:
    """Compute a micro-tile of a wide or of a narrow panel, from a tuple of its arguments."""
    if is_wide:
        wide_microkernel(*given)
    else:
        narrow_microkernel(*given)


LARGEST = max(MR * NR, NARROW_MR * NARROW_NR)
edge_tile, edge_residual = scratch(LARGEST), scratch(LARGEST)


CALLS = {code: f"{name}(place)" for name, code in ACTIVATION_CODES.items()}
activate_vector = inlined(branch("activate_vector", "code, place", CALLS, vars(vector)))


@kernel("i8", "i8", "i8", "i8", "i8")
def activate(c: int, c_step: int, height: int, vectors: int, code: int) -> None:
    """Apply an activation in place to a micro-tile: `height` rows of so many vectors at address c."""
    for i in range(height):
        for v in range(vectors):
            activate_vector(code, c + i * c_step + v * LANES * 4)


@kernel(*["i8"] * 6)
def copy(a: int, a_step: int, b: int, b_step: int, height: int, width: int) -> None:
    """Copy `height` rows of `width` floats from address a to address b; rows are a_step and b_step bytes apart."""
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

    All but the sizes are addresses, and rows stand `tuning.row_bytes` apart. A residual at address 0 stands for none;
    a call has that or an activation, never both. Micro-tiles of a panel that is not full are made in `edge`, and the
    columns that count are copied to y.
    """
    edge, beside = edge_tile(), edge_residual()
    wide, _ = count_panels(width)
    rows, vectors = (MR, VECTORS) if p < wide else (NARROW_MR, NARROW_VECTORS)
    x_step, step, b_step, left = row_bytes(K), row_bytes(width), vectors * LANES * 4, start_of_panel(p, wide)
    columns = min(vectors * LANES, width - left)
    is_full = columns == vectors * LANES
    tiles, kc = (N + rows - 1) // rows, KC
    if not is_full:
        kc = K  # `edge` has room for one micro-tile, which must be finished there
    elif tiles <= 2:
        kc = K_SUM  # B is hardly reused, and a short first step starts sooner: 5 % of a short sentence's time
    later, later_step = panel + min(kc, K) * b_step, (b_step + tiles - 1) // tiles
    k = 0
    while k < K:  # not a range with such a step, which would raise an exception for 0
        steps, row = min(kc, K - k), 0
        is_last = k + steps == K
        for t in range(tiles):
            height = (N - row) // (tiles - t)
            place = row * step + left * 4
            a, to, added = x + row * x_step + k * 4, y + place, residual + place
            c, c_step, e, e_step = to, step, added, step
            if not is_full:
                c, c_step, e, e_step = edge, b_step, beside, b_step
                if residual:
                    zero(beside, LARGEST)
                    copy(added, step, beside, b_step, height, columns)
            if residual == 0 or not is_last:
                e = 0
            d, d_step = (c, c_step) if k else (bias + left * 4, 0)
            b, ahead = panel + k * b_step, PREFETCH_L1 if t else PREFETCH_L2 * b_step
            given = height, a, x_step, b, steps, c, c_step, d, d_step, e, e_step, ahead, later, later_step
            microkernel(p < wide, given)
            if activation and is_last:
                activate(c, c_step, height, vectors, activation)
            if not is_full:
                copy(edge, b_step, to, step, height, columns)
            row, later = row + height, later + steps * later_step
        k += kc
