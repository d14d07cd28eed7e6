"""The machine code of the kernels: a file of the package, mapped and called.

`build` made it; nothing is compiled here, and nothing written. A file that is damaged, or made of other sources, for
another level or another version of this loader, is never run.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from minisbert.kernels.levels import CHOSEN, why_not
from minisbert.kernels.runtime import executable
from minisbert.kernels.runtime.kernelfile import ENTRIES, KernelsError, unpacked

__all__ = ["KernelsError", "callable_from", "file_name", "kernels"]

_LOADER: Any = globals()["__spec__"].loader
FOLDER = Path(__file__).parents[1] / "built"


def file_name(level: str) -> str:
    """Return the name of a level's file."""
    return f"{level}.bin"


@cache
def kernels() -> Any:
    """Return the entries of this process's level by name: functions of integers, run without the interpreter lock.

    Raises
    ------
    KernelsError
        If there is no file for it, or none that can be run.
    """
    if reason := why_not():
        raise KernelsError(reason)
    path = FOLDER / file_name(str(CHOSEN))
    try:
        content = _LOADER.get_data(str(path))  # which also reads from a zip file
    except OSError as error:
        todo = "let this user read it" if isinstance(error, PermissionError) else "install minisbert again"
        raise KernelsError(f"{path}: {error.strerror or 'No such file'}; {todo}") from error
    return callable_from(content, path)


def callable_from(content: bytes, path: Path | None = None) -> Any:
    """Return the entries of a file's content, which is mapped from there if it has a path."""
    name = str(path or "what Numba compiled")
    starts = unpacked(content, name)
    try:
        address = executable.place(content, path)
    except OSError as error:
        why = f"the system lets no memory be run ({error.strerror or error}); allow that file to be mapped executable"
        raise KernelsError(f"{name}: {why}") from error
    kinds = {key: ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * count) for key, count in ENTRIES.items()}
    return SimpleNamespace(**{key: kind(address + starts[key]) for key, kind in kinds.items()})
