"""How many threads, and NumPy's BLAS held to one."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minisbert
from minisbert import threads


def test_an_argument_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINISBERT_NUM_THREADS", "3")
    assert threads.resolve_num_threads(5) == 5
    assert threads.resolve_num_threads(None) == 3


def test_the_default_is_what_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MINISBERT_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "_affinity", lambda: 4)
    monkeypatch.setattr(threads, "_quota", lambda: 3)
    assert threads.resolve_num_threads(None) == 3
    monkeypatch.setattr(threads, "_quota", lambda: 9)
    assert threads.resolve_num_threads(None) == 4


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no affinity masks")
def test_affinity_is_read() -> None:
    assert threads._affinity() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 1 << 20),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1 << 20),
        ({"cpu.max": "1 0\n"}, 1 << 20),
        ({"cpu.max": "nonsense"}, 1 << 20),
        ({}, 1 << 20),
    ],
)
def test_quota_of_the_control_group(tmp_path: Path, files: dict[str, str], expected: int) -> None:
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert threads._quota(tmp_path) == expected


@pytest.mark.parametrize("value", [0, -1])
def test_no_threads_is_refused(value: int) -> None:
    with pytest.raises(minisbert.EncodeValueError, match=f"num_threads is {value}"):
        threads.resolve_num_threads(value)


@pytest.mark.parametrize("value", [np.int64(3), np.uint8(3)])
def test_numpy_s_integers_are_integers(value: Any) -> None:
    assert type(threads.resolve_num_threads(value)) is int
    assert threads.resolve_num_threads(value) == 3


@pytest.mark.parametrize("value", [1.0, "2", True, np.float64(2)])
def test_what_is_no_integer_is_refused(value: object) -> None:
    with pytest.raises(minisbert.EncodeTypeError, match="expected a positive integer"):
        threads.resolve_num_threads(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["0", "-2", "two", "1.5", "9" * 20])
def test_a_bad_environment_variable_is_named(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINISBERT_NUM_THREADS", value)
    with pytest.raises(minisbert.EncodeValueError, match=f"MINISBERT_NUM_THREADS is '{value}'"):
        threads.resolve_num_threads(None)


def test_a_very_long_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINISBERT_NUM_THREADS", "9" * 5000)
    with pytest.raises(minisbert.EncodeValueError, match="MINISBERT_NUM_THREADS is '99"):
        threads.resolve_num_threads(None)


def test_blas_has_one_thread_while_anyone_asks_for_it() -> None:
    blas = threads._blas()
    if blas is None:
        pytest.skip("NumPy is not built on OpenBLAS here, so there is no thread count to read")
    get, set_ = blas
    before = get()
    set_(2)
    try:
        with threads.one_blas_thread():
            with threads.one_blas_thread():
                assert get() == 1
            assert get() == 1
        assert get() == 2
    finally:
        set_(before)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_fork_while_another_thread_works() -> None:
    """The thread that would let go of the count, and maybe of the lock, is not there in the child."""
    script = textwrap.dedent(
        """
        import os, threading
        from minisbert import threads

        blas = threads._blas()
        before = blas[0]() if blas else 1
        holds, done = threading.Event(), threading.Event()

        def work():
            with threads.one_blas_thread(), threads._lock:
                holds.set()
                done.wait()

        worker = threading.Thread(target=work)
        worker.start()
        holds.wait()
        child = os.fork()
        if child == 0:
            assert threads._holders == 0
            assert blas is None or blas[0]() == before
            with threads.one_blas_thread():
                assert blas is None or blas[0]() == 1
            os._exit(0)
        done.set()
        worker.join()
        assert os.waitpid(child, 0)[1] == 0
        """
    )
    subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        timeout=60,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "2"},
    )
