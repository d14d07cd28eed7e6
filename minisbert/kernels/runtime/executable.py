"""Memory that holds machine code and may be run: never unmapped, as at exit a helper thread may still be in it.

By ctypes and not Python's `mmap`, which undoes the mapping. The systems differ in what they allow:

- Linux maps the file itself, so that no memory is ever both written and run. Where the file's mount is `noexec`, it is
  copied into memory, which is made executable afterwards.
- macOS runs what is in a file only if it is signed. Memory that is made for a compiler at run time (`MAP_JIT`) can be
  switched between written and run, by each thread for itself.
- Windows makes memory executable afterwards.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["place"]

_READ, _WRITE, _RUN = 1, 2, 4
_PRIVATE, _ANONYMOUS, _MAP_JIT = 2, 0x1000 if sys.platform == "darwin" else 0x20, 0x800


def place(content: bytes, path: Path | None) -> int:
    """Return the address of code that can be run: mapped from its file, where there is one, or copied.

    Raises
    ------
    OSError
        If the system lets no memory be run.
    """
    if sys.platform == "win32":
        return _on_windows(content)
    if sys.platform == "darwin":
        return _on_macos(content)
    if path is not None:
        try:
            return _mapped(path, len(content))
        except OSError:
            pass
    address = _mmap(len(content), _READ | _WRITE, _PRIVATE | _ANONYMOUS)
    ctypes.memmove(address, content, len(content))
    if _libc().mprotect(ctypes.c_void_p(address), ctypes.c_size_t(len(content)), _READ | _RUN):
        raise _error()
    return address  # on ARM, too: the kernel makes the written code seen when a page becomes executable


def _mapped(path: Path, size: int) -> int:
    with path.open("rb") as file:
        return _mmap(size, _READ | _RUN, _PRIVATE, file.fileno())


def _mmap(size: int, protection: int, flags: int, file: int = -1) -> int:
    """Map memory as the system's function does."""
    address = _libc().mmap(None, ctypes.c_size_t(size), protection, flags, file, ctypes.c_long(0))
    if address in (None, ctypes.c_void_p(-1).value):
        raise _error()
    return int(address)


@cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    return libc


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def _on_macos(content: bytes) -> int:
    libc, size = _libc(), len(content)
    address = _mmap(size, _READ | _WRITE | _RUN, _PRIVATE | _ANONYMOUS | _MAP_JIT)
    libc.pthread_jit_write_protect_np(0)
    try:
        ctypes.memmove(address, content, size)
    finally:
        libc.pthread_jit_write_protect_np(1)
    libc.sys_icache_invalidate(ctypes.c_void_p(address), ctypes.c_size_t(size))
    return address


def _on_windows(content: bytes) -> int:
    kernel32: Any = getattr(ctypes, "WinDLL")("kernel32", use_last_error=True)  # noqa: B009 (only Windows has it)
    kernel32.VirtualAlloc.restype = ctypes.c_void_p
    size, old = ctypes.c_size_t(len(content)), ctypes.c_uint32()
    address = kernel32.VirtualAlloc(None, size, 0x3000, 0x04)  # reserved and committed, to be written
    if address:
        place, process = ctypes.c_void_p(address), ctypes.c_void_p(-1)
        ctypes.memmove(address, content, len(content))
        if kernel32.VirtualProtect(place, size, 0x20, ctypes.byref(old)):  # to be read and run
            kernel32.FlushInstructionCache(process, place, size)
            return int(address)
    number = getattr(ctypes, "get_last_error")()  # noqa: B009
    raise OSError(number, f"Windows error {number}")
