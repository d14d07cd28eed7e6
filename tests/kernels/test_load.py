"""The file of kernels: what is run, what never is, and what computes then. Each case in a process of its own."""

from __future__ import annotations

import compileall
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import minisbert
from minisbert.kernels.levels import CHOSEN
from minisbert.kernels.runtime import kernelfile, load
from tests.conftest import DATA
from tests.support.environment import PATIENCE
from tests.support.users import can_be_nobody

PACKAGE = Path(minisbert.__file__).parents[1]
WITHOUT_NUMBA = "import sys\nsys.modules['numba'] = None\n"
ENCODE = f"""
import sys
import warnings
from pathlib import Path
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    import minisbert
    from minisbert.kernels.runtime import load
    if len(sys.argv) > 1:
        load.FOLDER = Path(sys.argv[1])
    encoder = minisbert.load({str(DATA / "tiny-bert")!r}, num_threads=2)
    encoder = minisbert.load({str(DATA / "tiny-bert")!r}, num_threads=2)
print(encoder.backend, encoder.encode("a text").tobytes().hex()[:64])
print(*(warning.message for warning in told), sep="\\n")
assert all(warning.filename == "<string>" for warning in told)
"""


def run(
    *arguments: str | Path, code: str = "", numba: bool = False, cwd: Path | None = None, **environment: str
) -> tuple[str, str, list[str]]:
    """Encode in a fresh process; return the backend, some of the vector, and the warnings."""
    code = ("" if numba else WITHOUT_NUMBA) + code + ENCODE
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(PACKAGE), **environment},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300 * PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    said, *warnings = filter(None, done.stdout.splitlines())
    backend, vector = said.split()
    return backend, vector, warnings


def signed(body: bytes) -> bytes:
    return body + kernelfile.checksum(body)


def with_fact(content: bytes, **facts: object) -> bytes:
    """Return the file with something else in its index, and a checksum that fits."""
    length = int.from_bytes(content[-12:-4], "little")
    code, index = content[: -12 - length], content[-12 - length : -12]
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
    "another version": lambda content: with_fact(content, abi=kernelfile.ABI + 1),
}
# What no build makes, with a checksum that fits.
UNSOUND = {
    "a long index": lambda content: signed(content[:-12] + b"\xff" * 8),
    "no index": lambda content: signed(content[:-12] + bytes(8)),
    "not UTF-8": lambda content: signed(b"\xff\xff" + (2).to_bytes(8, "little")),
    "a number": lambda content: signed(b"7" + (1).to_bytes(8, "little")),
    "a deep list": lambda content: signed(b"[" * 100_000 + (100_000).to_bytes(8, "little")),
    "no entries": lambda content: with_fact(content, entries=None),
    "entries in a list": lambda content: with_fact(content, entries=[*kernelfile.ENTRIES]),
    "one entry less": lambda content: with_fact(content, entries=dict.fromkeys([*kernelfile.ENTRIES][1:], 0)),
    **{
        f"entries at {start!r}": lambda content, start=start: with_fact(
            content, entries=dict.fromkeys(kernelfile.ENTRIES, start)
        )
        for start in (-1, 1 << 20, 1 << 70, 1.5, True, None, "0", [0, 2], {})
    },
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_file_that_does_not_fit_is_never_run(tmp_path: Path, damage: str) -> None:
    (tmp_path / load.file_name(str(CHOSEN))).write_bytes(DAMAGED[damage](content()))
    backend, _, warnings = run(tmp_path)
    assert backend == "reference"
    [warning] = warnings
    assert str(tmp_path) in warning
    assert "several times slower" in warning


@pytest.mark.parametrize("damage", UNSOUND)
def test_an_index_that_makes_no_sense_is_refused(damage: str) -> None:
    with pytest.raises(
        load.KernelsError,
        match=r"^here/x\.bin: (has no index|its entries are not) .+; install minisbert again$",
    ):
        load.callable_from(UNSOUND[damage](content()), Path("here/x.bin"))


def test_no_file(tmp_path: Path) -> None:
    backend, _, [warning] = run(tmp_path)
    assert backend == "reference"
    assert "No such file" in warning
    assert "minisbert[jit]" in warning


@pytest.mark.skipif(not can_be_nobody(), reason="all files can be read here")
def test_a_file_of_another_user(tmp_path: Path) -> None:
    path = tmp_path / load.file_name(str(CHOSEN))
    path.write_bytes(content())
    path.chmod(0)
    tmp_path.chmod(0o755)
    for folder in tmp_path.parents[:2]:
        folder.chmod(0o755)
    code = """
import os
from minisbert.kernels.runtime import load
def get_data(path, real=load._LOADER.get_data, user=os.geteuid()):
    if not user:
        os.seteuid(65534)
    try:
        return real(path)
    finally:
        os.seteuid(user)
load._LOADER.get_data = get_data
"""
    backend, _, [warning] = run(tmp_path, code=code)
    assert backend == "reference"
    assert f"{path}: Permission denied; let this user read it" in warning


def test_a_processor_without_a_level() -> None:
    backend, _, [warning] = run(code="import platform\nplatform.machine = lambda: 'mips'\n", numba=True)
    assert backend == "reference"
    assert "no level that this processor has, which is mips" in warning


@pytest.mark.parametrize("level", ["none", "aarch64" if CHOSEN != "aarch64" else "x86-64-v3"])
def test_a_level_that_this_processor_can_not_run(level: str) -> None:
    backend, _, [warning] = run(MINISBERT_LEVEL=level)
    assert backend == "reference"
    assert f"MINISBERT_LEVEL is '{level}'; expected what this processor can run: " in warning


def test_where_files_can_not_be_run_memory_is() -> None:
    code = """
from minisbert.kernels.runtime import executable
executable.place = lambda content, path, real=executable.place: real(content, None)
"""
    assert run(code=code) == run()


# After this no memory that was ever written can be run.
FORBID = """
import ctypes
import os
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):
    print("skip", "skip", flush=True)
    os._exit(0)
"""


def run_forbidden(code: str = "") -> tuple[str, str, list[str]]:
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux can forbid it")
    found = run(code=FORBID + code)
    if found[0] == "skip":
        pytest.skip("this kernel is older than Linux 6.3")
    return found


def test_a_system_that_lets_no_memory_that_was_written_be_run() -> None:
    assert run_forbidden() == run()


def test_a_system_that_lets_neither_a_file_nor_memory_be_run() -> None:
    code = """
from minisbert.kernels.runtime import executable
def mapped(path, size):
    raise PermissionError(1, "as from a mount that is noexec")
executable._mapped = mapped
"""
    backend, _, [warning] = run_forbidden(code)
    assert backend == "reference"
    assert f"{load.file_name(str(CHOSEN))}: the system lets no memory be run (Permission denied)" in warning


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
    assert run(code=code, PYTHONDONTWRITEBYTECODE="1")[0] == "native"


# --- Numba in the place of the file -----------------------------------------------------------------------


def test_with_numba_the_kernels_are_compiled_without_a_home_or_a_cache(tmp_path: Path) -> None:
    pytest.importorskip("numba", reason="it is not installed")
    code = "import os\nos.environ.pop('HOME', None)\n" + AUDIT
    backend, vector, [warning] = run(tmp_path, code=code, numba=True, PYTHONDONTWRITEBYTECODE="1")
    assert (backend, vector) == ("jit", run()[1])
    assert str(tmp_path) in warning
    assert "Numba compiled the kernels, which takes some seconds in each process" in warning


@pytest.mark.parametrize(
    "broken", ["raise ImportError('llvmlite is of another version')", "import os\nos._exit(3)"]
)
def test_a_numba_that_does_not_work(tmp_path: Path, broken: str) -> None:
    pytest.importorskip("llvmlite", reason="without llvmlite Numba is not even tried")
    (tmp_path / "numba.py").write_text(broken)
    path = os.pathsep.join([str(tmp_path), str(PACKAGE)])
    backend, _, [warning] = run(tmp_path, numba=True, PYTHONPATH=path)
    assert backend == "reference"
    assert "No such file" in warning
    assert "Numba could not compile them (" in warning
    assert ("llvmlite is of another version" if "raise" in broken else "status 3") in warning


# --- How the package can be installed ---------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package."""
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(PACKAGE / "minisbert", tmp_path / "lib" / "minisbert", ignore=ignored))


def test_in_a_zip_file(package: Path) -> None:
    shutil.make_archive(str(package), "zip", package.parent, package.name)
    shutil.rmtree(package)
    code = "import minisbert\nassert '.zip' in minisbert.__file__\n"
    assert run(code=code, cwd=package.parents[1], PYTHONPATH=f"{package}.zip") == run()


def test_without_its_sources(package: Path) -> None:
    assert compileall.compile_dir(package, quiet=1, legacy=True)
    for path in package.rglob("*.py"):
        path.unlink()
    code = "import minisbert\nassert minisbert.__file__.endswith('__init__.pyc')\n"
    assert run(code=code, cwd=package.parents[1], PYTHONPATH=str(package.parent)) == run()


def test_by_a_link_and_a_relative_path_that_is_left(package: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(package.parent, target_is_directory=True)
    code = "import os\nimport minisbert.kernels\nassert '/link/' in minisbert.__file__\nos.chdir('/')\n"
    assert run(code=code, cwd=tmp_path, PYTHONPATH="link") == run()
