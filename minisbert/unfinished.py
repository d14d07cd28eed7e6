"""Files and folders that are being written, and have their final names only once they are complete."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["remove_unfinished", "temporary_beside"]

_unfinished: set[Path] = set()


@contextmanager
def temporary_beside(target: Path) -> Iterator[Path]:
    """Yield a name beside ``target``, for what is to take its place; what is still there at the end is removed."""
    temporary = target.with_name(f".minisbert-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    _unfinished.add(temporary)
    try:
        yield temporary
    finally:
        remove_unfinished()


def remove_unfinished() -> None:
    """Remove what has not been written to its end, as the process is about to be ended."""
    for temporary in tuple(_unfinished):
        with suppress(OSError):  # it has its final name, or can't be removed
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                temporary.unlink()
        _unfinished.discard(temporary)  # only now: a signal may strike between the two
