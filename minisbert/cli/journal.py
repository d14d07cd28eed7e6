"""What ``minisbert encode`` has computed so far, in OUTPUT.partial: a run that is killed goes on from there.

The vectors of each chunk are added as they are made, with a hash of the chunk's texts. A later run reads the input from
its start, takes from there what is there, and computes the rest; as it does so chunk by chunk, too, each vector has
the bits that it would have had. The file is locked while a process writes the output, so that no two of them do.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

import minisbert
from minisbert import unfinished
from minisbert.cli import writers
from minisbert.cli.report import tell
from minisbert.cli.settings import Settings
from minisbert.cli.streams import TextFileError, naming
from minisbert.cli.writers import Vectors
from minisbert.errors import TruncationWarning

if sys.platform != "win32":
    import fcntl

__all__ = ["Run", "open_journal"]

SUFFIX = ".partial"
HEAD = 1 << 16  # the most bytes that the first line has
MARK = {"minisbert": "partial output"}  # what makes the first line one of ours
# Of a chunk: rows, a checksum of the rest, a hash of the texts. Then come the vectors, and a bit for each that was cut.
CHUNK = struct.Struct("<II16s")
KEEP_SECONDS = 10.0  # what took less to compute is removed, as any temporary file, by an error or a signal

Remember = Callable[[Callable[..., Any]], Callable[..., Any]]


class Run(NamedTuple):
    """What has to be the same for a run to go on: then it gives the same vectors for the same texts."""

    settings: Settings
    backend: str
    arithmetic: str
    input_bytes: int | None  # None for a pipe, which nobody can read once more
    empty: Vectors

    def facts(self) -> dict[str, Any]:
        """Return what the first line of a file says of it."""
        facts = {
            "version": minisbert.__version__,
            "backend": self.backend,
            "arithmetic": self.arithmetic,
            "input_bytes": self.input_bytes,
            "row_bytes": self.row_bytes,
        }
        return MARK | facts | self.settings._asdict()

    @property
    def row_bytes(self) -> int:
        """How many bytes a vector has."""
        return int(self.empty.shape[1]) * self.empty.itemsize


@contextmanager
def open_journal(path: str, run: Run, resume: bool) -> Iterator[Remember]:
    """Lock an output, and yield what makes a function that encodes one that remembers what it did.

    Raises
    ------
    TextFileError
        If another process writes that output; if there is something to go on from, and nobody asked for that, or
        something that was made by another run.
    """
    target = Path(os.path.realpath(path))
    place = target.with_name(target.name + SUFFIX)
    with _locked(place, path) as handle:
        journal = _Journal(handle, place, path, run)
        try:
            journal.begin(resume)
            yield journal.remember
        except BaseException:
            journal.leave()
            raise
        unfinished.remove(place)
    if os.name == "nt":  # where a file that is open can't be removed
        unfinished.remove(place)


@contextmanager
def _locked(place: Path, name: str) -> Iterator[BinaryIO]:
    """Open a file, or make it, and have it for this process alone."""
    if not os.path.exists(place):
        unfinished.temporary.add(place)  # before it is there: a signal may strike while it is made
    with naming(name):
        number = os.open(place, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
    with open(number, "r+b", buffering=0) as handle:
        if not _is_ours(handle, place):
            unfinished.temporary.discard(place)
            what = f"another process is writing it, and has {place.name}"
            raise TextFileError(f"{name}: {what}; wait for its end, or name another file")
        yield handle


def _is_ours(handle: BinaryIO, place: Path) -> bool:
    """Lock a file, and say whether that is done, and the one that had it before has not removed it meanwhile."""
    try:
        if sys.platform != "win32":
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # some file systems know no locks
        pass
    try:
        return os.path.samestat(os.fstat(handle.fileno()), os.stat(place))
    except FileNotFoundError:
        return False


class _Journal:
    """A file that is locked, and how far it is read or written."""

    def __init__(self, handle: BinaryIO, place: Path, name: str, run: Run) -> None:
        self._handle = handle
        self._place = place
        self._name = name
        self._run = run
        self._rows = 0  # read or written so far
        self._ends = True  # whether nothing is left to read
        self._start = time.monotonic()

    def begin(self, resume: bool) -> None:
        """Read on from the first line of what is there, or write one."""
        head = self._handle.readline(HEAD)
        there = self._parse(head)
        rows = self._count(there["row_bytes"]) if there else 0
        if rows and not resume:
            raise TextFileError(
                f"{self._place}: has {rows:,} rows of a run that was cut short; go on from there with --resume, or "
                "remove it to start anew"
            )
        if rows:
            self._compare(there)
            tell(f"{self._name}: goes on after {rows:,} rows")
            self._handle.seek(len(head))
            self._ends = False
            unfinished.kept.add(self._place)
            return
        if resume:
            tell(f"{self._name}: there is nothing to go on from; starts with the first row")
        unfinished.temporary.add(self._place)
        self._end_at(0)
        self._write(json.dumps(self._run.facts()).encode() + b"\n")

    def _parse(self, head: bytes) -> dict[str, Any]:
        """Return what the first line says: nothing in a new file."""
        try:
            there = json.loads(head or b"{}")
            if not head or (there.items() >= MARK.items() and isinstance(there["row_bytes"], int)):
                return dict(there)
        except (ValueError, AttributeError, KeyError):
            pass
        raise TextFileError(f"{self._place}: is no part of an output of minisbert; rename it, or remove it")

    def remember(self, encode: Callable[..., Any]) -> Callable[..., Any]:
        """Make of a function that encodes texts one that looks first whether that has been done."""

        def encode_once(texts: Sequence[str], show_progress_bar: Callable[[int], object]) -> Any:
            digest = _hash(texts)
            found = self._next(digest)
            if found is None:
                vectors, cut = _encode(encode, texts, show_progress_bar)
                self._add(digest, vectors, cut)
            else:
                vectors, cut = found
                show_progress_bar(len(texts))
            if cut:
                warnings.warn(TruncationWarning("some texts were cut", cut), stacklevel=2)
            self._rows += len(vectors)
            return vectors

        return encode if self._run.input_bytes is None else encode_once

    def leave(self) -> None:
        """Remove it if it is worth little, and else say how to go on."""
        if self._place in unfinished.temporary:
            unfinished.remove(self._place)
        elif self._place in unfinished.kept and self._rows:
            tell(f"{self._place}: {writers.GO_ON}")
        unfinished.kept.discard(self._place)

    def _count(self, row_bytes: int) -> int:
        """Count the rows of all chunks that are there."""
        rows = 0
        while chunk := self._read(row_bytes):
            rows += chunk[1]
        return rows

    def _compare(self, there: dict[str, Any]) -> None:
        """Refuse what was made by another run."""
        different = [name for name, value in self._run.facts().items() if there.get(name) != value]
        if different:
            what = "the input changed" if different == ["input_bytes"] else f"other {', '.join(different)}"
            raise TextFileError(
                f"{self._place}: is of a run that differs from this one ({what}); use what it was begun with, or "
                "remove it to start anew"
            )

    def _next(self, digest: bytes) -> tuple[Vectors, tuple[int, ...]] | None:
        """Return the vectors of the next chunk, and which of its texts were cut, if they are there."""
        if self._ends:
            return None
        start = self._handle.tell()
        chunk = self._read(self._run.row_bytes)
        if chunk is None:  # the end, or what was cut in the middle
            self._ends = True
            self._end_at(start)
            return None
        there, rows, content = chunk
        if there != digest:
            raise TextFileError(
                f"{self._place}: the input changed since: of texts {self._rows + 1:,} to {self._rows + rows:,} not all "
                "are what they were; bring them back, or remove this file to start anew"
            )
        shape, end = (rows, self._run.empty.shape[1]), rows * self._run.row_bytes
        vectors = np.frombuffer(content[:end], self._run.empty.dtype).reshape(shape)
        bits = np.unpackbits(np.frombuffer(content[end:], np.uint8), count=rows)
        return vectors, tuple(np.flatnonzero(bits).tolist())

    def _read(self, row_bytes: int) -> tuple[bytes, int, bytes] | None:
        """Read a chunk: the hash of its texts, its rows and its content; None where it is not whole."""
        head = self._handle.read(CHUNK.size)
        if len(head) < CHUNK.size:
            return None
        rows, checksum, digest = CHUNK.unpack(head)
        size = rows * row_bytes + -(-rows // 8)
        content = self._handle.read(size) if size <= os.fstat(self._handle.fileno()).st_size else b""
        if len(content) < size or zlib.crc32(content, zlib.crc32(digest)) != checksum:
            return None
        return digest, rows, content

    def _add(self, digest: bytes, vectors: Vectors, cut: tuple[int, ...]) -> None:
        bits = np.isin(np.arange(len(vectors)), cut)
        content = vectors.tobytes() + np.packbits(bits).tobytes()
        self._write(CHUNK.pack(len(vectors), zlib.crc32(content, zlib.crc32(digest)), digest) + content)
        if time.monotonic() - self._start >= KEEP_SECONDS:
            unfinished.temporary.discard(self._place)
            unfinished.kept.add(self._place)

    def _write(self, content: bytes) -> None:
        with naming(self._name):
            while content:
                content = content[self._handle.write(content) :]

    def _end_at(self, place: int) -> None:
        with naming(self._name):
            self._handle.seek(place)
            self._handle.truncate()


def _encode(
    encode: Callable[..., Any], texts: Sequence[str], show_progress_bar: Callable[[int], object]
) -> tuple[Vectors, tuple[int, ...]]:
    """Encode texts; return their vectors, and the indices of those that were cut, of which nobody is warned."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", TruncationWarning)
        vectors = encode(texts, show_progress_bar=show_progress_bar)
    cut: tuple[int, ...] = ()
    for warning in caught:
        if isinstance(warning.message, TruncationWarning):
            cut = warning.message.rows
        else:
            warnings.warn(warning.message, stacklevel=2)
    return vectors, cut


def _hash(texts: Sequence[str]) -> bytes:
    from hashlib import blake2b  # of OpenSSL, which not every command needs

    return blake2b(json.dumps(texts).encode(), digest_size=16).digest()
