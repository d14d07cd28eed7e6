"""Where the kernels' numbers stand: rows at odd distances, from the start of a cache line."""

from __future__ import annotations

import weakref
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from minisbert.kernels import layout
from minisbert.kernels.tuning import LINE, row_bytes
from tests.conftest import in_threads
from tests.support.backends import compiled
from tests.support.environment import PATIENCE

WIDTHS = [1, 15, 16, 17, 384, 400, 768, 1024, 3072]


@pytest.mark.parametrize("width", WIDTHS)
def test_rows_stand_an_odd_number_of_cache_lines_apart(width: int) -> None:
    lines, rest = divmod(row_bytes(width), LINE)
    assert rest == 0
    assert lines % 2 == 1
    assert width * 4 <= row_bytes(width) < width * 4 + 2 * LINE
    x = layout.rows(3, width)
    assert x.shape == (3, width)
    assert x.ctypes.data % LINE == 0
    assert layout.is_laid_out(x)
    assert layout.is_laid_out(x[1:])


def test_other_arrays_are_not_taken_for_such_rows() -> None:
    x = layout.rows(4, 20)
    others: list[Any] = [
        x.copy(),
        x[::2],
        x[:, ::2],
        x.astype(np.float64),
        x[:, :5],
        np.zeros((4, 5), np.float32),
    ]
    assert not any(map(layout.is_laid_out, others))
    for other in others:  # whatever its layout, it is read as what it is
        other[:] = np.arange(other.size).reshape(other.shape)
        np.testing.assert_array_equal(layout.laid_out("rows", other), other)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_layout_changes_no_bit(width: int) -> None:
    plain = np.random.default_rng(width).standard_normal((5, width)).astype(np.float32)
    laid_out = layout.rows(5, width)
    laid_out[:] = plain
    packed = compiled.pack(np.ones((3, width)), np.zeros(3), "float32")
    np.testing.assert_array_equal(compiled.linear(plain, packed), compiled.linear(laid_out, packed))
    ends = np.array([0, 2, 5])
    np.testing.assert_array_equal(compiled.pool(plain, ends, "mean"), compiled.pool(laid_out, ends, "mean"))
    norm = np.ones(width, np.float32), np.zeros(width, np.float32), 1e-5
    np.testing.assert_array_equal(compiled.layer_norm(plain, *norm), compiled.layer_norm(laid_out, *norm))


def test_weights_are_zeros_from_the_start_of_a_line_and_no_two_share_one() -> None:
    taken = [layout.for_weights(size) for size in (1, 15, 16, 17, 100)]
    assert all(part.ctypes.data % LINE == 0 for part in taken)
    assert not any(part.any() for part in taken)
    for part in taken:
        part[:] = 1
    assert not layout.for_weights(50).any()


def test_a_block_goes_with_the_last_weights_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "_pools", [])
    first = layout.for_weights(50)
    second = layout.for_weights(50)
    assert second.base is first.base
    block = weakref.ref(first.base)
    del first
    assert block() is not None
    del second
    assert block() is None


def test_threads_that_take_room_for_weights_at_once_get_none_of_another_s() -> None:
    taken: list[Any] = []
    in_threads(
        6, lambda: taken.extend(layout.for_weights(size) for size in range(1, 400)), timeout=60 * PATIENCE
    )
    places = sorted((part.ctypes.data, part.nbytes) for part in taken)
    assert all(start + size <= following for (start, size), (following, _) in pairwise(places))
