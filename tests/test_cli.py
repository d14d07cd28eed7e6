"""The ``minisbert`` command: every input and output, errors in one line, runs that are cut short."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tqdm
from huggingface_hub.constants import HF_HUB_CACHE

import minisbert
from conftest import BATCH_TOLERANCE, DATA, edit_json, largest
from minisbert import cli, options, textio

Encoder = minisbert.SentenceEncoder
MODEL = DATA / "tiny-bert"
# What other splitters take for the end of a line, what CSV quotes, and what JSON escapes.
TEXTS = ["One.", "", 'Commas, "quotes", \\', "a\u2028b\x0bc\x1cd\x85e\rf", "Ünïcödé 猫 🙂", "  x  "]
LONG = "word " * 40  # more than the 32 tokens that the tiny model reads
posix = pytest.mark.skipif(os.name != "posix", reason="the signals, links and pipes of POSIX")
small_chunks = pytest.mark.usefixtures("chunks_of_two")


class Ran(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Ran]
Calls = list[list[str]]
Patch = Callable[[Callable[[list[str]], None]], None]


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every test runs in a folder of its own, on the tiny model, in a terminal of 80 columns."""
    monkeypatch.setenv("MINISBERT_MODEL", str(MODEL))
    monkeypatch.setenv("MINISBERT_CROSS_ENCODER", str(DATA / "cross-bert"))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(cli, "_unwind_at_signals", lambda: None)  # the signals of this process are pytest's
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process."""

    return lambda *argv: Ran(cli.main([str(argument) for argument in argv]), *capsys.readouterr())


@pytest.fixture
def chunks_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textio, "CHUNK_TEXTS", 2)


@pytest.fixture
def before_encoding(monkeypatch: pytest.MonkeyPatch) -> Patch:
    """Have a function called with the texts of each call of `encode`."""
    encode = Encoder.encode

    def patch(function: Callable[[list[str]], None]) -> None:
        def patched(self: Encoder, sentences: list[str], **options: Any) -> Any:
            function(sentences)
            return encode(self, sentences, **options)

        monkeypatch.setattr(Encoder, "encode", patched)

    return patch


@pytest.fixture
def calls(before_encoding: Patch) -> Calls:
    """The texts of each call of `encode`; the first call asks for the shape, with none."""
    made: Calls = []
    before_encoding(made.append)
    return made


@pytest.fixture
def prompted(copy_of: Callable[[str], Path]) -> Path:
    """The tiny model with prompts."""
    folder = copy_of("tiny-bert")
    prompts = {"query": "what is ", "document": "this is ", "long": LONG}
    edit_json(folder / "config_sentence_transformers.json", prompts=prompts, default_prompt_name="document")
    return folder


@pytest.fixture(params=["out.npy", "out.jsonl", "out.parquet"])
def output(request: pytest.FixtureRequest) -> Path:
    if request.param == "out.parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow, which is optional")
    return Path(request.param)


def process(*argv: str | Path, **options: Any) -> subprocess.Popen[bytes]:
    """Start the command as a process of its own."""
    ours = {"PYTHONPATH": str(Path(minisbert.__file__).parents[1]), "PYTHONUNBUFFERED": ""}
    environment = os.environ | ours | options.pop("env", {})
    quick = ["--backend", "reference"]  # to start, that is
    command = [sys.executable, "-m", "minisbert", *map(str, argv), *quick]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(command, env=environment, **pipes)


def write_input(kind: str, texts: Sequence[str]) -> Path:
    """Write texts in a format, beside something else where the format has room for it."""
    path = Path(f"texts.{kind}")
    with path.open("w", encoding="utf-8", newline="") as file:
        if kind == "csv":
            csv.writer(file).writerows([["id", "text"], *enumerate(texts)])
        elif kind == "jsonl":
            file.writelines(json.dumps({"text": text, "id": i}) + "\n" for i, text in enumerate(texts))
        else:
            file.writelines(f"{text}\n" for text in texts)
    return path


def read_output(path: Path) -> tuple[list[str] | None, np.ndarray]:
    """Read texts, if the format has them, and vectors."""
    if path.suffix == ".npy":
        return None, np.load(path)
    if path.suffix == ".jsonl":
        return from_jsonl(path.read_bytes())
    from pyarrow import parquet

    table = parquet.read_table(path)
    width = table.schema.field("embedding").type.list_size
    flat = table.column("embedding").combine_chunks().flatten().to_numpy()
    return table.column("text").to_pylist(), flat.reshape(-1, width)


def from_jsonl(content: bytes) -> tuple[list[str], np.ndarray]:
    rows = [json.loads(line) for line in content.decode().split("\n")[:-1]]
    return [row["text"] for row in rows], np.array([row["embedding"] for row in rows], np.float32)


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


def check_error(ran: Ran, message: str) -> None:
    assert ran[:2] == (2, "")
    assert ran.err.startswith("minisbert: error: ")
    assert message in ran.err
    assert ran.err.index("\n") == len(ran.err) - 1


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


# --- similarity, search, info --------------------------------------------------------------------------------


def test_similarity(run: Run, bert: Encoder) -> None:
    texts = ["-1", "x" * 100, "a\tb\x1b[31m\n c", "", "猫" * 40]
    vectors = bert.encode(texts, truncation="silent")
    scores = bert.similarity(vectors, vectors)
    facts = {"texts": texts, "similarity_fn_name": "cosine", "similarities": scores.tolist()}
    assert json.loads(run("similarity", "--json", "--", *texts).out) == facts
    shown = ["-1", "x" * 36 + "…", "a b[31m c", "", "猫" * 18 + "…"]  # 37 columns are left for the text
    heading, *lines = run("similarity", "--", *texts).out.splitlines()
    assert heading == "        1       2       3       4       5"
    for i, row in enumerate(scores):
        assert lines[i] == f"{i + 1}" + "".join(f"{score:8.4f}" for score in row) + f"  {shown[i]}"


CORPUS = ["one apple", "", "two apples\x1b[2J and a pear", "猫" * 60, "   ", "a green apple", "x" * 200]


@pytest.mark.parametrize("kind", ["txt", "csv"])
@pytest.mark.parametrize("k", [1, 3, 100])
@small_chunks
def test_search_finds_the_closest(run: Run, bert: Encoder, kind: str, k: int) -> None:
    argv = ["search", "an apple", write_input(kind, CORPUS), "-k", str(k), "--truncation", "silent"]
    texts = {i + 1 + (kind == "csv"): text for i, text in enumerate(CORPUS) if text.strip()}
    vectors = bert.encode(list(texts.values()), truncation="silent")
    scores = bert.similarity(bert.encode(["an apple"]), vectors)[0].tolist()
    ranked = sorted(zip(scores, texts, strict=True), reverse=True)[:k]
    found = json.loads(run(*argv, "--json").out)
    assert found == [
        {"rank": i, "score": pytest.approx(score, abs=BATCH_TOLERANCE), "line": line, "text": texts[line]}
        for i, (score, line) in enumerate(ranked, 1)
    ]
    # Of the 80 columns of the table, 60 are left for the text.
    shown = {CORPUS[2]: "two apples[2J and a pear", CORPUS[3]: "猫" * 29 + "…", CORPUS[6]: "x" * 59 + "…"}
    heading, *lines = run(*argv).out.splitlines()
    assert heading == "rank   score  line  text"
    for row, line in zip(found, lines, strict=True):
        text = shown.get(row["text"], row["text"])
        assert line == f"{row['rank']:4}  {row['score']:.4f}  {row['line']:4}  {text}"


@small_chunks
def test_equal_scores_keep_the_order_of_the_lines(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Encoder, "similarity", lambda encoder, a, b: np.ones((len(a), len(b))))
    source = write_input("txt", ["one", "two", "three", "four", "five"])
    assert [row["line"] for row in json.loads(run("search", "x", source, "-k", "3", "--json").out)] == [
        1,
        2,
        3,
    ]


def test_search_uses_the_prompts_and_the_similarity_of_the_model(run: Run, prompted: Path) -> None:
    edit_json(prompted / "config_sentence_transformers.json", similarity_fn_name="euclidean")
    argv = ["search", "an apple", write_input("txt", ["a pear"]), "--model", prompted, "--json"]
    (found,) = json.loads(run(*argv).out)
    query, document = minisbert.load(prompted).encode(["what is an apple", "this is a pear"], prompt="")
    assert found["score"] == pytest.approx(-np.linalg.norm(query - document), abs=1e-6)


def test_search_in_nothing_says_so(run: Run) -> None:
    source = write_input("txt", ["", "  "])
    said = "minisbert: warning: texts.txt: there is no text to search\n"
    assert run("search", "x", source) == (0, "", said)
    assert run("search", "x", source, "--json").out == "[]\n"


@pytest.mark.parametrize("k", [1, 100])
@small_chunks
def test_rerank_sorts_by_the_scores_of_a_cross_encoder(run: Run, k: int) -> None:
    argv = ["rerank", "an apple", write_input("txt", CORPUS), "-k", str(k), "--truncation", "silent"]
    texts = {line: text for line, text in enumerate(CORPUS, 1) if text.strip()}
    model = minisbert.load_cross_encoder(DATA / "cross-bert")
    ranked = model.rank("an apple", list(texts.values()), top_k=k, truncation="silent")
    found = json.loads(run(*argv, "--json").out)
    assert [row["line"] for row in found] == [list(texts)[result["corpus_id"]] for result in ranked]
    assert [row["rank"] for row in found] == list(range(1, len(ranked) + 1))
    for row, result in zip(found, ranked, strict=True):
        assert row["text"] == texts[row["line"]]
        assert row["score"] == pytest.approx(result["score"], abs=BATCH_TOLERANCE)
    heading, *lines = run(*argv).out.splitlines()
    assert heading == "rank   score  line  text"
    assert len(lines) == len(found)


def test_rerank_says_what_is_wrong(run: Run) -> None:
    source = write_input("txt", ["one", LONG])
    said = "minisbert: warning: too long, cut to 32 tokens: texts.txt, line 2\n"
    assert run("rerank", "x", source, "--json").err == said
    check_error(
        run("rerank", "x", source, "--truncation", "error"), "texts.txt, line 2: 164 tokens, more than 32"
    )
    check_error(run("rerank", "x", source, "--model", MODEL), "load it with minisbert.load")
    check_error(run("search", "x", source, "--model", DATA / "cross-bert"), "minisbert.load_cross_encoder")
    check_error(run("rerank", "x", source, "--model", DATA / "cross-labels"), "one label, and this one has 3")


def test_info(run: Run, prompted: Path, bert: Encoder) -> None:
    facts = json.loads(run("info", "--json", "--threads", "3").out)
    assert facts["model"] == facts["folder"] == str(MODEL)
    assert (facts["architecture"], facts["layers"], facts["width"], facts["heads"]) == ("bert", 3, 75, 3)
    assert (facts["modules"], facts["dimension"]) == (["Transformer", "Pooling (mean)", "Normalize"], 75)
    assert (facts["max_seq_length"], facts["max_positions"], facts["vocabulary"]) == (32, 64, 544)
    assert (facts["backend"], facts["threads"], facts["dtype"]) == (bert.backend, 3, "float32")
    assert (facts["parameters"], facts["cache"]) == (bert.num_parameters, HF_HUB_CACHE)
    assert facts["prompts"] == {"query": "", "document": ""}
    assert facts["versions"].items() >= {"numpy": np.__version__, "minisbert": minisbert.__version__}.items()
    out = run("info", "--model", prompted).out
    assert f"\nparameters      {bert.num_parameters:,}\n" in out
    assert "\nmodules         Transformer -> Pooling (mean) -> Normalize\n" in out
    assert "\nprompts         query: what is \n                document: this is \n" in out
    assert "\ndefault prompt  none\n" in run("info").out


# --- help, version, model, terminal --------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["", *cli.COMMANDS])
def test_help_fits_and_its_examples_are_right(capsys: pytest.CaptureFixture[str], command: str) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        cli.main([*command.split(), "--help"])
    out, err = capsys.readouterr()
    assert err == ""
    assert max(map(len, out.splitlines())) <= 80
    example = re.compile(r"^  (?:cat .* \| |[A-Z_]+=\S+ )?minisbert (.*?)(?: \|.*)?$", re.MULTILINE)
    shown = example.findall(out.split("examples:\n")[1])
    assert len(shown) >= 2
    for line in shown:
        assert options.build_parser().parse_args(shlex.split(line)).command in (command or cli.COMMANDS)


def test_as_a_module_and_without_what_is_not_needed() -> None:
    with process("--version", env={"PYTHONPROFILEIMPORTTIME": "1"}) as running:
        out, err = running.communicate()
    assert (running.returncode, out.decode()) == (0, f"minisbert {minisbert.__version__}{os.linesep}")
    imported = {line.split("|")[-1].strip() for line in err.decode().splitlines()}
    assert "minisbert.cli" in imported
    assert not imported & {"pyarrow", "huggingface_hub", "tqdm", "numba"}


@pytest.mark.parametrize("variable", ["", "from/variable"])
def test_which_model(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv("MINISBERT_MODEL", variable)
    monkeypatch.setenv("MINISBERT_CROSS_ENCODER", variable)
    parse = options.build_parser().parse_args
    assert parse(["rerank", "q", "f"]).model == (variable or "cross-encoder/ms-marco-MiniLM-L6-v2")
    assert parse(["info"]).model == (variable or "sentence-transformers/all-MiniLM-L6-v2")
    assert parse(["info", "--model", "from/option"]).model == "from/option"


def test_output_without_unicode_is_escaped() -> None:
    write_input("txt", ["猫"])
    with process("search", "x", "texts.txt", env={"PYTHONIOENCODING": "ascii"}) as running:
        out, err = running.communicate()
    assert (running.returncode, err) == (0, b"")
    assert b"\\u732b" in out


@small_chunks
def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := io.StringIO())
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(tqdm, "tqdm", partial(tqdm.tqdm, mininterval=0))
    source = str(write_input("txt", ["1", "2", "3", "4"]))
    assert cli.main(["encode", source, "-o", "out.npy", "--quiet"]) == 0
    assert cli.main(["search", "x", source, "--quiet"]) == 0
    assert terminal.getvalue() == ""
    assert cli.main(["encode", source, "-o", "out.npy"]) == 0
    assert re.findall(r"\d+%", terminal.getvalue()) == ["0%", "50%", "100%"]
    # The bar has been cleared away.
    assert re.search(r" \r+\x1b\[Kminisbert: out.npy: 4 x 75 float32\n$", terminal.getvalue())


def test_warmup_says_where_the_kernels_are(run: Run) -> None:
    pytest.importorskip("numba", reason="numba is not installed, so there is nothing to compile")
    from minisbert.kernels import machine

    done = run("warmup")
    assert done.status == 0
    assert str(machine.file()) in done.out


def test_warmup_without_numba(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("minisbert.cli.find_spec", lambda name: None)
    done = run("warmup")
    assert done.status == 2
    assert "pip install numba" in done.err
