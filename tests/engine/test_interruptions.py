"""Time limits that strike at any moment: the exception that a signal's handler raises comes out as it is."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minisbert
from tests.support.commandline import posix

MOMENTS = 25  # at which each kind of call is interrupted
LONG = "many words and more " * 10_000
# Where the handler happens to run inside of a callback of a weak reference, or of the collector, Python itself can only
# tell of its exception: then the call goes on.
pytestmark = [posix, pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")]


class SoftTimeLimit(Exception):
    """As celery's and rq's."""


class HardTimeLimit(BaseException):
    """As dramatiq's, which is no Exception so that nobody catches it by mistake."""


@contextmanager
def limit(kind: type[BaseException], seconds: float) -> Iterator[None]:
    """Raise an exception of a kind after so many seconds, wherever this thread is by then."""

    def strike(number: int, frame: Any) -> None:
        raise kind("time is up")

    before = signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def interrupted(kind: type[BaseException], call: Callable[[], object], check: Callable[[], None]) -> int:
    """Interrupt a call at random moments, and check what works after each; return how many came in time."""
    check()
    start = time.perf_counter()
    call()
    length, caught, moments = time.perf_counter() - start, 0, random.Random(kind.__name__)
    for _ in range(MOMENTS):
        try:
            with limit(kind, max(1e-5, moments.random() * length)):
                call()
        except kind:
            caught += 1
        check()
    return caught


@pytest.mark.filterwarnings("ignore::minisbert.TruncationWarning")
@pytest.mark.parametrize("kind", [SoftTimeLimit, HardTimeLimit])
def test_a_time_limit_in_encode_is_the_callers_own_exception(
    kind: type[BaseException], bert: minisbert.SentenceEncoder
) -> None:
    texts = [f"{LONG} {i}" for i in range(3)] + ["short"] * 300
    expected = bert.encode("a text")

    def check() -> None:
        np.testing.assert_array_equal(bert.encode("a text"), expected)

    assert interrupted(kind, lambda: bert.encode(texts), check)


@pytest.mark.parametrize("kind", [SoftTimeLimit, HardTimeLimit])
def test_a_time_limit_in_token_counts_is_the_callers_own_exception(
    kind: type[BaseException], bert: minisbert.SentenceEncoder
) -> None:
    expected = bert.token_counts(["a text"]).tolist()

    def check() -> None:
        assert bert.token_counts(["a text"]).tolist() == expected

    assert interrupted(kind, lambda: bert.token_counts([LONG] * 3), check)


@pytest.mark.parametrize("kind", [SoftTimeLimit, HardTimeLimit])
def test_a_time_limit_in_load_is_the_callers_own_exception(
    kind: type[BaseException], bert: minisbert.SentenceEncoder, copy_of: Callable[[str], Path]
) -> None:
    folder = copy_of("tiny-bert")  # which nobody else has loaded, so that it is read each time

    def check() -> None:
        np.testing.assert_array_equal(bert.encode("a text"), minisbert.load(folder).encode("a text"))

    assert interrupted(kind, lambda: minisbert.load(folder), check)


@pytest.mark.parametrize("kind", [Exception, TypeError, ValueError])
def test_an_exception_of_a_kind_that_the_library_raises_too_is_not_taken_for_its_own(
    kind: type[BaseException], bert: minisbert.SentenceEncoder
) -> None:
    with pytest.raises(kind) as info, limit(kind, 0.02):
        bert.token_counts([LONG] * 20)
    assert type(info.value) is kind
    assert str(info.value) == "time is up"
