"""The file of kernels: what is run, what never is, and what computes then. Each case in a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import minisbert
from minisbert.kernels.levels import CHOSEN
from minisbert.kernels.runtime import load
from tests.conftest import DATA

PACKAGE = Path(minisbert.__file__).parents[1]
ENCODE = f"""
import sys
import warnings
from pathlib import Path
from minisbert.kernels.runtime import build, load
if len(sys.argv) > 1:
    load.FOLDER = Path(sys.argv[1])
build.find_spec = lambda name: None  # as if Numba were not installed
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    import minisbert
    encoder = minisbert.load({str(DATA / "tiny-bert")!r}, num_threads=2)
    encoder = minisbert.load({str(DATA / "tiny-bert")!r}, num_threads=2)
print(encoder.backend, encoder.encode("a text").tobytes().hex()[:64])
print(*(warning.message for warning in told), sep="\\n")
assert all(warning.filename == "<string>" for warning in told)
"""


def run(*arguments: str | Path, code: str = ENCODE, **environment: str) -> tuple[str, str, list[str]]:
    """Encode in a fresh process; return the backend, some of the vector, and the warnings."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(PACKAGE), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    said, *warnings = filter(None, done.stdout.splitlines())
    backend, vector = said.split()
    return backend, vector, warnings


def signed(body: bytes) -> bytes:
    return body + hashlib.sha256(body).digest()


def with_fact(content: bytes, **facts: object) -> bytes:
    """Return the file with something else in its index, and a checksum that fits."""
    length = int.from_bytes(content[-40:-32], "little")
    code, index = content[: -40 - length], content[-40 - length : -40]
    index = json.dumps(json.loads(index) | facts).encode()
    return signed(code + index + len(index).to_bytes(8, "little"))


def content() -> bytes:
    return (load.FOLDER / load.file_name(str(CHOSEN))).read_bytes()


def test_the_file_of_the_package_is_run_without_a_word() -> None:
    backend, _, warnings = run()
    assert (backend, warnings) == ("native", [])


DAMAGED = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 2],
    "flipped": lambda content: content[:1000] + bytes([content[1000] ^ 1]) + content[1001:],
    "other sources": lambda content: with_fact(content, sources="0123456789abcdef"),
    "another level": lambda content: with_fact(content, level="x86-64-v9"),
    "another version": lambda content: with_fact(content, abi=load.ABI + 1),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_file_that_does_not_fit_is_never_run(tmp_path: Path, damage: str) -> None:
    (tmp_path / load.file_name(str(CHOSEN))).write_bytes(DAMAGED[damage](content()))
    backend, _, warnings = run(tmp_path)
    assert backend == "reference"
    [warning] = warnings
    assert str(tmp_path) in warning
    assert "several times slower" in warning


def test_no_file(tmp_path: Path) -> None:
    backend, _, [warning] = run(tmp_path)
    assert backend == "reference"
    assert "No such file" in warning
    assert "minisbert[jit]" in warning


def test_a_processor_without_a_level() -> None:
    backend, _, [warning] = run(MINISBERT_LEVEL="none")
    assert backend == "reference"
    assert "no level" in warning


def test_where_files_can_not_be_run_memory_is() -> None:
    code = """
from minisbert.kernels.runtime import executable
executable.place = lambda content, path, real=executable.place: real(content, None)
"""
    assert run(code=code + ENCODE) == run()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux can forbid it")
def test_a_system_that_lets_no_memory_that_was_written_be_run() -> None:
    code = "import ctypes, os\nif ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):\n    print('native', 'skip'), os._exit(0)\n"
    found = run(code=code + ENCODE)
    if found[1] == "skip":
        pytest.skip("this kernel is older than Linux 6.3")
    assert found == run()


AUDIT = """
import sys
def look(event, arguments):
    if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        raise AssertionError(arguments)
    if event in ("os.mkdir", "os.rename", "tempfile.mkstemp"):
        raise AssertionError(event)
sys.addaudithook(look)
"""


def test_nothing_is_written_and_no_home_is_needed() -> None:
    code = "import os\nos.environ.pop('HOME', None)\n" + AUDIT
    assert run(code=code + ENCODE, PYTHONDONTWRITEBYTECODE="1")[0] == "native"
