"""float16, bfloat16 and int8: each arithmetic against its definition, int8 bit for bit."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minisbert
from minisbert.kernels import select, tuning
from minisbert.kernels.compiled import arithmetic as choice
from minisbert.kernels.compiled.packing import Packed, packed_narrow
from minisbert.kernels.reference import narrow
from minisbert.kernels.reference import ops as reference
from tests.conftest import DATA, largest
from tests.support import texts
from tests.support.backends import ARITHMETICS_HERE, NAME, compiled

DTYPES = ("float16", "bfloat16", "int8")


SHAPES = [(384, 96), (75, 31), (33, 300), (1, 1), (96, 384), (40, 256), (31, 2048), (100, 1536)]
ROWS = (1, 2, 9, 16, 17, 31, 33, tuning.MC, tuning.MC + 1, 2 * tuning.MC + 5)


def random(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def uneven(N: int, K: int) -> Any:
    """Rows as a transformer has them: a few channels are tens of times as large as the others."""
    x = random(N, K, seed=1)
    x[:, ::37] *= 30
    return x


def dtype_of(arithmetic: str) -> str:
    return arithmetic.partition(" ")[0]


@pytest.mark.parametrize(("width", "depth"), SHAPES)
@pytest.mark.parametrize("arithmetic", ARITHMETICS_HERE)
def test_linear_is_what_is_defined(arithmetic: str, width: int, depth: int) -> None:
    dtype = dtype_of(arithmetic)
    weight, bias = uneven(width, depth) / np.float32(np.sqrt(depth)), random(width)
    packed, defined = packed_narrow(weight, bias, dtype, arithmetic), reference.pack(weight, bias, dtype)
    for rows in ROWS:
        x, residual = uneven(rows, depth), random(rows, width, seed=2)
        found, expected = compiled.linear(x, packed), reference.linear(x, defined)
        if dtype == "int8":
            np.testing.assert_array_equal(found, expected)
            np.testing.assert_array_equal(
                compiled.linear(x, packed, residual=residual), reference.linear(x, defined, residual=residual)
            )
        tolerance = 1e-6 * max(1.0, largest(expected)) * np.sqrt(depth)
        assert largest(found - expected) <= tolerance
        for activation, added in (("gelu", None), (None, residual)):
            expected = reference.linear(x, defined, activation, added)
            assert largest(compiled.linear(x, packed, activation, added) - expected) <= tolerance


@pytest.mark.parametrize("arithmetic", ARITHMETICS_HERE)
def test_a_row_does_not_depend_on_the_others(arithmetic: str) -> None:
    weight, bias = random(75, 300), random(75)
    packed = packed_narrow(weight, bias, dtype_of(arithmetic), arithmetic)
    x = random(70, 300, seed=1)
    together = compiled.linear(x, packed, "gelu")
    for first, count in itertools.product(range(0, 64, 3), (1, 2, 5)):
        rows = slice(first, first + count)
        np.testing.assert_array_equal(compiled.linear(x[rows], packed, "gelu"), together[rows])
    with compiled.threads(4):
        for _ in range(20):
            np.testing.assert_array_equal(compiled.linear(x, packed, "gelu"), together)


def test_all_arithmetics_of_integers_give_the_same_bits() -> None:
    weight, bias, x = uneven(384, 1536), random(384), uneven(100, 1536)
    names = [name for name in ARITHMETICS_HERE if dtype_of(name) == "int8"]
    first, *others = (compiled.linear(x, packed_narrow(weight, bias, "int8", name)) for name in names)
    for other in others:
        np.testing.assert_array_equal(other, first)


def special_rows(K: int) -> Any:
    x = random(12, K)
    x[0] = 0
    x[1] = 1e-31
    x[2, 3] = np.nan
    x[3, K - 1] = np.inf
    x[4, 0] = -np.inf
    x[5] = 3e38 / 128  # the largest that can be rotated
    x[6] = -0.0
    x[7] = np.float32(1.1754944e-38)
    x[8, 1:] = 0
    return x


@pytest.mark.parametrize("arithmetic", [name for name in ARITHMETICS_HERE if dtype_of(name) == "int8"])
@pytest.mark.parametrize("K", [128, 200])
def test_rows_of_zeros_and_of_what_is_not_finite(arithmetic: str, K: int) -> None:
    weight, bias, x = random(40, K), random(40), special_rows(K)
    packed, defined = packed_narrow(weight, bias, "int8", arithmetic), reference.pack(weight, bias, "int8")
    with np.errstate(invalid="ignore", over="ignore"):
        expected = reference.linear(x, defined)
    np.testing.assert_array_equal(compiled.linear(x, packed), expected)
    assert np.isnan(expected[[2, 3, 4]]).all()
    np.testing.assert_array_equal(expected[[0, 1, 6]], np.tile(bias, (3, 1)))


def test_the_largest_integers_are_exact() -> None:
    """Every product is 127 * 127: the sums are the largest that there are."""
    K = 2048
    q, s = np.full((3, K), 127, np.int8), np.ones(3, np.float32)
    exact = narrow.multiply_integers(q, s, q, s, np.zeros(3, np.float32))
    assert (exact == 127 * 127 * K).all()
    # A row of equal numbers is rotated to one number a block: its neighbours are zeros.
    x = np.ones((5, K), np.float32)
    dense = reference.pack(x[:3], np.zeros(3), "int8")
    for name in ARITHMETICS_HERE:
        if dtype_of(name) == "int8":
            packed = packed_narrow(x[:3], np.zeros(3), "int8", name)
            np.testing.assert_array_equal(compiled.linear(x, packed), reference.linear(x, dense))


@pytest.mark.parametrize("K", [1, 6, 8, 64, 96, 128, 312, 384])
def test_rotating_keeps_lengths_and_products(K: int) -> None:
    x, w = random(7, K).astype(np.float64), random(5, K, seed=1).astype(np.float64)
    rotated, B = narrow.rotate(x)
    np.testing.assert_allclose(rotated @ narrow.rotate(w)[0].T / B, x @ w.T, atol=1e-12 * K)
    again, _ = narrow.rotate(rotated)
    np.testing.assert_allclose(again / B, x, atol=1e-12)


def test_rotating_leaves_what_is_given() -> None:
    x = random(1, 128)
    kept = x.copy()
    narrow.rotate(x)
    np.testing.assert_array_equal(x, kept)


def test_rounding_to_bfloat16() -> None:
    x = np.array(
        [1, 1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8 - 2**-20, 3.4e38, np.inf, -np.inf, 0, 1e-40], np.float32
    )
    found = narrow.to_bfloat16(x)
    assert not (found.view(np.uint32) & 0xFFFF).any()
    expected = [1, 1, 1 + 2**-6, -1 - 2**-7, np.inf, np.inf, -np.inf, 0]
    np.testing.assert_array_equal(found[:-1], np.array(expected, np.float32))
    assert np.isnan(narrow.to_bfloat16(np.array([np.nan], np.float32))).all()


@pytest.mark.skipif(
    not choice.has_tiles("bfloat16"), reason="this processor has no matrix unit, or the system keeps it"
)
@pytest.mark.parametrize("lengths", [[1], [14] * 3, [1, 2, 15, 16, 17, 31, 32, 33], [230], [5, 100, 0, 7]])
@pytest.mark.parametrize(("D", "heads"), [(384, 12), (768, 12), (128, 2), (60, 5)])
@pytest.mark.parametrize("has_bias", [False, True])
def test_attention_of_bfloat16(D: int, heads: int, lengths: list[int], has_bias: bool) -> None:
    backend: Any = select(NAME, "bfloat16")
    assert backend.attention_operation == "attention_tiles"
    offsets = np.cumsum([0, *lengths])
    qkv, bias = random(int(offsets[-1]), 3 * D), random(heads, 1023, seed=1) if has_bias else None
    expected = narrow.attention(qkv, offsets, heads, bias)
    found = backend.attention(qkv, offsets, heads, bias)
    # A power within a rounding of float32 of the middle between two bfloat16 may be rounded to either.
    assert largest(found - expected) <= 2.0**-8
    assert np.abs(found - expected).mean() <= 2e-5
    for s, (start, stop) in enumerate(itertools.pairwise(offsets)):
        alone = backend.attention(qkv[start:stop], np.array([0, lengths[s]]), heads, bias)
        np.testing.assert_array_equal(alone, found[start:stop])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["tiny-bert", "tiny-electra", "tiny-mpnet", "tiny-roberta"])
def test_vectors_are_near_those_of_float32_and_alike_in_any_batch(name: str, dtype: str) -> None:
    some = texts.all_texts()[::9]
    exact = minisbert.load(DATA / name, backend=NAME).encode(
        some, truncation="silent", normalize_embeddings=True
    )
    encoder = minisbert.load(DATA / name, backend=NAME, dtype=dtype, num_threads=3)
    assert encoder.dtype == dtype
    found = encoder.encode(some, truncation="silent", normalize_embeddings=True)
    assert found.dtype == np.float32
    assert (1 - (found * exact).sum(axis=1)).mean() <= {"float16": 1e-6, "bfloat16": 1e-4, "int8": 1e-2}[
        dtype
    ]
    for row in range(0, len(some), 5):
        alone = encoder.encode(some[row], truncation="silent", normalize_embeddings=True)
        np.testing.assert_array_equal(alone, found[row])


# Measured on twelve hundred texts: 1.2e-7, 1.2e-5 and 3.5e-4.
MEAN = {"float16": 5e-7, "bfloat16": 2e-5, "int8": 5e-4}
WORST = {"float16": 2e-6, "bfloat16": 1e-4, "int8": 3e-3}


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_fewer_bits_cost_on_a_real_checkpoint(minilm: Path, dtype: str) -> None:
    some = [text[:400] for text in texts.all_texts()[::3]]
    exact = minisbert.load(minilm, backend=NAME).encode(some, truncation="silent").astype(np.float64)
    found = minisbert.load(minilm, backend=NAME, dtype=dtype).encode(some, truncation="silent")
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(exact, axis=1)
    cost = 1 - (found * exact).sum(axis=1) / lengths
    print(f"\n{dtype}: 1 - cos {cost.mean():.2e} in the mean, {cost.max():.2e} at worst")
    assert cost.mean() <= MEAN[dtype]
    assert cost.max() <= WORST[dtype]


def test_an_encoder_says_how_it_computes() -> None:
    for dtype in ("float32", "float16", "float64"):
        assert minisbert.load(DATA / "tiny-bert", dtype=dtype).arithmetic == dtype.replace("16", "32")
    wide = {"bfloat16": "float32", "int8": "float32"}
    for dtype, widened in wide.items():
        found = minisbert.load(DATA / "tiny-bert", backend=NAME, dtype=dtype).arithmetic
        assert found in (widened, f"{dtype}, by a matrix unit", f"{dtype}, by sums of products")
        assert (found == widened) == (choice.arithmetic(dtype, 64) == dtype)


def test_weights_take_fewer_bytes() -> None:
    weight, bias = random(384, 384), random(384)
    sizes = {dtype: _bytes(compiled.pack(weight, bias, dtype)) for dtype in ("float32", *DTYPES)}
    assert sizes["float16"] == sizes["bfloat16"] == sizes["float32"] // 2
    assert sizes["int8"] == sizes["float32"] // 4


def _bytes(packed: Packed) -> int:
    return int(packed.panels.nbytes)


V4, V3, ARM = "x86-64-v4", "x86-64-v3", "aarch64"
VNNI, BF16 = {"AVX512VNNI"}, {"AVX512VNNI", "AVX512BF16"}
AMX, I8MM = {"int8", "bfloat16"}, {"int8"}  # of which there are tiles


@pytest.mark.parametrize(
    ("level", "tiles", "found", "bfloat16", "int8"),
    [
        (V4, AMX, BF16, "bfloat16 tiles", "int8 tiles"),
        (V4, set(), BF16, "bfloat16 dot", "int8 dot"),  # Zen 4
        (V4, set(), BF16 | {"AVX512FP16"}, "bfloat16", "int8 dot"),  # Sapphire Rapids, no leave
        (V4, set(), VNNI, "bfloat16", "int8 dot"),  # Ice Lake
        (V4, set(), {"AVX512F"}, "bfloat16", "int8 pairs"),  # Skylake
        (V3, set(), {"avx_vnni"}, "bfloat16", "int8 dot"),  # Alder Lake
        (V3, set(), BF16, "bfloat16", "int8 pairs"),
        (ARM, I8MM, {"ASIMDDP"}, "bfloat16", "int8 tiles"),  # Graviton 3
        (ARM, set(), {"ASIMDDP"}, "bfloat16", "int8 dot"),  # Graviton 2
        (ARM, set(), {"ASIMD"}, "bfloat16", "int8"),  # Graviton
        ("x86-64-v2", set(), BF16, "bfloat16", "int8 pairs"),
        (None, set(), BF16, "bfloat16", "int8"),
    ],
)
def test_the_best_instructions_of_a_processor_are_chosen(
    level: str | None,
    tiles: set[str],
    found: set[str],
    bfloat16: str,
    int8: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choice, "CHOSEN", level)
    monkeypatch.setattr(choice, "has_tiles", lambda dtype: dtype in tiles)
    monkeypatch.setattr(choice, "features", lambda: frozenset(found - {"avx_vnni"}))
    monkeypatch.setattr(choice, "_flags", lambda: frozenset(found & {"avx_vnni"}))
    assert [choice.arithmetic(dtype, 384) for dtype in DTYPES] == ["float16", bfloat16, int8]
    assert choice.arithmetic("int8", tuning.WIDEST + 1) == "int8"
    assert choice.arithmetic("float32", 384) == "float32"


def tell_of_processor(monkeypatch: pytest.MonkeyPatch, line: str, found: set[str]) -> None:
    """Have Linux tell this of it, and NumPy that."""
    monkeypatch.setattr(Path, "read_text", lambda _: f"processor\t: 0\n{line}\n\nprocessor\t: 1\n{line}\n")
    monkeypatch.setattr(choice, "_flags", choice._flags.__wrapped__)
    monkeypatch.setattr(choice, "features", lambda: frozenset(found))


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("Features\t: fp asimd asimddp sve i8mm bf16", True),  # Graviton 3, as Linux tells it
        ("Features\t: fp asimd asimddp", False),  # Graviton 2
        ("flags\t\t: fpu sse2 avx512_bf16", False),
    ],
)
def test_tiles_of_arm_are_found(line: str, found: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    tell_of_processor(monkeypatch, line, set())
    monkeypatch.setattr(choice, "IS_ARM", True)
    monkeypatch.setattr(choice, "TILES", ("int8",))
    assert choice.has_tiles.__wrapped__("int8") == found
    assert not choice.has_tiles.__wrapped__("bfloat16")


@pytest.mark.parametrize(
    ("line", "numpy_s", "found"),
    [
        ("flags\t\t: fpu avx2 avx_vnni", {"AVX2"}, True),  # Alder Lake
        ("flags\t\t: fpu avx2 avx512f avx_vnni", {"AVX2"}, False),  # of an emulator's host
        ("flags\t\t: fpu avx2", {"AVX2"}, False),
    ],
)
def test_avx_vnni_is_found(
    line: str, numpy_s: set[str], found: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    tell_of_processor(monkeypatch, line, numpy_s)
    monkeypatch.setattr(choice, "CHOSEN", V3)
    assert choice.has_dots("int8") == found
