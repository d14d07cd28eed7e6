"""A whole model in one call: the same bits as operation by operation."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minisbert
from minisbert import model
from minisbert.checkpoint import modules
from minisbert.kernels import layout, select
from minisbert.kernels.compiled.plan import INPUTS, PER_SENTENCE, PER_TOKEN, Plan, Recorder, Value
from minisbert.kernels.operations import OPERATIONS
from minisbert.kernels.runtime import helpers
from minisbert.kernels.tuning import MC, row_bytes
from tests.conftest import DATA, TINY
from tests.support.backends import NAME, compiled

FOLDER = Path("a checkpoint")
MEAN, NORMALIZE = (
    (modules.Pooling(FOLDER, ("mean",), True), None),
    (modules.Normalize(FOLDER, modules.SENTENCE), None),
)
NORMALIZE_TOKENS = modules.Normalize(FOLDER, modules.TOKENS), None
STEPS = [(), (MEAN,), (MEAN, NORMALIZE), (NORMALIZE_TOKENS, MEAN, NORMALIZE)]


@pytest.fixture(scope="module", params=TINY)
def encoder(request: pytest.FixtureRequest) -> Any:
    return minisbert.load(DATA / request.param, backend="native")


def function(encoder: Any, steps: Any) -> Any:
    """Return what a plan is made of: the transformer alone, or with modules after it."""
    given = {"weights": encoder._weights, "config": encoder.config.transformer}
    if not steps:
        return partial(model.last_states, **given)
    return partial(model.sentence_vectors, **given, steps=steps)


def tokens(encoder: Any, lengths: list[int]) -> tuple[Any, Any, Any]:
    """Return ids, of which some are padding, types and offsets."""
    rng, config = np.random.default_rng(0), encoder.config.transformer
    ids = rng.integers(0, config.vocab_size, sum(lengths), np.int32)
    ids[::3] = config.pad_token_id
    types = rng.integers(0, max(config.type_vocab_size, 1), len(ids), np.int32)
    return ids, types, np.cumsum([0, *lengths])


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("lengths", [[1], [3, 0, 7], [11] * (1 + MC // 10)])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_plan_changes_no_bit(encoder: Any, lengths: list[int], threads: int, steps: Any) -> None:
    given = tokens(encoder, lengths)
    before = [array.copy() for array in given]
    whole = function(encoder, steps)
    plan, expected = compiled.record(whole), whole(*given, compiled)
    assert expected.shape[0] == (len(lengths) if steps else sum(lengths))
    with compiled.threads(threads):
        for _ in range(3):
            np.testing.assert_array_equal(plan(*given), expected)
    for array, copy in zip(given, before, strict=True):
        np.testing.assert_array_equal(array, copy)


MARK = np.float32(1.2345e30)


@pytest.mark.parametrize("lengths", [[0] * 200, [1], [3, 0, 7]])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_plan_stays_in_its_room_and_reads_nothing_old(
    encoder: Any, lengths: list[int], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, whole, rooms = tokens(encoder, lengths), function(encoder, (MEAN, NORMALIZE)), []
    plan, expected = compiled.record(whole), whole(*given, compiled)
    room_for = layout.room_for

    def marked(size: int) -> Any:
        rooms.append(room_for(size + 4096))
        rooms[-1][:size], rooms[-1][size:] = np.nan, MARK
        return rooms[-1][:size]

    monkeypatch.setattr(layout, "room_for", marked)
    with compiled.threads(threads):
        np.testing.assert_array_equal(plan(*given), expected)
        whole(*given, compiled)
    assert len(rooms) > len(encoder._weights.layers)  # the plan's, and those of attention step by step
    for room in rooms:
        assert (room[-4096:] == MARK).all()


def test_a_signal_may_encode_something_else_before_a_program_begins(
    encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan(function(encoder, (MEAN, NORMALIZE)), compiled._kernels)
    short, long = tokens(encoder, [3]), tokens(encoder, [20, 30])
    expected, queue, nested = plan.replay(*short), helpers._queue, []

    def interrupted() -> Any:
        if not nested:
            nested.append(None)
            plan.replay(*long)
        return queue()

    monkeypatch.setattr(helpers, "_queue", interrupted)
    np.testing.assert_array_equal(plan.replay(*short), expected)
    assert nested


@pytest.mark.parametrize("steps", STEPS)
def test_no_tokens_at_all(encoder: Any, steps: Any) -> None:
    nothing = np.empty(0, np.int32)
    found = compiled.record(function(encoder, steps))(nothing, nothing, np.array([0, 0]))
    assert found.shape == (1 if steps else 0, encoder.config.transformer.hidden_size)
    assert not found.any()


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_a_table_of_words_of_another_dtype(encoder: Any, dtype: str) -> None:
    weights, config = encoder._weights, encoder.config.transformer
    other = weights.embeddings._replace(word=weights.embeddings.word.astype(dtype))
    whole = partial(model.last_states, weights=weights._replace(embeddings=other), config=config)
    given = tokens(encoder, [4, 2])
    np.testing.assert_array_equal(compiled.record(whole)(*given), whole(*given, compiled))


@pytest.mark.parametrize("dtype", ["bfloat16", "int8"])
def test_layer_norms_make_rows_ready_to_be_multiplied(encoder: Any, dtype: str) -> None:
    narrow = minisbert.load(encoder.path, backend=NAME, dtype=dtype)
    kernels: Any = select(NAME, dtype)
    given, whole, recorder = tokens(narrow, [3, 0, 40]), function(narrow, (MEAN, NORMALIZE)), Recorder()
    np.testing.assert_array_equal(kernels.record(whole)(*given), whole(*given, kernels))
    whole(*INPUTS, recorder)
    left = [step for step in recorder.steps if step[0] == OPERATIONS["narrow"].code]
    projections = (
        narrow._weights.embeddings.projection is not None
    )  # reads a norm, and the first layer reads it
    assert (
        len(left) == 2 * len(narrow._weights.layers) + projections
    )  # of attention's results, and hidden ones


@pytest.mark.parametrize("steps", STEPS)
def test_no_result_overwrites_one_that_is_still_read(encoder: Any, steps: Any) -> None:
    recorder: Any = Recorder()
    whole = function(encoder, steps)
    y = whole(*INPUTS, recorder)
    plan = Plan(whole, compiled._kernels)
    before = 3 + (encoder._weights.embeddings.projection is not None)
    layers = 7 * len(encoder._weights.layers)
    assert len(recorder.steps) == len(plan.table) == before + layers + len(steps)
    arena, count = 1 << 40, {PER_TOKEN: 10, PER_SENTENCE: 3}
    sentence_arena = arena + 4 * count[PER_TOKEN] * plan.arena_width[PER_TOKEN]
    values = np.array(
        [0, count[PER_TOKEN], 1, count[PER_SENTENCE], *range(-4, 0), arena, sentence_arena, *range(-8, -4)]
    )
    constant, times, base, by = np.moveaxis(plan.table, -1, 0)
    numbers = constant + values[base] + times * values[by]
    end = arena + 4 * sum(count[of] * plan.arena_width[of] for of in count)
    # Of each result that is still read: its first byte and the one after.
    held: dict[Value, tuple[int, int]] = {}
    uses = [
        [v for v in step if isinstance(v, Value) and not v.variable and v is not y] for step in recorder.steps
    ]
    for i, (step, found) in enumerate(zip(recorder.steps, numbers, strict=True)):
        for value, number in zip(step, found, strict=True):
            if isinstance(value, Value) and not value.variable and value is not y:
                place = int(number), int(number) + 4 * count[value.of] * value.width
                assert arena <= place[0] < place[1] <= end
                assert held.setdefault(value, place) == place
        places = sorted(held.values())
        assert all(stop <= start for (_, stop), (start, _) in pairwise(places))
        later = {v for some in uses[i + 1 :] for v in some}
        held = {value: place for value, place in held.items() if value in later}


def test_memory_does_not_grow_with_the_layers(encoder: Any) -> None:
    config = encoder.config.transformer
    D, F = (row_bytes(width) // 4 for width in (config.hidden_size, config.intermediate_size))
    plan = Plan(function(encoder, (MEAN, NORMALIZE)), compiled._kernels)
    assert plan.arena_width[PER_TOKEN] <= 6 * D + F
    assert plan.arena_width[PER_SENTENCE] <= D


def test_a_multiply_with_an_activation_and_a_residual_is_refused() -> None:
    dense = compiled.pack(np.eye(4), np.zeros(4), "float32")
    x: Any = Value(PER_TOKEN, 4)
    with pytest.raises(ValueError, match="an activation or a residual, not both"):
        Recorder().linear(x, dense, "gelu", x)
