"""Worker threads and the progress bar: whatever becomes of either, the vectors come, and nothing stays behind."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import minisbert
from conftest import BATCH_TOLERANCE, DATA, FEW, in_threads, largest
from minisbert import batching

Encoder = minisbert.SentenceEncoder


def test_many_threads_use_one_encoder(bert: Encoder) -> None:
    texts = [f"{'word ' * (i % 7)}{i}" for i in range(40)]
    expected = bert.encode(texts)
    wrong: list[float] = []

    def work() -> None:
        for _ in range(5):
            error = largest(bert.encode(texts, batch_size=3) - expected)
            if error > BATCH_TOLERANCE:
                wrong.append(error)

    in_threads(6, work, timeout=60)
    assert wrong == []


@pytest.mark.parametrize("num_threads", [1, 2, 5])
def test_any_number_of_threads(num_threads: int, bert: Encoder) -> None:
    texts = FEW * 20
    found = minisbert.load(DATA / "tiny-bert", num_threads=num_threads).encode(texts, batch_size=4)
    assert largest(found - bert.encode(texts)) <= BATCH_TOLERANCE
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("minisbert_")]


def test_an_error_in_the_middle_leaves_no_thread(bert: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "CHUNK", 8)

    def texts() -> Iterator[str]:
        for i in range(30):
            yield f"text {i}"
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="the source broke"):
        bert.encode(texts(), batch_size=2)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("minisbert_")]


@pytest.mark.parametrize("output_value", ["sentence_embedding", "token_embeddings"])
def test_it_goes_on_with_the_threads_that_could_be_started(
    output_value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pool has taken a job by the time that it can't start a thread: that job is then done twice."""
    encoder = minisbert.load(DATA / "tiny-bert", num_threads=4)
    texts = [f"{i} of 400 texts" for i in range(400)]
    expected, start, started = encoder.encode(texts, output_value=output_value), threading.Thread.start, []

    def fail_later(thread: threading.Thread) -> None:
        if thread.name.startswith("minisbert_"):
            started.append(thread)
            if len(started) > 1:
                raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", fail_later)
    found = encoder.encode(texts, output_value=output_value)
    assert len(started) > 1
    for one, other in zip(found, expected, strict=True):
        assert largest(one - other) <= BATCH_TOLERANCE


@pytest.mark.parametrize("texts", [["one"], FEW * 40])
def test_encode_while_the_interpreter_shuts_down(texts: list[str]) -> None:
    """Threads can't be started any more then; the vectors come all the same."""
    code = (
        f"import atexit, minisbert; e = minisbert.load({str(DATA / 'tiny-bert')!r}, num_threads=2); "
        f"atexit.register(lambda: print(e.encode({texts!r}).shape))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == f"({len(texts)}, 75)", done.stderr


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
    closed = []

    def interrupted(pool: ThreadPoolExecutor, **how: Any) -> None:
        shutdown(pool, **how)
        raise KeyboardInterrupt

    shutdown = ThreadPoolExecutor.shutdown
    monkeypatch.setattr(ThreadPoolExecutor, "shutdown", interrupted)
    monkeypatch.setattr(batching.Progress, "close", lambda progress: closed.append(progress))
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
    monkeypatch.setattr(batching, "PROGRESS_DELAY", 0)
    bert.encode(FEW)
    assert "6/6" in capsys.readouterr().err
