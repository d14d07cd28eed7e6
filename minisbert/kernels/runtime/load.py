"""The machine code of the kernels: a file of the package, mapped and called.

`build` made it; nothing is compiled here, and nothing written. A file that is damaged, or made of other sources, for
another level or another version of this loader, is never run.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from minisbert.kernels.levels import CHOSEN
from minisbert.kernels.runtime import executable

__all__ = ["ABI", "FOLDER", "KernelsError", "callable_from", "file_name", "kernels", "source_hash"]

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
        path for folder in ("", "source", "runtime") for path in (_KERNELS / folder).glob("*.py")
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


def callable_from(content: bytes, path: Path | None = None) -> Any:
    """Return the entries of a file's content, which is mapped from there if it has a path."""
    index = _index(content, path)
    try:
        address = executable.place(content, path)
    except OSError as error:
        raise KernelsError(f"the system lets no memory be run: {error.strerror or error}") from error
    return SimpleNamespace(
        **{
            name: ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * count)(address + start)
            for name, (start, count) in index["entries"].items()
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
