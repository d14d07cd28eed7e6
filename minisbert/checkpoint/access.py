"""Files of a checkpoint, opened such that what this user may not read is not taken for damaged, or for absent."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from minisbert.errors import CheckpointError

__all__ = ["open_file", "status_of"]

POINTER = b"version https://git-lfs.github.com/spec/"


def open_file(path: Path) -> BinaryIO:
    """Open a file of a checkpoint to read it.

    Raises
    ------
    CheckpointError
        If this user may not read it, or if it is a pointer that Git LFS left in the place of the file.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        if error.errno is None:  # no answer of the system's: a time limit's TimeoutError, say
            raise
        if isinstance(error, PermissionError):
            raise _forbidden(path, error) from error
        raise CheckpointError(f"{path}: can't be read ({error.strerror})") from error
    if file.peek(len(POINTER)).startswith(POINTER):
        file.close()
        raise CheckpointError(
            f"{path}: is not the file itself but a pointer to it, as a clone without Git LFS leaves behind; install "
            "Git LFS and run `git lfs pull` in the clone"
        )
    return file


def status_of(path: Path, follow_symlinks: bool = True) -> os.stat_result | None:
    """Return what the system says of a path; None where nothing is there, or nothing of such a name can be.

    `os.path.isfile` and its like also say no where a folder on the way may not be entered, and where a time limit's
    TimeoutError strikes in the middle of them: what was taken for absent then would give other vectors.
    """
    try:
        return None if "\0" in str(path) else os.stat(path, follow_symlinks=follow_symlinks)
    except UnicodeEncodeError:
        return None
    except OSError as error:
        if error.errno is None:
            raise
        if isinstance(error, PermissionError):
            raise _forbidden(path, error) from error
        return None


def _forbidden(path: Path, error: PermissionError) -> CheckpointError:
    """Say whose the file is, or the folder on the way to it that this user may not enter, and its mode."""
    effective = os.access in os.supports_effective_ids
    on_the_way = (f for f in path.parents[::-1] if not os.access(f, os.X_OK, effective_ids=effective))
    barred = next(on_the_way, path)
    status = os.stat(barred)
    owner = str(status.st_uid)
    with suppress(KeyError, NotImplementedError):  # a user without a name, or a system without such users
        owner = barred.owner()
    return CheckpointError(
        f"{path}: can't be read ({error.strerror}): {barred} belongs to {owner} and has the mode "
        f"{status.st_mode & 0o7777:04o}; let this user read it, with chmod or chown"
    )
