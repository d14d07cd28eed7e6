"""The files that a checkpoint was read from: which they are, whether they are still the same, and what is in them.

A process reads a checkpoint once, a pickle holds the folder instead of the weights, and a map shows whatever its file
holds by now. With each of them, a checkpoint that was replaced or overwritten would give other vectors without a word.
So loading notes every file that it looks for, there or not, with a mark that changes when the file does.
"""

from __future__ import annotations

import mmap
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias
from weakref import ref

from minisbert.errors import CheckpointError

__all__ = ["Files", "give_back", "map_file", "note_file", "watch_files"]

# Of a regular file: its device and number there, which tell it from others, its size, and when it was last written to.
Mark: TypeAlias = tuple[int, int, int, int]
SHA256 = re.compile(r"[0-9a-f]{64}")


class Files:
    """What was looked for while a checkpoint was read, and what of it is still mapped."""

    def __init__(self) -> None:
        self._marks: dict[Path, Mark | None] = {}
        self._maps: list[tuple[ref[mmap.mmap], str, Mark]] = []
        self._fingerprint = ""

    def note(self, path: Path) -> None:
        """Note a file before it is read; of several times the first counts."""
        if path not in self._marks:
            self._marks[path] = _mark(path)

    def note_map(self, content: mmap.mmap, path: str, mark: Mark) -> None:
        """Note a map of a file."""
        self._maps.append((ref(content), path, mark))

    def give_back(self) -> None:
        """Take the pages of all maps out of this process's memory: most are needed but once, for checks or packing.

        Those that are needed again come back from the system's cache of the file as they are touched.
        """
        self._maps = [item for item in self._maps if item[0]() is not None]
        if hasattr(mmap, "MADV_DONTNEED"):  # not on Windows
            for content in filter(None, (item[0]() for item in self._maps)):
                content.madvise(mmap.MADV_DONTNEED)

    def first_changed(self) -> Path | None:
        """Return a file that is not the one that was read, or that has come or gone since; None if all are the same."""
        return next((path for path, mark in self._marks.items() if _mark(path) != mark), None)

    def refuse_overwritten(self) -> None:
        """Refuse to go on with a file that was written to while it is mapped, which takes a system call to notice.

        Another file that has taken its name does no harm, as the map holds on to the one that was read.
        """
        for _, path, mark in self._maps:
            found = _mark(path)
            if found is not None and found != mark and found[:2] == mark[:2]:
                raise CheckpointError(
                    f"{path}: was written to since this encoder was loaded, which reads its weights from there; load "
                    "the checkpoint again, and replace one that is in use by renaming a new one into its place"
                )

    def fingerprint(self, folder: Path) -> str:
        """Return a hash of all that was read of a folder, names and contents: equal for equal checkpoints.

        Files are read for it once in a process, and the weights in the Hugging Face cache not at all.

        Raises
        ------
        CheckpointError
            If a file is no longer the one that was read, so that nothing can be said of that one.
        """
        import hashlib  # of OpenSSL, which takes some milliseconds that `load` need not spend

        if not self._fingerprint:
            self._refuse_changed()
            there = [
                (path.relative_to(folder).as_posix(), path, mark)
                for path, mark in self._marks.items()
                if mark
            ]
            lines = [f"{_sha256(path, mark)}  {name}\n" for name, path, mark in sorted(there)]
            self._refuse_changed()
            self._fingerprint = hashlib.sha256(os.fsencode("".join(lines))).hexdigest()
        return self._fingerprint

    def _refuse_changed(self) -> None:
        path = self.first_changed()
        if path is not None:
            raise CheckpointError(
                f"{path}: was changed or removed since the encoder was loaded, so a pickle of the encoder, or of its "
                "vectors a file, could not say what it stands for; load the checkpoint again, and use that"
            )


_reading: ContextVar[Files | None] = ContextVar("_reading", default=None)


@contextmanager
def watch_files() -> Iterator[Files]:
    """Note the files that are looked for, and mapped, in this context."""
    files = Files()
    token = _reading.set(files)
    try:
        yield files
    finally:
        _reading.reset(token)


def note_file(path: Path) -> None:
    """Note that somebody looks for a file, if that is watched."""
    if (files := _reading.get()) is not None:
        files.note(path)


def give_back() -> None:
    """Let go of what was looked at of the files that are being read, if that is watched: see `Files.give_back`."""
    if (files := _reading.get()) is not None:
        files.give_back()


def map_file(path: Path) -> mmap.mmap:
    """Return a read-only map of a file, which keeps one file descriptor."""
    try:
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            mark = _mark_of(os.fstat(file.fileno()))
    except OSError as error:
        if error.errno is None:
            raise
        raise CheckpointError(
            f"{path}: can't be mapped into memory ({error.strerror}). Each model in use maps its files of weights, and "
            "keeps a file descriptor for each: raise the limit (ulimit -n, ulimit -v), or let go of some models"
        ) from error
    if (files := _reading.get()) is not None:
        files.note_map(content, str(path), mark)
    return content


def _mark(path: str | Path) -> Mark | None:
    """Return the mark of a regular file; None where there is none."""
    try:
        found = None if "\0" in str(path) else os.stat(path)
    except UnicodeEncodeError:  # a name that no file can have
        return None
    except OSError as error:
        if error.errno is None:  # no answer of the system's: a time limit's TimeoutError, say
            raise
        return None
    return _mark_of(found) if found and stat.S_ISREG(found.st_mode) else None


def _mark_of(found: os.stat_result) -> Mark:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


@lru_cache(1024)
def _sha256(path: Path, mark: Mark) -> str:
    """Return the hash of a file's content; large files in the Hugging Face cache are links to it."""
    import hashlib

    link = Path(os.readlink(path)) if path.is_symlink() else path
    if link.parent.name == "blobs" and SHA256.fullmatch(link.name):
        return link.name
    digest = hashlib.sha256()
    try:
        with path.open("rb") as content:
            for piece in iter(lambda: content.read(1 << 20), b""):
                digest.update(piece)
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read ({error.strerror})") from error
    return digest.hexdigest()
