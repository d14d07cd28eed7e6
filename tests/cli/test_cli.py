"""``minisbert encode``: every input and output, errors in one line, runs that are cut short."""

from __future__ import annotations

import errno
import io
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minisbert
from minisbert.cli import textio, writers
from minisbert.cli.columns import Columns
from tests.conftest import BATCH_TOLERANCE, largest
from tests.support.commandline import (
    LONG,
    TEXTS,
    Calls,
    Encoder,
    Patch,
    Run,
    check_error,
    from_jsonl,
    posix,
    read_output,
    small_chunks,
    write_input,
)

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
def test_encode_streams_in_chunks(
    run: Run, bert: Encoder, calls: Calls, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("encode", write_input("jsonl", TEXTS[:5]), "-o", output, "--quiet") == (0, "", "")
    assert calls == [[], TEXTS[:2], TEXTS[2:4], TEXTS[4:5]]
    texts, vectors = read_output(output)
    assert largest(vectors - bert.encode(TEXTS[:5])) <= BATCH_TOLERANCE
    assert texts in (TEXTS[:5], None)
    calls.clear()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\ntwo\nthree\n\xff\n")))
    assert run("encode", "-o", output).status == 2
    assert calls == [[], ["one", "two"]]  # of a pipe, a chunk is encoded before the next is read


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
    source = textio.Source("texts.txt", io.BytesIO(), textio.Reading(), 0)
    layout = writers.Layout(vectors[:0], Columns(source, ()), {})
    with writers.WRITERS[".npy"](file, layout) as append:
        for row in vectors:
            append([textio.Record(1, "x")], row[None])
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
            assert set(os.listdir()) - before == {f".minisbert-{output}.tmp", f"{output}.partial"}
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


# --- errors and warnings -------------------------------------------------------------------------------------

BAD_COMMANDS = [
    (
        "encode data.json -o o.npy",
        "data.json: a .json file is not read; choose --format jsonl if each of its",
    ),
    (
        "search q vectors.npy",
        "vectors.npy: a .npy file is not read; name the file of the texts, and this one",
    ),
    ("rerank q table.parquet", "table.parquet: a .parquet file is not read; save it as CSV or JSONL"),
    (
        "encode good.txt -o o.npy --encoding hex",
        "--encoding: expected a name that Python knows, such as utf-8",
    ),
    ("encode good.txt -o o.npy --encoding idna", "such as utf-8, utf-16, cp1252 or shift_jis, found 'idna'"),
    ("encode good.txt -o o.npy --separator ;;", "--separator: expected one character, or tab, found ';;'"),
    (
        "encode good.txt -o o.npy --separator ;",
        "good.txt: --separator ; needs --format csv, this is read as text",
    ),
    (
        "search q good.jsonl --separator ;",
        "good.jsonl: --separator ; needs --format csv, this is read as jsonl",
    ),
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
