"""How the bytes of files and pipes become text: encodings, byte-order marks, gzip, and what is no text at all."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
from itertools import islice
from pathlib import Path

import pytest

from minisbert.cli import textio
from minisbert.cli.textio import Reading
from tests.support.commandline import Calls, Run, check_error, write_input

pytestmark = pytest.mark.usefixtures("place")


def read(name: str, **asked: str | None) -> list[str | None]:
    with textio.open_source(name, Reading(**asked)) as source:
        return [record.text for record in source.records()]


ENCODED = [  # what is told, what it is encoded as, and what stands before it
    (None, "utf-8", b""),
    (None, "utf-8-sig", b""),
    (None, "utf-16-le", b"\xff\xfe"),
    (None, "utf-16-be", b"\xfe\xff"),
    (None, "utf-32-le", b"\xff\xfe\0\0"),
    (None, "utf-32-be", b"\0\0\xfe\xff"),
    ("utf-16", "utf-16-be", b"\xfe\xff"),
    ("utf-16-le", "utf-16-le", b""),
    ("utf-16-le", "utf-16-le", b"\xff\xfe"),
    ("cp1252", "cp1252", b""),
    ("cp1252", "utf-8-sig", b""),
    ("shift_jis", "shift_jis", b""),
]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("told", "encoding", "mark"), ENCODED)
@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv"])
def test_encodings(kind: str, told: str | None, encoding: str, mark: bytes, packed: bool) -> None:
    texts = ["one, two", "", "日本; の" if encoding == "shift_jis" else "né"]
    text = write_input(kind, texts).read_text(encoding="utf-8")
    if kind == "jsonl":
        text = "".join(json.dumps(json.loads(line), ensure_ascii=False) + "\n" for line in text.splitlines())
    content = mark + text.encode(encoding)
    name = f"a.{kind}.gz" if packed else f"a.{kind}"
    Path(name).write_bytes(gzip.compress(content) if packed else content)
    assert read(name, encoding=told) == texts
    Path("a.bin").write_bytes(gzip.compress(content))  # what it is, and not what it is called
    assert read("a.bin", encoding=told, format={"txt": "text"}.get(kind, kind)) == texts


class Slow(io.RawIOBase):
    """A pipe that gives a byte at a time."""

    def __init__(self, content: bytes) -> None:
        self._bytes = iter(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:
        block = bytes(islice(self._bytes, 1))
        buffer[: len(block)] = block
        return len(block)


@pytest.mark.parametrize("packed", [False, True])
def test_a_slow_pipe_is_known_for_what_it_is(packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    content = '{"text": "one"}\n{"text": "two"}\n'.encode("utf-16")
    slow = io.BufferedReader(Slow(gzip.compress(content) if packed else content))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(slow))
    assert read("-") == ["one", "two"]


def test_standard_input_can_be_a_file_that_has_been_read_in_part(monkeypatch: pytest.MonkeyPatch) -> None:
    with write_input("txt", ["one", "two", "three"]).open() as file:
        file.buffer.readline()
        monkeypatch.setattr(sys, "stdin", file)
        with textio.open_source("-", Reading()) as source:
            for _ in range(2):
                assert [record.text for record in source.records()] == ["two", "three"]


HOLDS_NUL = "holds NUL bytes, as UTF-16 does and UTF-8 hardly ever; choose --encoding"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            gzip.compress(b"one\n" * 1000, mtime=0)[:-20],
            "the gzip file is cut or damaged (Compressed file ended before",
        ),
        (
            gzip.compress(b"one\n" * 1000, mtime=0)[:-8] + b"12345678",
            "the gzip file is cut or damaged (CRC check failed",
        ),
        (gzip.compress(b"one\n", mtime=0) + b"more", "the gzip file is cut or damaged (Not a gzipped file"),
        (b"\x1f\x8bnothing at all", "the gzip file is cut or damaged (Unknown compression method"),
        (b"PK\x03\x04\n\0\0\0", "is a zip archive, as .xlsx and .docx files are, and not text; unpack it"),
        (b"BZh91AY&SY\n", "is compressed by bzip2, and not text; unpack it first"),
        (b"PAR1\x15\x04\n", "is a Parquet file, and not text; save it as CSV or JSONL"),
        ("one\n".encode("utf-16-le"), f"{HOLDS_NUL} utf-16-le"),
        ("one\ntwo".encode("utf-16-be"), f"{HOLDS_NUL} utf-16-be"),
        ("日本\n".encode("utf-16-le"), f"{HOLDS_NUL} utf-16-le"),
    ],
)
def test_what_is_no_utf_8_is_named(run: Run, calls: Calls, content: bytes, said: str) -> None:
    Path("a.txt").write_bytes(content)
    check_error(run("encode", "a.txt", "-o", "out.npy"), f"minisbert: error: a.txt: {said}")
    assert calls == []
    assert os.listdir() == ["a.txt"]


def test_a_byte_order_must_be_known(run: Run) -> None:
    Path("a.txt").write_bytes("one\n".encode("utf-16-le"))
    said = "a.txt: begins without a byte-order mark; choose --encoding utf-16-le or utf-16-be"
    check_error(run("encode", "a.txt", "-o", "out.npy", "--encoding", "UTF16"), said)
    assert read("a.txt", encoding="utf-8") == ["o\0n\0e\0", "\0"]  # whoever insists
