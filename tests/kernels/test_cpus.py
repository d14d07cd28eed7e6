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
from minisbert.kernels import cpus
from minisbert.kernels.reference import blas as blas_threads
from tests.support.environment import PATIENCE


def test_an_argument_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINISBERT_NUM_THREADS", "3")
    assert cpus.resolve_num_threads(5) == 5
    assert cpus.resolve_num_threads(None) == 3


def test_the_default_is_what_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MINISBERT_NUM_THREADS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(cpus, "_affinity", lambda: 4)
    monkeypatch.setattr(cpus, "_quota", lambda: 3)
    assert cpus.resolve_num_threads(None) == 3
    monkeypatch.setattr(cpus, "_quota", lambda: 9)
    assert cpus.resolve_num_threads(None) == 4


@pytest.mark.parametrize(
    ("stated", "expected"),
    [("3", 3), (" 3 ", 3), ("4,2", 4), (" 5 , 1", 5)]
    + [(other, 7) for other in ("", "0", "-2", "two", "1.5", ",3", "0,3", "9" * 10)],
)
def test_openmp_s_number_goes_before_the_processors(
    stated: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it can't mean is left to those whose variable it is to complain of."""
    monkeypatch.delenv("MINISBERT_NUM_THREADS", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", stated)
    monkeypatch.setattr(cpus, "processors", lambda: 7)
    assert cpus.resolve_num_threads(None) == expected
    monkeypatch.setenv("MINISBERT_NUM_THREADS", "2")
    assert cpus.resolve_num_threads(None) == 2


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no affinity masks")
def test_affinity_is_read() -> None:
    assert cpus._affinity() == len(os.sched_getaffinity(0))


def process(folder: Path, groups: str, mounts: str, files: dict[str, str]) -> Path:
    """Make what the system says of a process in some control groups, whose hierarchies are mounted in the folder."""
    (folder / "cgroup").write_text(groups)
    (folder / "mountinfo").write_text(mounts.format(folder))
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


# As Linux writes them; before the dash may be any number of fields, and fields are added at the end of a line.
V2 = "33 24 0:28 / {0}/v2 rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "31 23 0:28 / /sys rw - sysfs sysfs rw\n"
    "35 25 0:32 / {0}/cpuset rw shared:15 master:3 - cgroup cgroup rw,cpuset\n"
    "36 25 0:33 / {0}/v1 rw shared:15 - cgroup cgroup rw,cpu,cpuacct\n"
)
IN_A_CONTAINER = "36 25 0:33 /docker/c1 {0}/v1 ro - cgroup cgroup rw,cpu,cpuacct\n"


def v1(group: str, quota: int, period: int = 100_000) -> dict[str, str]:
    return {f"{group}/cpu.cfs_quota_us": f"{quota}\n", f"{group}/cpu.cfs_period_us": f"{period}\n"}


@pytest.mark.parametrize(
    ("groups", "mounts", "files", "expected"),
    [
        # A container with a namespace of its own: its group is the root.
        ("0::/\n", V2, {"v2/cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", V2, {"v2/cpu.max": "50000 100000\n"}, 1),
        ("0::/\n", V2, {"v2/cpu.max": "max 100000\n"}, None),
        ("0::/\n", V2, {"v2/cpu.max": "1 0\n"}, None),
        ("0::/\n", V2, {"v2/cpu.max": "nonsense"}, None),
        ("0::/\n", V2, {}, None),
        # A service of systemd's: the quota is its own, or that of a slice that it is in.
        ("0::/a.slice/b.service\n", V2, {"v2/a.slice/b.service/cpu.max": "250000 100000"}, 3),
        ("0::/a.slice/b.service\n", V2, {"v2/a.slice/cpu.max": "100000 100000"}, 1),
        (
            "0::/a.slice/b.service\n",
            V2,
            {"v2/a.slice/b.service/cpu.max": "300000 100000", "v2/a.slice/cpu.max": "200000 100000"},
            2,
        ),
        (
            "0::/a.slice/b.service\n",
            V2,
            {"v2/a.slice/b.service/cpu.max": "200000 100000", "v2/a.slice/cpu.max": "max 100000"},
            2,
        ),
        ("0::/a.slice/b.service\n", V2, {"v2/c.slice/cpu.max": "100000 100000"}, None),  # not its own
        # Version 1, and both at once.
        ("5:cpu,cpuacct:/\n", V1, v1("v1", 400_000), 4),
        ("5:cpu,cpuacct:/\n", V1, v1("v1", -1), None),
        ("6:cpuset:/s\n5:cpu,cpuacct:/a/b\n", V1, {**v1("v1", -1), **v1("v1/a/b", 40_000, 20_000)}, 2),
        ("6:cpuset:/s\n5:cpu,cpuacct:/a\n", V1, v1("v1/s", 100_000), None),
        ("5:cpu,cpuacct:/a\n0::/b\n", V1 + V2, {**v1("v1/a", 500_000), "v2/b/cpu.max": "300000 100000"}, 3),
        ("5:cpu,cpuacct:/a\n0::/b\n", V1 + V2, v1("v1/a", 500_000), 5),
        # A container without a namespace: its group is mounted as the root, and has the name that it has outside.
        ("5:cpu,cpuacct:/docker/c1\n", IN_A_CONTAINER, v1("v1", 200_000), 2),
        ("5:cpu,cpuacct:/docker/c1/a\n", IN_A_CONTAINER, {**v1("v1", -1), **v1("v1/a", 200_000)}, 2),
        ("5:cpu,cpuacct:/elsewhere\n", IN_A_CONTAINER, v1("v1", 200_000), 2),
        ("0::/../../c2\n", V2, {"v2/cpu.max": "200000 100000"}, 2),
        # Names with colons, spaces, and what is not UTF-8; systems that say less, or something else.
        ("0::/a: b\n", V2, {"v2/a: b/cpu.max": "200000 100000"}, 2),
        ("", "", {}, None),
        ("0::/\n", "33 24 0:28 /\n", {}, None),
        ("nonsense\n", V2, {}, None),
    ],
)
def test_quota_of_the_control_groups(
    groups: str, mounts: str, files: dict[str, str], expected: int | None, tmp_path: Path
) -> None:
    expected = cpus.NO_QUOTA if expected is None else expected
    assert cpus._quota(process(tmp_path, groups, mounts, files)) == expected


def test_a_control_group_whose_name_is_not_utf_8(tmp_path: Path) -> None:
    folder = process(tmp_path, "", V2, {"v2/cpu.max": "200000 100000"})
    (folder / "cgroup").write_bytes(b"0::/\xff\n")
    assert cpus._quota(folder) == 2


def test_a_system_without_control_groups(tmp_path: Path) -> None:
    assert cpus._quota(tmp_path / "no such folder") == cpus.NO_QUOTA


@pytest.mark.parametrize("value", [0, -1])
def test_no_threads_is_refused(value: int) -> None:
    with pytest.raises(minisbert.EncodeValueError, match=f"num_threads is {value}"):
        cpus.resolve_num_threads(value)


@pytest.mark.parametrize("value", [np.int64(3), np.uint8(3)])
def test_numpy_s_integers_are_integers(value: Any) -> None:
    assert type(cpus.resolve_num_threads(value)) is int
    assert cpus.resolve_num_threads(value) == 3


@pytest.mark.parametrize("value", [1.0, "2", True, np.float64(2)])
def test_what_is_no_integer_is_refused(value: object) -> None:
    with pytest.raises(minisbert.EncodeTypeError, match="expected a positive integer"):
        cpus.resolve_num_threads(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("value", ["0", "-2", "two", "1.5", "9" * 20])
def test_a_bad_environment_variable_is_named(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINISBERT_NUM_THREADS", value)
    with pytest.raises(minisbert.EncodeValueError, match=f"MINISBERT_NUM_THREADS is '{value}'"):
        cpus.resolve_num_threads(None)


def test_a_very_long_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINISBERT_NUM_THREADS", "9" * 5000)
    with pytest.raises(minisbert.EncodeValueError, match="MINISBERT_NUM_THREADS is '99"):
        cpus.resolve_num_threads(None)


def test_blas_has_one_thread_while_anyone_asks_for_it() -> None:
    blas = blas_threads._blas()
    if blas is None:
        pytest.skip("NumPy is not built on OpenBLAS here, so there is no thread count to read")
    get, set_ = blas
    before = get()
    set_(2)
    try:
        with blas_threads.one_blas_thread():
            with blas_threads.one_blas_thread():
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
        import os
        import threading
        from minisbert.kernels.reference import blas as blas_threads

        blas = blas_threads._blas()
        before = blas[0]() if blas else 1
        holds, done = threading.Event(), threading.Event()

        def work():
            with blas_threads.one_blas_thread(), blas_threads._lock:
                holds.set()
                done.wait()

        worker = threading.Thread(target=work)
        worker.start()
        holds.wait()
        child = os.fork()
        if child == 0:
            assert blas_threads._holders == 0
            assert blas is None or blas[0]() == before
            with blas_threads.one_blas_thread():
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
        timeout=60 * PATIENCE,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "2"},
    )
