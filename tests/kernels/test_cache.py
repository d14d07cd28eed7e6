"""The cache of compiled kernels: where it is, and what damage it survives. Each case in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import minisbert
from tests.conftest import DATA

pytest.importorskip("numba", reason="numba is not installed, so nothing is compiled")

CODE = """
import numpy
import sys
from minisbert.kernels.compiled.backend import BACKEND as compiled
from minisbert.kernels.runtime import load
x, w = numpy.ones((3, 40), numpy.float32), numpy.eye(40, dtype=numpy.float32)
assert (compiled.linear(x, compiled.pack(w, numpy.zeros(40), numpy.float32)) == 1).all()
print("numba" in sys.modules, load.file())
"""


def run(code: str = CODE, *arguments: str, **environment: str) -> tuple[bool, Path | None]:
    """Use a kernel in a fresh process, with arguments and environment; return whether it compiled, and the file."""
    package = str(Path(minisbert.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": package, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    compiled, _, file = done.stdout.strip().partition(" ")
    return compiled == "True", None if file == "None" else Path(file)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that a process has compiled into an empty folder."""
    folder = tmp_path_factory.mktemp("cache")
    compiled, file = run(NUMBA_CACHE_DIR=str(folder))
    assert compiled
    assert file is not None
    assert list(folder.iterdir()) == [file]
    return file


def test_a_second_process_compiles_nothing(filled: Path) -> None:
    before = filled.stat().st_mtime_ns
    assert run(NUMBA_CACHE_DIR=str(filled.parent)) == (False, filled)
    assert filled.stat().st_mtime_ns == before


@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped"])
def test_a_damaged_file_is_compiled_anew(filled: Path, damage: str) -> None:
    content = bytearray(filled.read_bytes())
    if damage == "empty":
        content = bytearray()
    elif damage == "truncated":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2] ^= 1
    filled.write_bytes(bytes(content))
    assert run(NUMBA_CACHE_DIR=str(filled.parent)) == (True, filled)
    assert filled.stat().st_size > 10_000
    assert run(NUMBA_CACHE_DIR=str(filled.parent)) == (False, filled)


OTHERS = """
import numba
import numpy

@numba.njit
def spread(x):
    return max(x.max() - x.min(), numpy.sqrt(x).sum())

assert spread(numpy.array([1.0, 4.0, 9.0])) == 8
"""


@pytest.mark.parametrize("code", [OTHERS + CODE, CODE + OTHERS], ids=["before", "after"])
def test_others_use_numba_in_the_same_process(tmp_path: Path, code: str) -> None:
    _, file = run(code, NUMBA_CACHE_DIR=str(tmp_path))
    assert file is not None
    assert run(NUMBA_CACHE_DIR=str(tmp_path)) == (False, file)


def test_numba_is_told_not_to_compile(tmp_path: Path) -> None:
    """It makes ``numba.njit`` return the function it is given; but kernels have to be machine code."""
    compiled, file = run(NUMBA_CACHE_DIR=str(tmp_path), NUMBA_DISABLE_JIT="1")
    assert compiled
    assert file is not None


def test_another_processor_has_a_file_of_its_own(filled: Path) -> None:
    _, other = run(NUMBA_CACHE_DIR=str(filled.parent), NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="")
    assert other is not None
    assert other != filled
    assert other.parent == filled.parent


def test_nowhere_to_write(tmp_path: Path) -> None:
    """A file stands where every folder would be made, as on a read-only system."""
    nowhere = tmp_path / "file"
    nowhere.write_text("")
    code = f"import minisbert.kernels.runtime.load as m; m._candidates = lambda: iter([m.Path({str(nowhere)!r})]);"
    assert run(code + CODE) == (True, None)


def test_a_folder_that_was_filled_and_then_made_read_only(filled: Path) -> None:
    """As in a container image: whoever runs it may not write there, which to root means nothing."""
    code = f"""
import minisbert.kernels.runtime.load as m
def refuse(dir):
    raise PermissionError(dir)
m.tempfile.TemporaryFile = refuse
m._candidates = lambda: iter([m.Path({str(filled.parent)!r})])
"""
    assert run(code + CODE) == (False, filled)


def test_a_read_only_package_and_no_home(tmp_path: Path) -> None:
    code = "import minisbert.kernels.runtime.load as m; m.__file__ = '/proc/nowhere/load.py';"
    environment = {key: value for key, value in os.environ.items() if key not in ("HOME", "NUMBA_CACHE_DIR")}
    done = subprocess.run(
        [sys.executable, "-c", code + "print(*m._candidates())"],
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
    assert [str(path) for path in tmp_path.iterdir()] == [places[0].split()[1]] == [places[1].split()[1]]


def test_several_threads_at_first_use(filled: Path) -> None:
    """Each thread must get the same kernels: of two that link them, the code of one would be freed while it runs."""
    code = """
import sys
import threading
import minisbert
from minisbert.kernels.runtime import load

found, together = [], threading.Barrier(4)

def work():
    together.wait()
    found.append((load.kernels(), minisbert.load(sys.argv[1], num_threads=1).encode(["one", "two"] * 20)))

workers = [threading.Thread(target=work) for _ in range(4)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
assert len(found) == 4 and len({id(kernels) for kernels, _ in found}) == 1
assert all((vectors == found[0][1]).all() for _, vectors in found)
print("numba" in sys.modules, load.file())
"""
    assert run(code, str(DATA / "tiny-bert"), NUMBA_CACHE_DIR=str(filled.parent)) == (False, filled)
