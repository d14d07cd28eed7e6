"""The cache of compiled kernels: where it is, and what damage it survives. Each case in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import minisbert

pytest.importorskip("numba", reason="numba is not installed, so nothing is compiled")

CODE = """
import numpy, time
from minisbert.kernels import cache, gemm, jit
x, w = numpy.ones((3, 40), numpy.float32), numpy.eye(40, dtype=numpy.float32)
assert (jit.linear(x, jit.pack(w, numpy.zeros(40), numpy.float32)) == 1).all()
print(cache.folder())
"""


def run(**environment: str) -> Path | None:
    """Import the kernels in a fresh process with these environment variables; return the cache's folder."""
    package = str(Path(minisbert.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env={**os.environ, "PYTHONPATH": package, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return None if done.stdout.strip() == "None" else Path(done.stdout.strip())


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache that one process has filled."""
    base = tmp_path_factory.mktemp("cache")
    place = run(NUMBA_CACHE_DIR=str(base))
    assert place is not None
    assert place.parent == base
    return place


def contents(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place.iterdir()}


def test_a_second_process_compiles_nothing(filled: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in filled.iterdir()}
    assert len(before) >= 6
    run(NUMBA_CACHE_DIR=str(filled.parent))
    assert {path: path.stat().st_mtime_ns for path in filled.iterdir()} == before


@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped"])
def test_a_damaged_file_is_compiled_anew(filled: Path, damage: str) -> None:
    before = contents(filled)
    for path in filled.iterdir():
        content = bytearray(path.read_bytes())
        if damage == "empty":
            content = bytearray()
        elif damage == "truncated":
            del content[len(content) // 2 :]
        else:
            content[len(content) // 2] ^= 1
        path.write_bytes(bytes(content))
    run(NUMBA_CACHE_DIR=str(filled.parent))
    assert contents(filled).keys() == before.keys()
    assert all(len(content) > 1000 for content in contents(filled).values())


def test_another_processor_has_files_of_its_own(filled: Path) -> None:
    other = run(NUMBA_CACHE_DIR=str(filled.parent), NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="")
    assert other is not None
    assert other != filled
    assert other.parent == filled.parent


def test_nowhere_to_write(tmp_path: Path) -> None:
    """A file stands where every folder would be made, as on a read-only system."""
    nowhere = tmp_path / "file"
    nowhere.write_text("")
    code = f"import minisbert.kernels.cache as c; c._candidates = lambda: iter([c.Path({str(nowhere)!r})]);"
    done = subprocess.run([sys.executable, "-c", code + CODE], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "None"


def test_a_read_only_package_and_no_home(tmp_path: Path) -> None:
    code = "import minisbert.kernels.cache as c; c.__file__ = '/proc/nowhere/cache.py';"
    environment = {key: value for key, value in os.environ.items() if key not in ("HOME", "NUMBA_CACHE_DIR")}
    done = subprocess.run(
        [sys.executable, "-c", code + "print(*c._candidates())"],
        env={**environment, "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) in done.stdout.split()


def test_two_processes_at_once(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", CODE]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    places = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert places[0] == places[1]
    assert not [path for path in Path(places[0].strip()).iterdir() if path.suffix != ".bin"]
