"""What `test_greenlets` runs in a process of its own, where a library has patched threads and locks."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np

import minisbert
from minisbert.engine.workers import Workers
from minisbert.kernels.runtime import helpers, native
from tests.conftest import DATA
from tests.support.backends import compiled
from tests.support.greenlets import Greenlets
from tests.support.teams import left_to_helpers, weights

TEXTS = [f"sentence {i} " + "word " * (i % 6) for i in range(200)]


def run(green: Greenlets, file: Path) -> None:
    """Check all; in the file are the vectors of TEXTS."""
    expected, encoder = np.load(file), minisbert.load(DATA / "tiny-bert", num_threads=2)
    helpers_are_threads_of_the_system()
    workers_are_threads_of_the_system()
    twenty_encode(green, encoder, expected)
    others_go_on_while_a_thread_encodes(green, encoder, expected)


def helpers_are_threads_of_the_system() -> None:
    """And so compute while this one waits for them, without giving greenlets a turn."""
    helpers.processors = lambda: 2  # also where there is only one
    packed, x = weights()
    with compiled.threads(2):
        np.testing.assert_array_equal(left_to_helpers(x, packed), compiled.linear(x, packed))


def workers_are_threads_of_the_system() -> None:
    with closing(Workers(2)) as workers:
        waits = [workers.submit(native.ident) for _ in range(2)]
        assert native.ident() not in [wait() for wait in waits]


def twenty_encode(green: Greenlets, encoder: minisbert.SentenceEncoder, expected: np.ndarray) -> None:
    def one(i: int) -> None:
        np.testing.assert_array_equal(encoder.encode(TEXTS[i]), expected[i])

    def all_(_: int) -> None:
        np.testing.assert_array_equal(encoder.encode(TEXTS), expected)

    for greenlet in [green.spawn((one, all_)[i % 2], i) for i in range(20)]:
        green.wait(greenlet)


def others_go_on_while_a_thread_encodes(
    green: Greenlets, encoder: minisbert.SentenceEncoder, expected: np.ndarray
) -> None:
    turns = 0

    def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            green.sleep(0)

    green.spawn(count)
    vectors = green.in_a_thread(lambda: encoder.encode(TEXTS * 10))
    np.testing.assert_array_equal(vectors, np.tile(expected, (10, 1)))
    assert turns > 10, turns
