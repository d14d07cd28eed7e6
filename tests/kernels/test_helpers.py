"""Helper threads, many callers, forks: no wrong vectors, no deadlock, no thread left behind."""

from __future__ import annotations

import ctypes
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
from minisbert.kernels import layout
from minisbert.kernels.operations import GROUPS
from minisbert.kernels.runtime import helpers, native
from tests.conftest import DATA, in_threads
from tests.support.backends import compiled
from tests.support.environment import PATIENCE
from tests.support.teams import left_to_helpers, weights

TEXTS = [f"sentence {i} " + "word " * (i % 6) for i in range(40)]


@pytest.fixture
def processors(monkeypatch: pytest.MonkeyPatch) -> int:
    """Have a team of its own that finds more processors than there are; its helpers sleep on afterwards."""
    monkeypatch.setattr(helpers, "processors", lambda: 8)
    monkeypatch.setattr(helpers, "_helpers", helpers._Helpers())
    return 8


@pytest.mark.parametrize("count", [1, 2, 5])
def test_helpers_change_no_bit(count: int, processors: int) -> None:
    packed, x = weights()
    alone = compiled.linear(x, packed, "gelu")
    qkv = np.tile(x, (1, 6))[:, :408].copy()
    heads = compiled.attention(qkv, np.array([0, 4, 9]), 4)
    for _ in range(200):
        with compiled.threads(count + 1):
            np.testing.assert_array_equal(compiled.linear(x, packed, "gelu"), alone)
            np.testing.assert_array_equal(compiled.attention(qkv, np.array([0, 4, 9]), 4), heads)


def test_a_helper_does_a_whole_job_where_the_owner_does_nothing(processors: int) -> None:
    packed, x = weights()
    alone = compiled.linear(x, packed)
    with compiled.threads(2):
        np.testing.assert_array_equal(left_to_helpers(x, packed), alone)


def test_no_more_helpers_than_processors(processors: int) -> None:
    with compiled.threads(32):
        assert helpers.threads() == processors
        assert helpers._helpers.queue[helpers.HELPERS] == processors - 1
    assert helpers.threads() == 1


def test_on_one_processor_nobody_helps(processors: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helpers, "processors", lambda: 1)
    monkeypatch.setattr(native, "start", lambda *_: pytest.fail("a helper that nobody has a processor for"))
    with compiled.threads(8):
        assert helpers.threads() == 1


def test_where_no_helper_can_be_started_the_owner_works_alone(
    processors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed, x = weights()
    alone, start, started = compiled.linear(x, packed), native.start, []

    def start_two(*given: Any) -> bool:
        started.append(given)
        return len(started) <= 2 and start(*given)

    monkeypatch.setattr(native, "start", start_two)
    with compiled.threads(6):
        assert helpers.threads() == 3
        np.testing.assert_array_equal(compiled.linear(x, packed), alone)


def test_the_helpers_help_one_thread_at_a_time() -> None:
    with compiled.threads(2):
        helped = helpers._queue()
        queues: list[Any] = []

        def other() -> None:
            with compiled.threads(2):
                queues.append(helpers._queue())

        thread = threading.Thread(target=other)
        thread.start()
        thread.join(timeout=30 * PATIENCE)
        assert queues[0] is not helped
        assert helped is helpers._helpers.queue
    assert helpers._queue() is not helped


def test_an_error_gives_the_helpers_back() -> None:
    with pytest.raises(ZeroDivisionError), compiled.threads(2):
        raise ZeroDivisionError
    assert not helpers._helpers.lock.locked()
    assert helpers._helpers.owner is None
    assert helpers._helpers.queue[helpers.HELPERS] == 0


def test_job_numbers_start_again_before_they_overflow() -> None:
    packed, x = weights()
    expected = compiled.linear(x, packed)
    with compiled.threads(2):
        helpers._queue()[helpers.RANGE] = ctypes.c_int64(0x3FFFFE << 2 * helpers.BITS).value
        for _ in range(5):
            np.testing.assert_array_equal(compiled.linear(x, packed), expected)


@pytest.mark.parametrize("count", [0, 3])
def test_more_units_than_a_ticket_can_count(count: int, processors: int) -> None:
    """Attention has four units for a sentence; a sentence of one token attends to that alone."""
    S = helpers.MOST // GROUPS + 2
    qkv = np.random.default_rng(0).standard_normal((S, 12)).astype(np.float32)
    with compiled.threads(count + 1):
        np.testing.assert_array_equal(compiled.attention(qkv, np.arange(S + 1), 4), qkv[:, 8:])


def test_many_threads_encode_single_sentences() -> None:
    encoder = minisbert.load(DATA / "tiny-bert", num_threads=2)
    expected = {text: encoder.encode(text) for text in TEXTS}
    wrong: list[str] = []

    def work() -> None:
        for text in TEXTS * 3:
            if not np.array_equal(encoder.encode(text), expected[text]):
                wrong.append(text)

    in_threads(5, work, timeout=120 * PATIENCE)
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
    found = queue.get(timeout=120 * PATIENCE)
    child.join(timeout=60 * PATIENCE)
    assert child.exitcode == 0
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_joblib(backend: str) -> None:
    """In a process of its own: joblib's worker processes live on, and would be found by other tests."""
    code = f"""
import joblib
import numpy
import minisbert
encoder = minisbert.load({str(DATA / "tiny-bert")!r}, num_threads=2)
texts = [f"sentence {{i}}" for i in range(12)]
expected = encoder.encode(texts)
found = joblib.Parallel(n_jobs=2, backend={backend!r})(joblib.delayed(encoder.encode)(text) for text in texts)
assert numpy.array_equal(found, expected)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=180 * PATIENCE)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system can't fork")
def test_a_fork_while_the_helpers_are_at_work() -> None:
    """As with a server that loads the model and then forks its workers: in a process of its own."""
    code = f"""
import os
import threading
import numpy
import minisbert
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
        timeout=120 * PATIENCE,
    )
    assert done.stdout.strip() == str([0] * 10), done.stderr


def open_range(units: int) -> Any:
    """Return a queue with an operation whose arguments are 0: whoever takes a unit would read from address 0."""
    queue = helpers.new_queue()
    queue[helpers.UNITS], queue[helpers.RANGE] = units, 7 << 2 * helpers.BITS | units
    return queue


@pytest.mark.parametrize("left", [0, 1])  # units of the old job
def test_a_helper_that_comes_late_takes_nothing_of_the_next_job(left: int) -> None:
    """Its owner is writing the arguments of a large job when a helper turns up for the small one before."""
    queue, kernels = open_range(left), compiled._kernels
    address = ctypes.addressof(queue)
    kernels.close(address)
    queue[helpers.UNITS] = 100
    closed = queue[helpers.RANGE]
    kernels.work(address, 7, 1)
    kernels.work(address, closed >> 2 * helpers.BITS, 1)  # or for the closed one
    assert queue[helpers.FINISHED] == 0
    assert queue[helpers.RANGE] == closed


def test_a_helper_that_is_not_wanted_takes_nothing_and_leaves() -> None:
    """The third thread stays for a while when the next sentence is for two."""
    queue = open_range(3)
    queue[helpers.HELPERS] = 1
    compiled._kernels.watch(ctypes.addressof(queue), 2)
    assert queue[helpers.FINISHED] == 0


def test_a_job_of_two_units_is_for_two_threads() -> None:
    queue = open_range(2)
    queue[helpers.HELPERS] = 7
    for slot in (2, 7):
        compiled._kernels.work(ctypes.addressof(queue), 7, slot)
    assert queue[helpers.FINISHED] == 0


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this system can't bind threads to processors"
)
def test_two_threads_on_one_processor_get_on() -> None:
    """Each waits for the other, and so lets it run: without that, a wait lasts as long as a time slice."""
    code = f"""
import os
import numpy
import minisbert
os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})
encoder = minisbert.load({str(DATA / "tiny-bert")!r}, num_threads=2)
expected = minisbert.load({str(DATA / "tiny-bert")!r}, num_threads=1).encode("some words")
assert all(numpy.array_equal(encoder.encode("some words"), expected) for _ in range(200))
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120 * PATIENCE)


def test_short_and_long_jobs_by_turns() -> None:
    rng = np.random.default_rng(1)
    jobs = []
    for width, rows in ((8, 1), (1300, 3), (40, 2), (700, 1)):
        packed = compiled.pack(rng.standard_normal((width, 20)), rng.standard_normal(width), "float32")
        x = rng.standard_normal((rows, 20)).astype(np.float32)
        jobs.append((x, packed, compiled.linear(x, packed)))
    with compiled.threads(3):
        for x, packed, expected in jobs * 2000:
            np.testing.assert_array_equal(compiled.linear(x, packed), expected)


def test_models_that_are_loaded_at_once_have_weights_of_their_own() -> None:
    taken: list[Any] = []
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait()
        for _ in range(2000):
            taken.append(layout.for_weights(3))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        in_threads(8, work, timeout=60 * PATIENCE)
    finally:
        sys.setswitchinterval(interval)
    assert len({part.ctypes.data for part in taken}) == 16_000
