"""Compiling the kernels when they are imported, and keeping the machine code on disk for the next process.

Numba has a cache of its own. This one differs where a library has to be safe in anybody's hands. A file is found by
the hash of everything that its code depends on: all kernel sources, the versions of Numba and Python, the processor
and its features. So a home folder may be shared by machines of several kinds, and no source can be newer than its
code. Each file opens with the checksum of the rest, so a damaged one is compiled anew and never run. Where nothing
can be written, the kernels are compiled in every process, and all else works.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core.ccallback import CFunc
from numba.core.compiler import CompileResult
from numba.core.registry import cpu_target
from numba.core.runtime import rtsys
from numba.core.serialize import dumps
from numba.core.sigutils import normalize_signature

__all__ = ["c_function", "folder", "kernel", "part"]


def kernel(signature: str, fastmath: Any = False) -> Callable[[Callable[..., Any]], Any]:
    """Compile a function for one signature, to run without the interpreter lock."""

    def compile_(function: Callable[..., Any]) -> Any:
        dispatcher = numba.njit(nogil=True, fastmath=fastmath)(function)
        dispatcher._cache = _KernelCache(function)
        dispatcher.compile(signature)
        dispatcher.disable_compile()  # arguments of another type are a mistake, not a reason to compile again
        return dispatcher

    return compile_


# For the parts of a kernel: put in their place before anything is compiled, instead of compiled by themselves and then
# once more as a part of every caller. It halves the time that compiling takes.
part = numba.njit(inline="always")


def c_function(signature: str) -> Callable[[Callable[..., Any]], int]:
    """Compile a function that kernels call by its address, so that its code is not compiled into each of them."""

    def compile_(function: Callable[..., Any]) -> int:
        compiled: Any = CFunc(function, normalize_signature(signature), locals={}, options={})
        compiled._cache = _KernelCache(function)
        compiled.compile()
        return int(compiled.address)

    return compile_


class _KernelCache:
    """What Numba asks of a cache, for one function of one signature: one file."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._name = f"{function.__module__}.{function.__qualname__}.bin".replace("<", "").replace(">", "")

    def load_overload(self, _signature: Any, target_context: Any) -> Any:
        # Allocation is all that compiled kernels need of Numba; what compiling needs takes longer to set up.
        rtsys.initialize(target_context)
        place = folder()
        if place is None:
            return None
        try:
            content = (place / self._name).read_bytes()
        except OSError:
            return None
        if hashlib.sha256(content[32:]).digest() != content[:32]:
            return None
        return CompileResult._rebuild(target_context, *pickle.loads(content[32:]))

    def save_overload(self, _signature: Any, result: Any) -> None:
        place = folder()
        if place is None:
            return
        content = dumps(result._reduce())
        try:
            _write(place / self._name, hashlib.sha256(content).digest() + content)
        except OSError:
            return  # a full disk, say: the kernels work all the same


def _write(path: Path, content: bytes) -> None:
    """Write a file such that another process sees all of it or nothing."""
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise


@cache
def folder() -> Path | None:
    """Return the folder that compiled kernels are kept in, or None where none can be written to."""
    for base in _candidates():
        place = base / f"minisbert-{_fingerprint()}"
        try:
            place.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place):
                return place
        except OSError:
            continue
    return None


def _candidates() -> Iterator[Path]:
    """Yield where to keep compiled kernels: where Numba is told to, beside the sources, in the user's cache."""
    if numba.config.CACHE_DIR:
        yield Path(numba.config.CACHE_DIR)
    yield Path(__file__).parent / "__pycache__"
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        if os.environ.get(name):
            yield Path(os.environ[name])
    try:
        yield Path.home() / ".cache"
    except RuntimeError:  # no HOME, and a user that the system has no entry for
        return


def _fingerprint() -> str:
    """Hash everything that the machine code of the kernels depends on."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    told = (numba.config.CPU_NAME, numba.config.CPU_FEATURES, numba.config.OPT)
    facts = (sys.version, numba.__version__, cpu_target.target_context.codegen().magic_tuple(), told)
    digest = hashlib.sha256(repr(facts).encode())
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
