"""All layers in one call: the same bits as operation by operation."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import minisbert
from conftest import DATA, TINY
from minisbert import model

pytest.importorskip("numba", reason="numba is not installed, so there are no programs to test")

from minisbert.kernels import jit
from minisbert.kernels.program import OFFSETS, Program, Value, Writer
from minisbert.kernels.shape import BLOCK, row_bytes


@pytest.fixture(scope="module", params=TINY)
def encoder(request: pytest.FixtureRequest) -> Any:
    return minisbert.load(DATA / request.param, backend="numba")


@pytest.mark.parametrize("lengths", [[1], [3, 0, 7], [11] * (1 + BLOCK // 10)])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_program_changes_no_bit(encoder: Any, lengths: list[int], threads: int) -> None:
    offsets = np.cumsum([0, *lengths])
    config = encoder.config.transformer
    x = np.random.default_rng(0).standard_normal((offsets[-1], config.embedding_size)).astype(np.float32)
    before = x.copy()
    expected = model.last_layer(x, offsets, jit, encoder._weights, config)
    with jit.threads(threads):
        for _ in range(3):
            np.testing.assert_array_equal(encoder._layers(x, offsets), expected)
    np.testing.assert_array_equal(x, before)


def test_no_tokens_at_all(encoder: Any) -> None:
    config = encoder.config.transformer
    nothing = np.empty((0, config.embedding_size), np.float32)
    assert encoder._layers(nothing, np.array([0, 0])).shape == (0, config.hidden_size)


def test_no_result_overwrites_one_that_is_still_read(encoder: Any) -> None:
    config = encoder.config.transformer
    writer: Any = Writer()
    x = Value(config.embedding_size)
    y = model.last_layer(x, OFFSETS, writer, encoder._weights, config)
    layers = encoder._weights.layers
    program = Program(
        lambda *given: model.last_layer(*given, encoder._weights, config), config.embedding_size
    )
    before = 1 + (encoder._weights.embeddings.projection is not None)
    assert len(writer.jobs) == len(program.table) == before + 7 * len(layers)
    arena, rows = 1 << 40, 10
    variables = (1, rows, 1, 1, arena, -1, -2, -3, -4, -5)
    widths = {id(v): v.width for job in writer.jobs for v in job if isinstance(v, Value)}
    held: dict[
        int, tuple[int, int]
    ] = {}  # of each result that is still read: its first byte and the one after
    uses = [[v for v in job if isinstance(v, Value) and v not in (x, y)] for job in writer.jobs]
    for i, (job, found) in enumerate(zip(writer.jobs, program.table @ variables, strict=True)):
        for argument, number in zip(job, found, strict=True):
            if isinstance(argument, Value) and argument not in (x, y):
                place = int(number), int(number) + 4 * rows * widths[id(argument)]
                assert arena <= place[0] < place[1] <= arena + 4 * rows * program.arena_width
                assert held.setdefault(id(argument), place) == place
        places = sorted(held.values())
        assert all(stop <= start for (_, stop), (start, _) in pairwise(places))
        later = {id(v) for some in uses[i + 1 :] for v in some}
        held = {key: place for key, place in held.items() if key in later}


def test_memory_does_not_grow_with_the_layers(encoder: Any) -> None:
    config = encoder.config.transformer
    D, F = (row_bytes(width) // 4 for width in (config.hidden_size, config.intermediate_size))
    assert encoder._layers.args[0].arena_width <= 6 * D + F
