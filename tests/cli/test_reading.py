"""How the ``minisbert`` command reads files: formats, separators, encodings, gzip, and lines that are bad."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minisbert.cli import streams, textio
from minisbert.cli.textio import Reading
from tests.conftest import BATCH_TOLERANCE, largest
from tests.support.commandline import Calls, Encoder, Run, check_error, read_output, small_chunks, write_input

pytestmark = pytest.mark.usefixtures("place")

# --- formats and separators ----------------------------------------------------------------------------------


def test_chunks_are_bounded_in_characters_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textio, "CHUNK_CHARACTERS", 10)
    records = [textio.Record(i, "x" * length) for i, length in enumerate([4, 4, 4, 30, 1, 9, 3])]
    lengths = [[len(record.text or "") for record in chunk] for chunk in textio.chunks(records)]
    assert lengths == [[4, 4, 4], [30], [1, 9], [3]]


@pytest.mark.parametrize(
    ("argv", "content", "texts"),
    [
        ("a.txt", b"one\r\ntwo\n\nfour", ["one", "two", "", "four"]),
        ("a.txt", b"\xef\xbb\xbfone\n\xef\xbb\xbftwo\n", ["one", "\ufefftwo"]),
        ("a.txt", b"a\rb\n\r\n", ["a\rb", ""]),
        ("a.txt", b"\xef\xbb\xbf", []),
        ("a.txt", b'{"text": "x"}\n', ['{"text": "x"}']),
        ("a.unknown", b'{"text": "x"}\n', ["x"]),
        ("a.unknown", b'{ \n{"text": "x"}\n', ["{ ", '{"text": "x"}']),
        ("a.unknown --format text", b'{"text": "x"}\n', ['{"text": "x"}']),
        ("a.jsonl", b'\xef\xbb\xbf{"text": "one"}\r\n\n{"text": "t\\nwo"}', ["one", "t\nwo"]),
        ("a.jsonl", b"\n \n", []),
        ("a.NDJSON", b'{"text": "one", "other": NaN}\n', ["one"]),
        ("a.csv", b'\xef\xbb\xbftext\r\n"o\r\nne"\r\n\r\n"t""wo"\r\n', ["o\r\nne", 't"wo']),
        ("a.csv", b"id,text\n", []),
        ("a.csv", b"", []),
        ("a.data --format csv --field body", b"title,body\n1,one\n2,two\n", ["one", "two"]),
        ("b.csv --format jsonl --field title", b'{"title": "one", "body": "two"}\n', ["one"]),
        ("a.csv", b"id;text\n1;one, two\n", ["one, two"]),
        ("a.csv", b"id\ttext\n1\tone; two, three\n", ["one; two, three"]),
        ("a.csv", b'"id";"text"\n1;"one; two"\n', ["one; two"]),
        ("a.csv", b'"a ""quoted""\nhead; er",text\n1,one\n', ["one"]),
        ("a.csv --field last,first", b'"last,first",text\n"one, two",x\n', ["one, two"]),
        ("a.csv", b'text\none; two\n"three, four"\n', ["one; two", "three, four"]),
        ("a.csv --separator ;", b"text\none, two\n", ["one, two"]),
        ("a.csv --separator ;", b"text,a;text\nx,y;z\n", ["z"]),
        ("a.csv --separator |", b"id|text\n1|one, two\n", ["one, two"]),
        ("a.csv --separator tab", b"text\none, two\n", ["one, two"]),
        (r"a.csv --separator \t", b"text\none, two\n", ["one, two"]),
        ("a.tsv", b"text\none, two; three\n", ["one, two; three"]),
        ("a.tsv --field a,b", b"a,b\tc\none\ttwo\n", ["one"]),
        ("a.tsv --format jsonl", b'{"text": "x"}\n', ["x"]),
    ],
)
def test_how_files_are_read(run: Run, calls: Calls, argv: str, content: bytes, texts: list[str]) -> None:
    Path(argv.split()[0]).write_bytes(content)
    assert run("encode", *argv.split(), "-o", "out.npy", "--quiet") == (0, "", "")
    assert calls[1:] == [texts] * bool(texts)


CELLS = st.text(st.sampled_from('ab,;\t"\n \r'), max_size=6)


@given(st.lists(st.tuples(CELLS, CELLS), max_size=4), st.sampled_from(",;\t"), st.booleans())
def test_any_separator_is_found(rows: list[tuple[str, str]], separator: str, alone: bool) -> None:
    """A file of one column shows none: there, what would give other texts is refused."""
    written = io.StringIO(newline="")
    writer = csv.writer(written, delimiter=separator)
    writer.writerows([["text"], *([text] for _, text in rows)] if alone else [["id", "text"], *rows])
    handle, texts = io.BytesIO(written.getvalue().encode()), [text for _, text in rows]
    told = textio.Source("a.csv", handle, Reading("csv", separator=separator), 0)
    assert [record.text for record in told.records()] == texts
    found = textio.Source("a.csv", handle, Reading("csv"), 0).records()
    by_commas = csv.reader(io.StringIO(written.getvalue(), newline=""))
    if alone and not all(len(row) <= 1 for row in by_commas):
        with pytest.raises(streams.TextFileError, match="--separator"):
            list(found)
    else:
        assert [record.text for record in found] == texts


def test_a_csv_field_can_be_long_but_not_endless(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_input("csv", ["x" * 200_000])  # more than the csv module takes by default
    assert run("encode", source, "-o", "out.npy", "--truncation", "silent").status == 0
    monkeypatch.setattr(textio, "MAX_CSV_FIELD", 100)
    said = "texts.csv, line 2: not CSV (field larger than field limit (100))"
    check_error(run("encode", source, "-o", "out.npy"), f"minisbert: error: {said}")


# --- bad lines -----------------------------------------------------------------------------------------------

GO_ON = "; to go on without the line, choose --on-bad-lines null\n"
BAD_LINES = [  # a line among good ones, and what is said of it
    ("txt", b"caf\xe9", "not UTF-8 (byte 0xe9 after 'caf'); name another with --encoding, such as cp1252"),
    ("txt", b"\xe9 la carte", "not UTF-8 (byte 0xe9 at its start)"),
    ("txt --encoding ascii", b"caf\xc3\xa9", "not ASCII (byte 0xc3 after 'caf')"),
    ("txt --encoding shift_jis", b"a\x81 ", "not SHIFT_JIS (byte 0x81 after 'a')"),
    ("jsonl", b'{"text": "caf\xe9"}', 'not UTF-8 (byte 0xe9 after \'{"text": "caf\')'),
    ("jsonl", b'{"text": ', "not JSON (Expecting value, character"),
    ("jsonl", b"[" * 100_000, "not JSON ("),
    ("jsonl", b'["x"]', "expected a JSON object, found list"),
    ("jsonl", b'{"a": 1, "b": 2}', "no field 'text'; found 'a', 'b'; choose with --field"),
    ("jsonl", b'{"text": 3}', "field 'text' must be a string, found int"),
    ("jsonl", b'{"text": NaN}', "field 'text' must be a string, found NoneType"),
    ("jsonl", b'{"text": "\\ud800"}', "field 'text' holds half of a surrogate pair"),
    ("csv", b"caf\xe9,1", "not UTF-8 (byte 0xe9 after 'caf')"),
    (
        "csv",
        b"1,2,3",
        "fields: 3, and in the header: 2; quote those that hold a comma, or choose another --sep",
    ),
    ("csv", b'"two\nlines"', "fields: 1, and in the header: 2"),
    ("csv", b'"half" quoted,2', "not CSV (',' expected after '\"')"),
]


def with_bad_lines(kind: str, bad: bytes, count: int = 1) -> str:
    """Write a file with a good line, bad ones from line 3 on, and a good one."""
    before, good, after = {
        "txt": (b"nothing\n", b"one\n", b"two\n"),
        "jsonl": (b"\n", b'{"text": "one", "id": 1}\n', b'{"text": "two", "id": 2}\n'),
        "csv": (b"text,id\n", b"one,1\n", b"two,2\n"),
    }[kind]
    Path(f"a.{kind}").write_bytes(before + good + (bad + b"\n") * count + after)
    return f"a.{kind}"


@pytest.mark.parametrize(("kind", "bad", "said"), BAD_LINES)
def test_a_bad_line_is_named_before_anything_is_computed(
    run: Run, calls: Calls, kind: str, bad: bytes, said: str
) -> None:
    kind, *options = kind.split()
    name = with_bad_lines(kind, bad)
    for argv in (["encode", name, "-o", "out.npy"], ["search", "x", name], ["rerank", "x", name]):
        ran = run(*argv, *options)
        check_error(ran, f"minisbert: error: {name}, line 3: {said}")
        assert ran.err.endswith(GO_ON)
    assert calls == []


@pytest.mark.parametrize(("kind", "bad", "said"), BAD_LINES)
def test_a_bad_line_can_be_null(
    run: Run, bert: Encoder, output: Path, kind: str, bad: bytes, said: str
) -> None:
    """Row i of the output is still text i of the input, and all other vectors are what they are."""
    kind, *options = kind.split()
    options += ["--on-bad-lines", "null"]
    name = with_bad_lines(kind, bad)
    good = ["nothing"] * (kind == "txt") + ["one", "two"]
    status, out, err = run("encode", name, "-o", output, *options)
    assert (status, out) == (0, "")
    warning, summary = err.splitlines()
    assert warning.startswith(f"minisbert: warning: {name}: 1 bad line without a vector: 3 ({said}")
    assert summary == f"minisbert: {output}: {len(good) + 1} x 75 float32"
    texts, vectors = read_output(output)
    assert texts in ([*good[:-1], None, "two"], None)
    assert np.isnan(vectors).all(1).tolist() == [*(False for _ in good[:-1]), True, False]
    expected = bert.encode(good)
    assert largest(vectors[~np.isnan(vectors).any(1)] - expected) <= BATCH_TOLERANCE
    found = [json.loads(line) for line in run("search", "x", name, "--json", *options).out.splitlines()]
    assert sorted(row["text"] for row in found) == sorted(good)
    assert {row["text"]: row["line"] for row in found}["two"] == bad.count(b"\n") + 4


@small_chunks
def test_the_numbers_of_bad_lines_are_told(run: Run, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textio, "MAX_SHOWN", 3)
    name = with_bad_lines("txt", b"caf\xe9", 1234)
    argv = ["encode", name, "-o", output, "--on-bad-lines", "null", "--quiet"]
    problem = "not UTF-8 (byte 0xe9 after 'caf'); name another with --encoding, such as cp1252"
    numbers = f"3 ({problem}), 4, 5 and 1,231 more"
    said = f"minisbert: warning: {name}: 1,234 bad lines without a vector: {numbers}\n"
    assert run(*argv) == (0, "", said)
    assert np.isnan(read_output(output)[1]).all(1).nonzero()[0].tolist() == list(range(2, 1236))


def test_only_bad_lines(run: Run, output: Path) -> None:
    Path("a.txt").write_bytes(b"\xff\n\xff\n")
    argv = ["encode", "a.txt", "-o", output, "--on-bad-lines", "null"]
    assert run(*argv).status == 0
    texts, vectors = read_output(output)
    assert texts in ([None, None], None)
    assert vectors.shape == (2, 75)
    assert np.isnan(vectors).all()


def test_bits_have_nothing_to_stand_for_a_bad_line(run: Run) -> None:
    argv = [
        "encode",
        with_bad_lines("txt", b"\xff"),
        "--precision",
        "ubinary",
        "--on-bad-lines",
        "null",
        "-o",
    ]
    for output in ("out.npy", "out.parquet"):
        check_error(run(*argv, output), f"{output}: bits have no NaN to stand for a bad line; choose .jsonl")
    assert run(*argv, "out.jsonl").status == 0
    rows = [json.loads(line) for line in Path("out.jsonl").read_bytes().splitlines()]
    assert [row["embedding"] is None for row in rows] == [False, False, True, False]
    assert rows[2] == {"text": None, "embedding": None}


def test_after_a_quote_that_is_never_closed_there_is_nothing_more(run: Run) -> None:
    name = with_bad_lines("csv", b'"never closed')
    said = f"{name}: 1 bad line without a vector: 3 (not CSV (unexpected end of data))"
    ran = run("encode", name, "-o", "out.npy", "--on-bad-lines", "null")
    assert said in ran.err
    assert np.isnan(np.load("out.npy")).all(1).tolist() == [False, True]


@pytest.mark.parametrize("advice", [[], ["--on-bad-lines", "null"]])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,body\n1,x\n", "no column 'text'; found 'id', 'body'; choose with --field or --separator"),
        (b"id;body\n1;x\n", "no column 'text'; found 'id', 'body'; choose with --field or --separator"),
        (b"text,text\nx,y\n", "more than one column 'text'; found 'text', 'text'"),
        (
            b"text,a;text\nx,y;z\n",
            "there is a column 'text' with a comma and with a semicolon between columns",
        ),
        (b'"text\n', "not CSV (unexpected end of data)"),
        (b"text,caf\xe9\n", "not UTF-8 (byte 0xe9 after 'text,caf')"),
    ],
)
def test_a_bad_header_is_an_error(run: Run, content: bytes, message: str, advice: list[str]) -> None:
    Path("a.csv").write_bytes(content)
    check_error(run("encode", "a.csv", "-o", "out.npy", *advice), f"error: a.csv, line 1: {message}")


def test_a_pipe_that_looks_like_jsonl_may_be_text(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"a": 1} is JSON\n')))
    said = (
        "standard input, line 1: not JSON (Extra data, character 10); if this is plain text, choose --format"
    )
    check_error(run("encode", "-o", "out.npy"), said)
