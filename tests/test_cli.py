"""``minisbert encode``: every input and output, errors in one line, runs that are cut short."""

from __future__ import annotations

import errno
import io
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minisbert
from commandline import (
    LONG,
    TEXTS,
    Calls,
    Encoder,
    Patch,
    Run,
    check_error,
    from_jsonl,
    posix,
    process,
    read_output,
    small_chunks,
    write_input,
)
from conftest import BATCH_TOLERANCE, largest
from minisbert import cli, textio

pytestmark = pytest.mark.usefixtures("place")

# --- encode: what goes in and what comes out -----------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "binary", "ubinary"])
def test_encode_gives_what_the_encoder_gives(run: Run, bert: Encoder, precision: str, output: Path) -> None:
    expected = bert.encode(TEXTS, precision=precision)
    said = f"minisbert: {output}: 6 x {expected.shape[1]} {expected.dtype}\n"
    for kind in ("txt", "jsonl", "csv"):
        source = write_input(kind, TEXTS)
        assert run("encode", source, "-o", output, "--precision", precision) == (0, "", said)
        texts, vectors = read_output(output)
        np.testing.assert_array_equal(vectors, expected, strict=output.suffix != ".jsonl")
        assert texts in (TEXTS, None)


@small_chunks
def test_encode_streams_in_chunks(run: Run, bert: Encoder, calls: Calls, output: Path) -> None:
    assert run("encode", write_input("jsonl", TEXTS[:5]), "-o", output, "--quiet") == (0, "", "")
    assert calls == [[], TEXTS[:2], TEXTS[2:4], TEXTS[4:5]]
    texts, vectors = read_output(output)
    assert largest(vectors - bert.encode(TEXTS[:5])) <= BATCH_TOLERANCE
    assert texts in (TEXTS[:5], None)
    calls.clear()
    Path("bad.txt").write_bytes(b"one\ntwo\nthree\n\xff\n")
    assert run("encode", "bad.txt", "-o", output).status == 2
    assert calls == [[], ["one", "two"]]  # a chunk is encoded before the next is read


def test_chunks_are_bounded_in_characters_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textio, "CHUNK_CHARACTERS", 10)
    records = [textio.Record(i, "x" * length) for i, length in enumerate([4, 4, 4, 30, 1, 9, 3])]
    lengths = [[len(record.text) for record in chunk] for chunk in textio.chunks(records)]
    assert lengths == [[4, 4, 4], [30], [1, 9], [3]]


@pytest.mark.parametrize("source", [[], ["-"]])
def test_in_a_pipe(run: Run, bert: Encoder, monkeypatch: pytest.MonkeyPatch, source: list[str]) -> None:
    read, write = os.pipe()
    os.write(write, "\n".join(TEXTS).encode())
    os.close(write)
    with open(read) as pipe:
        monkeypatch.setattr(sys, "stdin", pipe)
        status, out, err = run("encode", *source, "-o", "-")
    assert (status, err) == (0, "")
    texts, vectors = from_jsonl(out.encode())
    assert texts == TEXTS
    np.testing.assert_array_equal(vectors, bert.encode(TEXTS), strict=True)


def test_no_texts_give_no_rows(run: Run, output: Path) -> None:
    assert run("encode", write_input("txt", []), "-o", output, "--quiet") == (0, "", "")
    texts, vectors = read_output(output)
    assert vectors.shape == ((0,) if output.suffix == ".jsonl" else (0, 75))
    assert not texts


@pytest.mark.parametrize(
    ("argv", "content", "texts"),
    [
        ("a.txt", b"one\r\ntwo\n\nfour", ["one", "two", "", "four"]),
        ("a.txt", b"\xef\xbb\xbfone\n\xef\xbb\xbftwo\n", ["one", "\ufefftwo"]),
        ("a.txt", b"a\rb\n\r\n", ["a\rb", ""]),
        ("a.txt", b"\xef\xbb\xbf", []),
        ("a.unknown", b'{"text": "x"}\n', ['{"text": "x"}']),
        ("a.jsonl", b'\xef\xbb\xbf{"text": "one"}\r\n\n{"text": "t\\nwo"}', ["one", "t\nwo"]),
        ("a.jsonl", b"\n \n", []),
        ("a.NDJSON", b'{"text": "one"}\n', ["one"]),
        ("a.csv", b'\xef\xbb\xbftext\r\n"o\r\nne"\r\n\r\n"t""wo"\r\n', ["o\r\nne", 't"wo']),
        ("a.csv", b"id,text\n", []),
        ("a.csv", b"", []),
        ("a.data --format csv --field body", b"title,body\n1,one\n2,two\n", ["one", "two"]),
        ("b.csv --format jsonl --field title", b'{"title": "one", "body": "two"}\n', ["one"]),
    ],
)
def test_how_files_are_read(run: Run, calls: Calls, argv: str, content: bytes, texts: list[str]) -> None:
    Path(argv.split()[0]).write_bytes(content)
    assert run("encode", *argv.split(), "-o", "out.npy", "--quiet") == (0, "", "")
    assert calls[1:] == [texts] * bool(texts)


def test_a_csv_field_can_be_long_but_not_endless(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_input("csv", ["x" * 200_000])  # more than the csv module takes by default
    assert run("encode", source, "-o", "out.npy", "--truncation", "silent").status == 0
    monkeypatch.setattr(textio, "MAX_CSV_FIELD", 100)
    said = "texts.csv, line 2: not CSV (field larger than field limit (100))"
    assert run("encode", source, "-o", "out.npy") == (2, "", f"minisbert: error: {said}\n")


@pytest.mark.parametrize(
    ("argv", "arguments"),
    [
        ("--truncate-dim 5 --normalize", {"truncate_dim": 5, "normalize_embeddings": True}),
        ("--prompt p:", {"prompt": "p:"}),
        ("--prompt-name query", {"prompt_name": "query"}),
        ("--batch-size 1 --threads 2 --backend reference", {"batch_size": 1}),
    ],
)
def test_options_reach_the_encoder(run: Run, prompted: Path, argv: str, arguments: dict[str, Any]) -> None:
    source = write_input("txt", TEXTS)
    assert run("encode", source, "-o", "out.npy", "--model", prompted, *argv.split()).status == 0
    backend = "reference" if "reference" in argv else "auto"
    expected = minisbert.load(prompted, backend=backend).encode(TEXTS, **arguments)
    np.testing.assert_array_equal(np.load("out.npy"), expected, strict=True)


def test_the_npy_header_grows_in_place() -> None:
    file = io.BytesIO()
    vectors = np.arange(3003, dtype=np.int16).reshape(1001, 3)
    with textio.WRITERS[".npy"](file, vectors[:0]) as append:
        for row in vectors:
            append(["x"], row[None])
    np.testing.assert_array_equal(np.load(io.BytesIO(file.getvalue())), vectors, strict=True)


# --- encode: runs that are cut short -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(), 141, ""),
        (OSError(errno.ENOSPC, "No space left"), 2, "No space left"),
        (MemoryError(), 2, "out of memory; a smaller --batch-size or fewer --threads need less"),
    ],
)
@small_chunks
def test_a_failure_changes_nothing(
    run: Run, before_encoding: Patch, output: Path, error: BaseException, status: int, said: str
) -> None:
    source = write_input("txt", ["one", "two", "three", "four", "five"])
    output.write_text("what was here before")
    before = set(os.listdir())

    def fail(texts: list[str]) -> None:
        if "five" in texts:
            (temporary,) = set(os.listdir()) - before
            assert re.fullmatch(rf"\.minisbert-{os.getpid()}-[0-9a-f]+\.tmp", temporary)
            raise error

    before_encoding(fail)
    assert run("encode", source, "-o", output) == (status, "", said and f"minisbert: error: {said}\n")
    assert set(os.listdir()) == before
    assert output.read_text() == "what was here before"


@posix
def test_an_old_output_is_replaced_and_stays_private_and_linked_to(run: Run, output: Path) -> None:
    Path("folder").mkdir()
    real = Path("folder") / output
    real.write_text("what was here before")
    real.chmod(0o600)
    output.symlink_to(real)
    assert run("encode", write_input("txt", ["x"]), "-o", output).status == 0
    assert len(read_output(real)[1]) == 1
    assert real.stat().st_mode & 0o777 == 0o600
    assert output.is_symlink()


@posix
@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_leaves_nothing_behind(name: str, status: int) -> None:
    Path("out.npy").write_text("what was here before")
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_DFL)  # a signal that is ignored here is ignored by children too
    try:
        running = process("encode", "-o", "out.npy", stdin=subprocess.PIPE)
    finally:
        signal.signal(number, before)
    with running:
        deadline = time.monotonic() + 60
        while len(os.listdir()) < 2:  # until it has begun to write, and waits for its input
            assert time.monotonic() < deadline
            time.sleep(0.02)
        running.send_signal(number)
        out, err = running.communicate()
    assert (running.returncode, out, err) == (status, b"", b"")
    assert os.listdir() == ["out.npy"]
    assert Path("out.npy").read_text() == "what was here before"


@posix
@pytest.mark.parametrize("argv", ["encode texts.txt -o -", "info"])
def test_a_closed_pipe_ends_the_run_quietly(argv: str) -> None:
    write_input("txt", TEXTS)
    with process(*argv.split()) as running:
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full to stand for a full disk")
@pytest.mark.parametrize("argv", ["encode texts.txt -o -", "info --json"])
def test_a_full_disk_is_an_error(argv: str) -> None:
    write_input("txt", TEXTS)
    with open("/dev/full", "wb") as full, process(*argv.split(), stdout=full) as running:
        _, err = running.communicate()
    assert (running.returncode, err) == (2, b"minisbert: error: No space left on device\n")


# --- errors and warnings -------------------------------------------------------------------------------------

BAD_LINES = [
    ("a.txt", b"one\ntwo\ncaf\xe9\n", "line 3: not UTF-8 (byte 0xe9 at position 3 of the line)"),
    ("a.csv", b"text\nfine\ncaf\xe9\n", "line 3: not UTF-8"),
    ("a.jsonl", b'{"text": "x"}\n\n{"text": \n', "line 3: not JSON"),
    ("a.jsonl", b"[" * 100_000 + b"\n", "line 1: not JSON"),
    ("a.jsonl", b'["x"]\n', "line 1: expected a JSON object, found list"),
    ("a.jsonl", b'{"text": ""}\n{"a": 1, "b": 2}\n', "line 2: no field 'text'; found 'a', 'b'; choose"),
    ("a.jsonl", b'{"text": 3}\n', "line 1: field 'text' must be a string, found int"),
    ("a.jsonl", b'{"text": "\\ud800"}\n', "line 1: field 'text' holds half of a surrogate pair"),
    ("a.csv", b"id,body\n1,x\n", "line 1: no column 'text'; found 'id', 'body'; choose with --field"),
    ("a.csv", b"text,text\nx,y\n", "line 1: more than one column 'text'"),
    ("a.csv", b'id,text\n1,"two\nlines"\n2,one, two\n', "line 4: fields: 3, and in the header: 2"),
    ("a.csv", b"id,text\n1\n", "line 2: fields: 1, and in the header: 2"),
    ("a.csv", b'text\nfine\n"never closed\nand more\n', "line 3: not CSV (unexpected end of data)"),
    ("a.csv", b'text\n"half" quoted\n', "line 2: not CSV"),
]
BAD_COMMANDS = [
    ("encode data.json -o o.npy", "data.json: a .json file is not one text a line; choose with --format"),
    ("encode good.txt -o o.npy --field x", "good.txt: --field x needs --format jsonl or csv"),
    ("encode nothing.txt -o o.npy", "nothing.txt: No such file or directory"),
    ("encode folder -o o.npy", "folder: "),
    ("encode good.txt -o o.pt", "o.pt: the output must end in .npy, .jsonl, .parquet"),
    ("encode good.txt -o no/o.npy", "no/o.npy: there is no folder no"),
    ("encode good.txt -o folder.npy", "folder.npy: exists and is not a regular file"),
    ("encode good.jsonl -o good.jsonl", "good.jsonl: is the input"),
    ("encode good.txt", "arguments are required: -o/--output (see minisbert encode --help)"),
    ("encode good.txt -o o.npy --threads 0", "--threads: expected a whole number of at least 1, found '0'"),
    ("encode good.txt -o o.npy --prompt a --prompt-name b", "--prompt-name: not allowed with"),
    ("encode good.txt -o o.npy --prompt-name b", "there is no prompt named 'b'"),
    ("encode good.txt -o o.npy --truncate-dim 76", "truncate_dim is 76"),
    ("encode good.txt -o o.npy --norm", "unrecognized arguments: --norm"),
    ("encode good.txt -o o.npy --model no-such-folder/", "no-such-folder"),
    ("similarity one", "two or more texts are needed, found one"),
    ("info --model folder", "config.json"),
    ("dance", "argument COMMAND: invalid choice: 'dance'"),
    ("", "arguments are required: COMMAND (see minisbert --help)"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD_LINES)
def test_a_bad_line_is_named(run: Run, name: str, content: bytes, message: str) -> None:
    Path(name).write_bytes(content)
    for argv in (["encode", name, "-o", "out.npy"], ["search", "x", name]):
        check_error(run(*argv), f"minisbert: error: {name}, {message}")


@pytest.mark.parametrize(("argv", "message"), BAD_COMMANDS)
def test_a_bad_command_is_an_error(run: Run, argv: str, message: str) -> None:
    for folder in ("folder", "folder.npy"):
        Path(folder).mkdir()
    for file in ("good.txt", "good.jsonl", "data.json"):
        Path(file).write_text('{"text": "x"}\n')
    before = set(os.listdir())
    check_error(run(*argv.split()), message)
    assert set(os.listdir()) == before


@pytest.mark.parametrize("argv", ["--debug info --model no/", "info --model no/ --debug", "--debug"])
def test_debug_shows_the_traceback_of_an_error(run: Run, argv: str) -> None:
    status, out, err = run(*argv.split())
    assert (status, out) == (2, "")
    assert err.startswith("Traceback (most recent call last):\n")
    assert err.splitlines()[-1].startswith("minisbert: error: ")


def test_closed_standard_streams_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert cli.main(["encode", str(write_input("txt", [LONG])), "-o", "out.npy"]) == 0
    assert cli.main(["info"]) == 0


def test_parquet_without_pyarrow_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    said = "out.parquet: Parquet needs pyarrow; run: pip install 'minisbert[parquet]'"
    check_error(run("encode", write_input("txt", TEXTS), "-o", "out.parquet"), said)


def cut(*what: str) -> str:
    return "".join(f"minisbert: warning: too long, cut to 32 tokens: {line}\n" for line in what)


@small_chunks
def test_texts_that_are_cut_are_one_warning(run: Run, prompted: Path) -> None:
    argv = ["encode", write_input("csv", ["x", "", LONG, "y", LONG, LONG]), "-o", "out.npy", "--quiet"]
    assert run(*argv) == (0, "", cut("texts.csv, line 4, and 2 more"))
    assert run(*argv, "--truncation", "silent").err == ""
    argv += ["--model", prompted, "--prompt-name", "long"]
    assert run(*argv).err == cut("texts.csv, line 2, and 5 more")
    assert run("similarity", "x", LONG, LONG).err == cut("text 2, and 1 more")
    assert run("search", LONG, "texts.csv").err == cut("the query", "texts.csv, line 4, and 2 more")
    assert run("search", LONG, "texts.csv", "--truncation", "silent").err == ""
    err = run("similarity", "x", "one two three", "--max-seq-length", "4").err
    assert err == cut("text 2").replace("32", "4")


@small_chunks
@pytest.mark.parametrize("argv", [["encode", "-o", "out.npy"], ["search", "x"], ["search", LONG]])
def test_a_text_that_is_too_long_can_be_an_error(run: Run, argv: list[str]) -> None:
    named = "the query" if LONG in argv else "texts.txt, line 4"
    said = f"{named}: 162 tokens, more than 32; split the text, or choose --truncation warn"
    source = write_input("txt", ["x", "", "y", LONG])
    assert run(*argv, source, "--truncation", "error") == (2, "", f"minisbert: error: {said}\n")


def test_other_warnings_are_one_line_too(run: Run, before_encoding: Patch) -> None:
    before_encoding(lambda texts: warnings.warn("something\nodd", RuntimeWarning, stacklevel=1))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert run("similarity", "x", "y").err == "minisbert: warning: something odd\n"
