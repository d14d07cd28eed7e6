"""Worker threads and the progress bar: whatever becomes of either, the vectors come, and nothing stays behind."""

from __future__ import annotations

import _thread
import io
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

import minisbert
from minisbert.engine import collect, inputs
from minisbert.engine.workers import Workers
from minisbert.kernels.runtime import native
from tests.conftest import BATCH_TOLERANCE, DATA, FEW, in_threads, largest
from tests.support.environment import PATIENCE

Encoder = minisbert.SentenceEncoder


@pytest.fixture
def no_thread_is_left() -> Iterator[Callable[[], None]]:
    """Return what is called where all is set up; in the end there must be no more threads than by then."""
    counts: list[int] = []
    yield lambda: counts.append(_thread._count())
    give_up = time.monotonic() + 30
    while _thread._count() > counts[0]:
        assert time.monotonic() < give_up
        time.sleep(1e-3)


def test_many_threads_use_one_encoder(bert: Encoder) -> None:
    texts = [f"{'word ' * (i % 7)}{i}" for i in range(40)]
    expected = bert.encode(texts)
    wrong: list[float] = []

    def work() -> None:
        for _ in range(5):
            error = largest(bert.encode(texts, batch_size=3) - expected)
            if error > BATCH_TOLERANCE:
                wrong.append(error)

    in_threads(6, work, timeout=60 * PATIENCE)
    assert wrong == []


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_any_number_of_threads(
    num_threads: int, bert: Encoder, no_thread_is_left: Callable[[], None]
) -> None:
    texts, encoder = FEW * 20, minisbert.load(DATA / "tiny-bert", num_threads=num_threads)
    encoder.encode("a text")  # now the helpers are there, which stay
    no_thread_is_left()
    assert largest(encoder.encode(texts, batch_size=4) - bert.encode(texts)) <= BATCH_TOLERANCE


def test_an_error_in_the_middle_leaves_no_thread(
    bert: Encoder, monkeypatch: pytest.MonkeyPatch, no_thread_is_left: Callable[[], None]
) -> None:
    monkeypatch.setattr(inputs, "CHUNK", 8)
    bert.encode("a text")
    no_thread_is_left()

    def texts() -> Iterator[str]:
        for i in range(30):
            yield f"text {i}"
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        bert.encode(texts(), batch_size=2)


@pytest.mark.parametrize("output_value", ["sentence_embedding", "token_embeddings"])
@pytest.mark.parametrize("count", [0, 1])
def test_it_goes_on_with_the_threads_that_could_be_started(
    output_value: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = minisbert.load(DATA / "tiny-bert", num_threads=4)
    texts = [f"{i} of 400 texts" for i in range(400)]
    expected, start, started = encoder.encode(texts, output_value=output_value), native.start, []

    def fail_later(*given: Any) -> bool:
        started.append(given)
        return len(started) <= count and start(*given)

    monkeypatch.setattr(native, "start", fail_later)
    found = encoder.encode(texts, output_value=output_value)
    assert len(started) > count
    for one, other in zip(found, expected, strict=True):
        assert largest(one - other) <= BATCH_TOLERANCE


def test_workers_are_several_threads_and_none_of_them_the_caller() -> None:
    """Each job waits for the other one to begin, as does the caller."""
    gates, idents = [native.lock(), native.lock()], []

    def meet(mine: Any, other: Any) -> None:
        mine.release()
        idents.append(native.ident())
        assert other.acquire(timeout=60 * PATIENCE)

    for gate in gates:
        gate.acquire()
    with closing(Workers(2)) as workers:
        waits = [workers.submit(lambda g=pair: meet(*g)) for pair in (gates, gates[::-1])]
        for wait in waits:
            wait()
    assert len({*idents, native.ident()}) == 3


def test_what_no_worker_has_begun_is_computed_where_it_is_waited_for(
    no_thread_is_left: Callable[[], None],
) -> None:
    no_thread_is_left()
    begun, end = native.lock(), native.lock()
    begun.acquire()
    end.acquire()

    def first() -> None:
        begun.release()
        assert end.acquire(timeout=60 * PATIENCE)

    def end_it(workers: Workers) -> None:
        while workers._jobs.qsize() > 1:  # until both have been taken out for None
            time.sleep(1e-3)
        end.release()

    with closing(Workers(1)) as workers:
        waits = [workers.submit(job) for job in (first, native.ident, native.ident)]
        assert begun.acquire(timeout=60 * PATIENCE)
        native.start(end_it, workers)
    assert [wait() for wait in waits] == [None, native.ident(), native.ident()]


def test_an_error_of_a_job_is_raised_where_it_is_waited_for() -> None:
    with closing(Workers(1)) as workers:
        wait = workers.submit(lambda: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            wait()


def test_workers_that_an_exception_has_kept_from_their_end_end_all_the_same(
    no_thread_is_left: Callable[[], None],
) -> None:
    """As a time limit may, which strikes before it is known that they must be closed."""
    no_thread_is_left()
    assert Workers(2).submit(native.ident)() != native.ident()


# --- The progress bar ------------------------------------------------------------------------------------


def test_a_progress_bar_shows_when_it_is_asked_for(bert: Encoder, capsys: pytest.CaptureFixture[str]) -> None:
    bert.encode(FEW, show_progress_bar=True)
    assert "6/6" in capsys.readouterr().err
    bert.encode(iter(FEW), show_progress_bar=True)
    assert "6 sentences" in capsys.readouterr().err
    bert.encode(FEW, show_progress_bar=False)
    bert.encode(FEW)  # not a terminal
    assert capsys.readouterr().err == ""


def test_a_function_is_told_what_is_finished(bert: Encoder, capsys: pytest.CaptureFixture[str]) -> None:
    for batch_size, done in ((1, [1] * 6), (32, [6])):
        finished: list[int] = []
        bert.encode(FEW, batch_size=batch_size, show_progress_bar=finished.append)
        assert finished == done
    assert capsys.readouterr().err == ""


def test_a_second_interrupt_leaves_no_bar_open(bert: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    closed, close = [], Workers.close

    def interrupted(workers: Workers) -> None:
        close(workers)
        raise KeyboardInterrupt

    monkeypatch.setattr(Workers, "close", interrupted)
    monkeypatch.setattr(collect.Progress, "close", lambda progress: closed.append(progress))
    with pytest.raises(KeyboardInterrupt):
        bert.encode(FEW * 40)
    assert len(closed) == 1


def test_without_a_standard_error_there_is_no_bar(bert: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = io.StringIO()
    closed.close()
    for stream in (None, closed):
        monkeypatch.setattr("sys.stderr", stream)
        assert bert.encode(FEW, show_progress_bar=True).shape == (6, 75)
        assert bert.encode(FEW).shape == (6, 75)


def test_a_progress_bar_appears_on_a_terminal_after_a_while(
    bert: Encoder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    bert.encode(FEW)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(collect, "PROGRESS_DELAY", 0)
    bert.encode(FEW)
    assert "6/6" in capsys.readouterr().err
