"""The machine code of the kernels: kept on disk from the first process on, and made callable.

Compiling takes seconds and all of Numba; running what was compiled takes neither. So this module needs llvmlite alone,
which links the code into the process, and ctypes, which calls it. A file of code is found by the hash of everything
that it depends on: all kernel sources, the versions of Numba and llvmlite, the processor and its features. So a home
folder may be shared by machines of several kinds, and no source can be newer than its code. The file opens with the
checksum of the rest, so a damaged one is compiled anew and never run. Where nothing can be written, the kernels are
compiled in every process, and all else works.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.metadata import version
from itertools import accumulate, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import llvmlite.binding as llvm

from minisbert.kernels.runtime import native

__all__ = ["Compiled", "file", "kernels"]


class Compiled(NamedTuple):
    """A kernel: its name, the types of its arguments, what the machine code calls it, and the code."""

    name: str
    arguments: list[str]
    symbol: str
    code: bytes


_lock = native.lock()


@cache
def kernels() -> Any:
    """Return the compiled kernels by name: functions of integers and floats, run without the interpreter lock."""
    # The cache of this function lets two threads in at first; if both linked, what one runs would go with its engine.
    with _lock:
        return _linked()


@cache
def _linked() -> SimpleNamespace:
    return _link(_load() or _compile())


def _after_fork() -> None:
    """Don't wait for a thread of the parent process, which has not come along."""
    global _lock
    _lock = native.lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _compile() -> list[Compiled]:
    """Compile all kernels, and keep the code for the next process where that is possible."""
    import_module("minisbert.kernels.source.workqueue")  # which compiles it and all that it imports
    from minisbert.kernels.runtime.compiler import COMPILED

    compiled = [Compiled(*kernel) for kernel in COMPILED]
    place = file()
    if place is not None:
        with suppress(OSError):  # a full disk, say: the kernels work all the same
            _write(place, _pack(compiled))
    return compiled


# --- Calling the code -------------------------------------------------------------------------------------

# An integer is passed as an address is: ctypes takes half as long over that as over a c_int64.
_KINDS = {"i8": ctypes.c_void_p, "f8": ctypes.c_double}


def _link(compiled: Iterable[Compiled]) -> SimpleNamespace:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    for kernel in compiled:
        engine.add_object_file(llvm.ObjectFileRef.from_data(kernel.code))
    engine.finalize_object()
    return SimpleNamespace(**{k.name: _function(engine, k.symbol, k.arguments) for k in compiled})


def _function(engine: Any, symbol: str, arguments: list[str]) -> Any:
    kinds: list[Any] = [ctypes.c_void_p, ctypes.c_void_p, *(_KINDS[kind] for kind in arguments)]
    function: Any = ctypes.CFUNCTYPE(ctypes.c_int32, *kinds)(engine.get_function_address(symbol))
    # Numba's functions take the addresses of a result and of an error first; a kernel writes neither.
    places = (ctypes.c_int64 * 2)()
    result, error = ctypes.addressof(places), ctypes.addressof(places) + 8
    # The code goes when the engine does. A daemon thread may still run it after this module has been torn down.
    function.needs = engine, places
    return lambda *given: function(result, error, *given)


# --- Keeping it on disk -----------------------------------------------------------------------------------


def _pack(compiled: Iterable[Compiled]) -> bytes:
    """Return the contents of a file: checksum, length of the header, header, and the code of each kernel."""
    header = json.dumps([[k.name, k.arguments, k.symbol, len(k.code)] for k in compiled]).encode()
    body = len(header).to_bytes(8, "little") + header + b"".join(k.code for k in compiled)
    return hashlib.sha256(body).digest() + body


def _load() -> list[Compiled] | None:
    """Return the compiled kernels out of their file, if there is a sound one."""
    place = file()
    try:
        content = place.read_bytes() if place is not None else b""
    except OSError:
        return None
    body = content[32:]
    if hashlib.sha256(body).digest() != content[:32]:
        return None
    start = 8 + int.from_bytes(body[:8], "little")
    entries = json.loads(body[8:start])
    places = pairwise(accumulate((size for *_, size in entries), initial=start))
    return [
        Compiled(name, arguments, symbol, body[a:b])
        for (name, arguments, symbol, _), (a, b) in zip(entries, places, strict=True)
    ]


def _write(path: Path, content: bytes) -> None:
    """Write a file such that another process sees all of it or nothing."""
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as target:
            target.write(content)
        os.replace(temporary, path)
    except OSError:
        Path(temporary).unlink(missing_ok=True)
        raise


@cache
def file() -> Path | None:
    """Return the file that compiled kernels are kept in, or None where none can be written."""
    name = f"minisbert-{_fingerprint()}.bin"
    for base in _candidates():
        try:
            base.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=base):
                return base / name
        except OSError:
            if (base / name).exists():  # put there by whoever made this read-only image
                return base / name
    return None


def _candidates() -> Iterator[Path]:
    """Yield where to keep compiled kernels: where Numba is told to, beside the sources, in the user's cache."""
    if os.environ.get("NUMBA_CACHE_DIR"):
        yield Path(os.environ["NUMBA_CACHE_DIR"])
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
    processor = llvm.get_process_triple(), llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()
    told = [os.environ.get(f"NUMBA_{name}") for name in ("CPU_NAME", "CPU_FEATURES", "OPT", "ENABLE_AVX")]
    facts = (sys.version, version("numba"), version("llvmlite"), processor, told)
    digest = hashlib.sha256(repr(facts).encode())
    for source in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
