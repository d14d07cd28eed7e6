"""Files and folders that are being written, and have their final names only once they are complete."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["kept", "remove", "remove_unfinished", "temporary", "temporary_beside"]

temporary: set[Path] = set()  # what is removed if the process is ended by a signal
kept: set[Path] = set()  # files that then stay, for another run to go on from


@contextmanager
def temporary_beside(target: Path, name: str | None = None) -> Iterator[Path]:
    """Yield a place beside ``target``, for what is to take its place; what is still there at the end is removed.

    It has a name that nobody else uses, or one that is the same in each run, which then replaces what a run left that
    was killed.
    """
    place = target.with_name(name or f".minisbert-{os.getpid()}-{secrets.token_hex(4)}.tmp")
    temporary.add(place)
    try:
        yield place
    finally:
        remove(place)


def remove_unfinished() -> None:
    """Remove what has not been written to its end, as the process is about to be ended."""
    for place in tuple(temporary):
        remove(place)


def remove(place: Path) -> None:
    """Remove what is not finished, or not needed any more."""
    with suppress(OSError):  # it has its final name, or can't be removed
        if place.is_dir():
            shutil.rmtree(place, ignore_errors=True)
        else:
            place.unlink()
    temporary.discard(place)  # only now: a signal may strike between the two
    kept.discard(place)
