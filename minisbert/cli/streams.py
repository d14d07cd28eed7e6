"""Files and standard streams of the ``minisbert`` command: their names in errors, and their bytes as lines of text."""

from __future__ import annotations

import codecs
import errno
import gzip
import io
import os
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from minisbert.errors import MinisbertError

__all__ = [
    "MARK",
    "STDIN",
    "STDOUT",
    "TextFileError",
    "decode_lines",
    "foreign_byte",
    "naming",
    "open_binary",
    "start_of",
]

STDIN, STDOUT = "standard input", "standard output"
# Where the reader of a pipe has gone, writing fails with the first; Windows gives the second.
CLOSED_PIPE = (errno.EPIPE, errno.EINVAL) if os.name == "nt" else (errno.EPIPE,)

HEAD = 64  # bytes that are looked at to find out what a stream holds
GZIP = b"\x1f\x8b"
BYTE_ORDER_MARKS = {  # UTF-32's before those of UTF-16, of which one begins as it does
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
SHEET = "save the sheet as CSV"
UNPACK = "unpack it first"
NO_TEXT = {  # how files begin that hold no text; what each is, and what to do
    b"PK\x03\x04": ("a zip archive, as .xlsx and .docx files are", f"unpack it, or {SHEET}"),
    b"\xd0\xcf\x11\xe0": ("an old Office file, as .xls files are", SHEET),
    b"BZh91AY&SY": ("compressed by bzip2", UNPACK),
    b"\xfd7zXZ\x00": ("compressed by xz", UNPACK),
    b"(\xb5/\xfd": ("compressed by zstd", UNPACK),
    b"PAR1\x15": ("a Parquet file", "save it as CSV or JSONL"),
    b"ARROW1\x00\x00": ("an Arrow file", "save it as CSV or JSONL"),
    b"\x93NUMPY": ("a NumPy array", "name the file of the texts"),
    b"SQLite format 3\x00": ("a database of SQLite", "save the table as CSV"),
    b"%PDF-": ("a PDF", "save its text"),
}
MARK = "minisbert-mark"  # the name under which codecs know `_mark`


class TextFileError(MinisbertError, ValueError):
    """A text file cannot be read, or a file of vectors cannot be written, as asked."""


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Have the system's errors, such as that of a full disk, name the file or stream that is read or written."""
    try:
        yield
    except OSError as error:
        if name == STDOUT and error.errno in CLOSED_PIPE:
            raise BrokenPipeError from error
        error.filename, error.filename2 = name, None
        raise


@contextmanager
def open_binary(path: str) -> Iterator[BinaryIO]:
    """Open a file, or standard input for ``-``, to read bytes."""
    if path != "-":
        with open(path, "rb") as handle:
            yield handle
    elif hasattr(sys.stdin, "buffer"):
        yield sys.stdin.buffer  # not ours to close
    else:
        raise TextFileError(f"{STDIN} is closed, or gives no bytes; name a file to read")


def start_of(handle: BinaryIO) -> int | None:
    """Return where to go in a regular file to read it once more; None for a pipe, whatever it says of itself.

    On Windows, older Pythons say that a pipe can be sought in.
    """
    try:
        is_regular = stat.S_ISREG(os.fstat(handle.fileno()).st_mode)
    except io.UnsupportedOperation:  # it is no file of the system's
        return None
    return handle.tell() if is_regular else None


def decode_lines(handle: BinaryIO, name: str, encoding: str | None) -> tuple[str, Iterator[str]]:
    r"""Find out how a stream is packed and encoded; return the encoding, and its lines with their ends.

    A line ends with ``\n`` and nothing else. A byte that the encoding does not know is marked: see `foreign_byte`.
    """
    with _reading(name):
        head, stream = _look_at(handle)
        if head.startswith(GZIP):
            head, stream = _look_at(gzip.GzipFile(fileobj=stream))
    codec = _find_encoding(name, head, encoding)
    return codec, _lines(io.TextIOWrapper(stream, codec, errors=MARK, newline="\n"), name)


def foreign_byte(line: str) -> tuple[int, str] | None:
    """Return the first byte of a line that its encoding does not know, if there is one, and the text just before it."""
    try:
        line.encode()
    except UnicodeEncodeError as error:
        return ord(line[error.start]) & 0xFF, line[max(0, error.start - 20) : error.start]
    return None


def _mark(error: Any) -> tuple[str, int]:
    """Put half of a surrogate pair, which is no character, in the place of each byte that can't be decoded."""
    return "".join(chr(0xDC00 + byte) for byte in error.object[error.start : error.end]), error.end


codecs.register_error(MARK, _mark)


class _Rejoined(io.RawIOBase):
    """A stream of which the first bytes have been read already."""

    def __init__(self, head: bytes, rest: Any) -> None:
        self._head = head
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._head or self._rest.read1(len(buffer))
        self._head = b""
        buffer[: len(block)] = block
        return len(block)


def _look_at(stream: Any) -> tuple[bytes, io.BufferedReader]:
    head = stream.read(HEAD)
    return head, io.BufferedReader(_Rejoined(head, stream), 1 << 16)


def _find_encoding(name: str, head: bytes, told: str | None) -> str:
    """Choose the codec: what a byte-order mark says, else what was told, else UTF-8."""
    for mark, codec in BYTE_ORDER_MARKS.items():
        if head.startswith(mark):
            return codec
    for start, (what, advice) in NO_TEXT.items():
        if head.startswith(start):
            raise TextFileError(f"{name}: is {what}, and not text; {advice}")
    codec = codecs.lookup(told or "utf-8").name
    if codec in ("utf-16", "utf-32"):
        raise TextFileError(
            f"{name}: begins without a byte-order mark; choose --encoding {codec}-le or {codec}-be"
        )
    if told is None and 0 in head:
        order = "le" if head[1::2].count(0) > head[::2].count(0) else "be"
        raise TextFileError(
            f"{name}: holds NUL bytes, as UTF-16 does and UTF-8 hardly ever; choose --encoding utf-16-{order}, or "
            "utf-8 if it is that"
        )
    return codec


def _lines(stream: io.TextIOWrapper, name: str) -> Iterator[str]:
    with _reading(name):
        first = next(stream, "").removeprefix("\ufeff")
        if first:
            yield first
        yield from stream


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Have errors in reading name what is read."""
    with naming(name):
        try:
            yield
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            problem = f"the gzip file is cut or damaged ({error})"
            raise TextFileError(f"{name}: {problem}; get it once more") from error
