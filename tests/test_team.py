"""Helper threads, many callers, forks: no wrong vectors, no deadlock, no thread left behind."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minisbert
from conftest import DATA

pytest.importorskip("numba", reason="numba is not installed, so there are no helper threads to test")

from minisbert.kernels import jit, team

TEXTS = [f"sentence {i} " + "word " * (i % 6) for i in range(40)]


def weights() -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    packed = jit.pack(rng.standard_normal((500, 70)), rng.standard_normal(500), np.float32)
    return packed, rng.standard_normal((9, 70)).astype(np.float32)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_helpers_change_no_bit(count: int) -> None:
    packed, x = weights()
    alone = jit.linear(x, packed, "gelu")
    qkv = np.tile(x, (1, 6))[:, :408].copy()
    heads = jit.attention(qkv, np.array([0, 4, 9]), 4)
    for _ in range(200):
        with team.helpers(count):
            np.testing.assert_array_equal(jit.linear(x, packed, "gelu"), alone)
            np.testing.assert_array_equal(jit.attention(qkv, np.array([0, 4, 9]), 4), heads)


def test_the_helpers_help_one_thread_at_a_time() -> None:
    with team.helpers(1):
        helped = team._board()
        boards: list[Any] = []

        def other() -> None:
            with team.helpers(1):
                boards.append(team._board())

        thread = threading.Thread(target=other)
        thread.start()
        thread.join(timeout=30)
        assert boards[0] is not helped
        assert helped is team._helpers.board
    assert team._board() is not helped


def test_an_error_gives_the_helpers_back() -> None:
    with pytest.raises(ZeroDivisionError), team.helpers(1):
        raise ZeroDivisionError
    assert not team._helpers.lock.locked()
    assert team._helpers.board[team.STOP] == 1


def test_job_numbers_start_again_before_they_overflow() -> None:
    packed, x = weights()
    expected = jit.linear(x, packed)
    team._board()[team.TICKET] = 0x3FFFFFFE << 32
    for _ in range(5):
        np.testing.assert_array_equal(jit.linear(x, packed), expected)


def test_many_threads_encode_single_sentences() -> None:
    encoder = minisbert.load(DATA / "tiny-bert", num_threads=2)
    expected = {text: encoder.encode(text) for text in TEXTS}
    wrong: list[str] = []

    def work() -> None:
        for text in TEXTS * 3:
            if not np.array_equal(encoder.encode(text), expected[text]):
                wrong.append(text)

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert not any(thread.is_alive() for thread in threads)
    assert wrong == []


def encode_in_child(folder: Path, queue: Any) -> None:
    queue.put(minisbert.load(folder, num_threads=2).encode(TEXTS[3]))


@pytest.mark.parametrize("method", sorted(set(multiprocessing.get_all_start_methods()) - {"forkserver"}))
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_child_processes(method: str) -> None:
    encoder = minisbert.load(DATA / "tiny-bert", num_threads=2)
    expected = encoder.encode(TEXTS[3])  # the helpers are there when the child is made
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    child = context.Process(target=encode_in_child, args=(DATA / "tiny-bert", queue))
    child.start()
    found = queue.get(timeout=120)
    child.join(timeout=60)
    assert child.exitcode == 0
    np.testing.assert_array_equal(found, expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork")
def test_a_fork_while_the_helpers_are_at_work() -> None:
    """As with a server that loads the model and then forks its workers: in a process of its own."""
    code = f"""
import os, threading, numpy, minisbert
encoder = minisbert.load({str(DATA / "tiny-bert")!r}, num_threads=2)
expected, stop = encoder.encode("some words"), []
def work():
    while not stop:
        encoder.encode("other words")
thread = threading.Thread(target=work)
thread.start()
codes = []
for _ in range(10):
    child = os.fork()
    if child == 0:
        ok = all(numpy.array_equal(encoder.encode("some words"), expected) for _ in range(20))
        os._exit(0 if ok else 3)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop.append(1)
thread.join()
print(codes)
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.strip() == str([0] * 10), done.stderr
