"""The machine code of the kernels: a file of the package, mapped and called.

`build` made it; nothing is compiled here, and nothing written. A file that is damaged, or made of other sources, for
another level or another version of this loader, is never run.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from minisbert.kernels.levels import CHOSEN

__all__ = ["ABI", "KernelsError", "compiled_here", "file_name", "kernels", "source_hash"]

ABI = 1  # how the index is written, and what the entries take
_KERNELS = Path(__file__).parents[1]
FOLDER = _KERNELS / "built"


class KernelsError(Exception):
    """There is no machine code that can be run here; the message says why."""


def file_name(level: str) -> str:
    """Return the name of a level's file."""
    return f"{level}.bin"


@cache
def source_hash() -> str:
    """Hash all that the machine code of the kernels is made of."""
    digest = hashlib.sha256()
    for path in sorted(
        [*_KERNELS.glob("*.py"), *_KERNELS.glob("source/*.py"), *_KERNELS.glob("runtime/*.py")]
    ):
        digest.update(path.read_bytes().replace(b"\r\n", b"\n"))
    return digest.hexdigest()[:16]


@cache
def kernels() -> Any:
    """Return the entries of this process's level by name: functions of integers, run without the interpreter lock.

    Raises
    ------
    KernelsError
        If there is no file for it, or none that can be run.
    """
    if CHOSEN is None:
        raise KernelsError("kernels are built for no level that this processor has")
    path = FOLDER / file_name(CHOSEN)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise KernelsError(f"{path}: {error.strerror or error}") from error
    return callable_from(content, path)


@cache
def compiled_here() -> Any:
    """Return the same, built by Numba in a process of its own, which takes some seconds.

    Raises
    ------
    KernelsError
        If Numba is not installed, or can't build them.
    """
    if find_spec("numba") is None:
        raise KernelsError("Numba is not installed, which would compile them: pip install minisbert[jit]")
    code = "from minisbert.kernels.runtime import build; build.main_of_level()"
    told = {"MINISBERT_LEVEL": CHOSEN or "", "NUMBA_OPT": "0", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | told, capture_output=True)
    if done.returncode:
        raise KernelsError(f"Numba could not compile them: {done.stderr.decode(errors='replace')[-500:]}")
    return callable_from(done.stdout)


def callable_from(content: bytes, path: Path | None = None) -> Any:
    """Return the entries of a file's content, which is mapped from there if it has a path."""
    index = _index(content, path)
    address = _map(path, content)
    kinds = {name: [ctypes.c_void_p] * count for name, (_, count) in index["entries"].items()}
    return SimpleNamespace(
        **{
            name: ctypes.CFUNCTYPE(None, *kinds[name])(address + place)
            for name, (place, _) in index["entries"].items()
        }
    )


def _index(content: bytes, path: Path | None) -> Any:
    body = content[:-32]
    if len(body) < 8 or hashlib.sha256(body).digest() != content[-32:]:
        raise KernelsError(f"{path}: is damaged; install minisbert again")
    start = len(body) - 8 - int.from_bytes(body[-8:], "little")
    index = json.loads(body[start:-8])
    expected = {"abi": ABI, "level": CHOSEN, "sources": source_hash()}
    if (found := {key: index.get(key) for key in expected}) != expected:
        raise KernelsError(f"{path}: was built of {found}, and here is {expected}")
    return index


# --- Mapping: never undone, as at exit a helper thread may still be in the code ---------------------------

_READ, _WRITE, _RUN = 1, 2, 4
_PRIVATE, _ANONYMOUS = 2, 0x1000 if sys.platform == "darwin" else 0x20


def _map(path: Path | None, content: bytes) -> int:
    """Return the address of code that can be run: from its file, or where that is not allowed, from memory."""
    if sys.platform == "win32":
        return _on_windows(content)
    if path is not None:
        with path.open("rb") as file:
            address = _mmap(len(content), _READ | _RUN, _PRIVATE, file.fileno())
        if address is not None:
            return address
    address = _mmap(len(content), _READ | _WRITE, _PRIVATE | _ANONYMOUS, -1)
    if address is not None:
        ctypes.memmove(address, content, len(content))
        if _libc().mprotect(ctypes.c_void_p(address), ctypes.c_size_t(len(content)), _READ | _RUN) == 0:
            return address
    raise KernelsError(f"the system lets no memory be run: {os.strerror(ctypes.get_errno())}")


@cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    return libc


def _mmap(size: int, protection: int, flags: int, file: int) -> int | None:
    """Map memory as the system's function does; return its address, or None where that is refused."""
    sizes = ctypes.c_size_t(size), protection, flags, file, ctypes.c_long(0)
    address = _libc().mmap(None, *sizes)
    return None if address in (None, ctypes.c_void_p(-1).value) else int(address)


def _on_windows(content: bytes) -> int:
    kernel32: Any = getattr(ctypes, "WinDLL")("kernel32", use_last_error=True)  # noqa: B009 (only Windows has it)
    kernel32.VirtualAlloc.restype = ctypes.c_void_p
    size, old = ctypes.c_size_t(len(content)), ctypes.c_uint32()
    address = kernel32.VirtualAlloc(None, size, 0x3000, 0x04)  # reserved and committed, to be written
    if address:
        ctypes.memmove(address, content, len(content))
        if kernel32.VirtualProtect(
            ctypes.c_void_p(address), size, 0x20, ctypes.byref(old)
        ):  # to be read and run
            kernel32.FlushInstructionCache(ctypes.c_void_p(-1), ctypes.c_void_p(address), size)
            return int(address)
    raise KernelsError("the system lets no memory be run")
