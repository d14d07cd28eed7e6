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
import threading
import time
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy

import minisbert
from conftest import DATA, edit_json
from minisbert import cli, textio

MODEL = DATA / "tiny-bert"
# What other splitters take for the end of a line, what CSV quotes, and what JSON escapes.
TEXTS = [
    "The first sentence.",
    "",
    'Commas, "quotes" and \\slashes\\',
    "a\u2028b\x0bc\x1cd\x85e\rf",
    "Ünïcödé 猫 🙂",
    "  x  ",
]
SIX_LINES = "one\ntwo\nthree\nfour\nfive\nsix\n"
BATCH_TOLERANCE = 1e-6  # BLAS picks other kernels for other row counts, so chunks move the last bits
posix = pytest.mark.skipif(os.name != "posix", reason="the signals and the pipes of POSIX")


class Ran(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Every test runs in a folder of its own, on the tiny model, in a terminal of 80 columns."""
    monkeypatch.setenv("MINISBERT_MODEL", str(MODEL))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in this process."""

    def run(*argv: str | Path) -> Ran:
        status = cli.main([str(argument) for argument in argv])
        return Ran(status, *capsys.readouterr())

    return run


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textio, "CHUNK_TEXTS", 2)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The texts of each call of `encode`."""
    made: list[list[str]] = []
    encode = minisbert.SentenceEncoder.encode

    def record(self: minisbert.SentenceEncoder, sentences: Sequence[str], *rest: Any, **options: Any) -> Any:
        made.append(list(sentences))
        return encode(self, sentences, *rest, **options)

    monkeypatch.setattr(minisbert.SentenceEncoder, "encode", record)
    return made


@pytest.fixture
def standard_input(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    def replace(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))

    return replace


def process(*argv: str | Path, **options: Any) -> subprocess.Popen[bytes]:
    """Start the command as a process of its own."""
    ours = {"PYTHONPATH": str(Path(minisbert.__file__).parents[1]), "PYTHONUNBUFFERED": ""}
    environment = os.environ | ours | options.pop("env", {})
    command = [sys.executable, "-m", "minisbert", *map(str, argv)]
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
        return from_jsonl(path.read_bytes().decode())
    parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow, which is optional")
    table = parquet.read_table(path)
    width = table.schema.field("embedding").type.list_size
    flat = table.column("embedding").combine_chunks().flatten().to_numpy()
    return table.column("text").to_pylist(), flat.reshape(-1, width)


def from_jsonl(content: str) -> tuple[list[str], np.ndarray]:
    rows = [json.loads(line) for line in content.split("\n")[:-1]]
    return [row["text"] for row in rows], np.array([row["embedding"] for row in rows], np.float32)


def need_for(suffix: str) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow, which is optional")


# --- encode: what goes in and what comes out -----------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npy", ".jsonl", ".parquet"])
@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv"])
def test_encode_gives_what_the_encoder_gives(
    run: Run, bert: minisbert.SentenceEncoder, kind: str, suffix: str
) -> None:
    need_for(suffix)
    output = Path(f"out{suffix}")
    assert run("encode", write_input(kind, TEXTS), "-o", output) == (
        0,
        "",
        f"minisbert: {output}: 6 x 75 float32\n",
    )
    texts, vectors = read_output(output)
    np.testing.assert_array_equal(vectors, bert.encode(TEXTS), strict=True)
    assert texts in (TEXTS, None)


@pytest.mark.parametrize("suffix", [".npy", ".jsonl", ".parquet"])
@pytest.mark.usefixtures("small_chunks")
def test_encode_streams_in_chunks(
    run: Run, bert: minisbert.SentenceEncoder, calls: list[list[str]], suffix: str
) -> None:
    need_for(suffix)
    output = Path(f"out{suffix}")
    assert run("encode", write_input("jsonl", TEXTS[:5]), "-o", output, "--quiet") == (0, "", "")
    assert calls == [[], TEXTS[:2], TEXTS[2:4], TEXTS[4:5]]  # the first asks for the shape
    texts, vectors = read_output(output)
    np.testing.assert_allclose(vectors, bert.encode(TEXTS[:5]), rtol=0, atol=BATCH_TOLERANCE)
    assert texts in (TEXTS[:5], None)


def test_chunks_are_bounded_in_characters_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(textio, "CHUNK_CHARACTERS", 10)
    records = [textio.Record(i, "x" * length) for i, length in enumerate([4, 4, 4, 30, 1, 9, 3])]
    lengths = [[len(record.text) for record in chunk] for chunk in textio.chunks(records)]
    assert lengths == [[4, 4, 4], [30], [1, 9], [3]]


@pytest.mark.usefixtures("small_chunks")
def test_a_chunk_is_encoded_before_the_next_is_read(run: Run, calls: list[list[str]]) -> None:
    Path("texts.txt").write_bytes(b"one\ntwo\nthree\n\xff\n")
    assert run("encode", "texts.txt", "-o", "out.npy").status == 2
    assert calls == [[], ["one", "two"]]


@pytest.mark.parametrize("source", [[], ["-"]])
def test_from_standard_input_to_standard_output(
    run: Run, bert: minisbert.SentenceEncoder, standard_input: Callable[[bytes], None], source: list[str]
) -> None:
    standard_input("\n".join(TEXTS).encode())
    status, out, err = run("encode", *source, "-o", "-")
    assert (status, err) == (0, "")
    texts, vectors = from_jsonl(out)
    assert texts == TEXTS
    np.testing.assert_array_equal(vectors, bert.encode(TEXTS), strict=True)


@pytest.mark.parametrize("suffix", [".npy", ".jsonl", ".parquet"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", b""),
        ("a.txt", b"\xef\xbb\xbf"),
        ("a.jsonl", b"\n \n"),
        ("a.csv", b""),
        ("a.csv", b"id,text\n"),
    ],
)
def test_no_texts_give_no_rows(run: Run, name: str, content: bytes, suffix: str) -> None:
    need_for(suffix)
    Path(name).write_bytes(content)
    assert run("encode", name, "-o", f"out{suffix}", "--quiet") == (0, "", "")
    texts, vectors = read_output(Path(f"out{suffix}"))
    assert vectors.shape == ((0,) if suffix == ".jsonl" else (0, 75))
    assert not texts


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        ("a.txt", b"one\r\ntwo\n\nfour", ["one", "two", "", "four"]),
        ("a.txt", b"\xef\xbb\xbfone\n\xef\xbb\xbftwo\n", ["one", "\ufefftwo"]),
        ("a.txt", b"a\rb\n\r\n", ["a\rb", ""]),
        ("a.unknown", b'{"text": "x"}\n', ['{"text": "x"}']),
        ("a.jsonl", b'\xef\xbb\xbf{"text": "one"}\r\n\n{"text": "t\\nwo"}', ["one", "t\nwo"]),
        ("a.NDJSON", b'{"text": "one"}\n', ["one"]),
        ("a.csv", b'\xef\xbb\xbftext\r\n"o\r\nne"\r\n\r\n"t""wo"\r\n', ["o\r\nne", 't"wo']),
    ],
)
def test_lines_end_at_line_feeds_only(
    run: Run, calls: list[list[str]], name: str, content: bytes, texts: list[str]
) -> None:
    Path(name).write_bytes(content)
    assert run("encode", name, "-o", "out.npy").status == 0
    assert calls[1:] == [texts]


def test_a_csv_field_can_be_long_but_not_endless(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_input("csv", ["x" * 200_000])  # more than the csv module takes by default
    assert run("encode", source, "-o", "out.npy", "--truncation", "silent").status == 0
    monkeypatch.setattr(textio, "MAX_CSV_FIELD", 100)
    status, _, err = run("encode", source, "-o", "out.npy")
    assert status == 2
    assert "texts.csv, line 2: not CSV (field larger than field limit (100))" in err


def test_format_and_field_are_chosen(run: Run, calls: list[list[str]]) -> None:
    Path("a.data").write_text("title,body\n1,one\n2,two\n")
    assert run("encode", "a.data", "-o", "out.npy", "--format", "csv", "--field", "body").status == 0
    Path("b.csv").write_text('{"title": "three", "body": "four"}\n')
    assert run("encode", "b.csv", "-o", "out.npy", "--format", "jsonl", "--field", "title").status == 0
    assert [texts for texts in calls if texts] == [["one", "two"], ["three"]]


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        (["--truncate-dim", "5", "--normalize"], {"truncate_dim": 5, "normalize_embeddings": True}),
        (["--precision", "binary"], {"precision": "binary"}),
        (["--precision", "ubinary", "--truncate-dim", "16"], {"precision": "ubinary", "truncate_dim": 16}),
        (["--prompt", "read this: "], {"prompt": "read this: "}),
        (["--prompt-name", "query"], {"prompt_name": "query"}),
        (["--batch-size", "1", "--threads", "2", "--backend", "reference"], {"batch_size": 1}),
    ],
)
@pytest.mark.parametrize("suffix", [".npy", ".jsonl", ".parquet"])
def test_options_reach_the_encoder(
    run: Run, copy_of: Callable[[str], Path], options: list[str], arguments: dict[str, Any], suffix: str
) -> None:
    need_for(suffix)
    folder = copy_of("tiny-bert")
    prompts = {"query": "what is ", "passage": "this is "}
    edit_json(folder / "config_sentence_transformers.json", prompts=prompts, default_prompt_name="passage")
    source = write_input("jsonl", TEXTS)
    assert run("encode", source, "-o", f"out{suffix}", "--model", folder, *options).status == 0
    expected = minisbert.load(folder).encode(TEXTS, **arguments)
    _, vectors = read_output(Path(f"out{suffix}"))
    np.testing.assert_array_equal(vectors, expected, strict=suffix != ".jsonl")


@given(
    hypothesis_numpy.arrays(
        np.float32, (2, 3), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)
    )
)
def test_jsonl_holds_every_float32_exactly(vectors: np.ndarray) -> None:
    file = io.BytesIO()
    with textio.WRITERS[".jsonl"](file, vectors[:0]) as append:
        append(["x", "y"], vectors)
    np.testing.assert_array_equal(from_jsonl(file.getvalue().decode())[1], vectors, strict=True)


def test_jsonl_is_passed_on_chunk_by_chunk() -> None:
    passed_on = io.BytesIO()
    with textio.WRITERS[".jsonl"](io.BufferedWriter(passed_on), np.zeros((0, 1), np.float32)) as append:
        append(["x"], np.ones((1, 1), np.float32))
        assert passed_on.getvalue() == b'{"text": "x", "embedding": [1]}\n'


@pytest.mark.parametrize("rows", [0, 9, 10, 1001])
def test_the_npy_header_grows_in_place(rows: int) -> None:
    file = io.BytesIO()
    vectors = np.arange(3 * rows, dtype=np.int8).reshape(rows, 3)
    with textio.WRITERS[".npy"](file, vectors[:0]) as append:
        for row in vectors:
            append(["x"], row[None])
    np.testing.assert_array_equal(np.load(io.BytesIO(file.getvalue())), vectors, strict=True)


def test_a_npy_header_without_room_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_room(file: io.BytesIO, header: dict[str, Any]) -> None:
        file.write(repr(header).encode())

    monkeypatch.setattr("numpy.lib.format.write_array_header_1_0", without_room)
    writer = textio.WRITERS[".npy"](io.BytesIO(), np.zeros((0, 3)))
    with pytest.raises(RuntimeError, match="no room"), writer as append:
        append(["x"] * 10, np.zeros((10, 3)))


# --- encode: runs that are cut short -------------------------------------------------------------------------


@pytest.fixture(params=["out.npy", "out.jsonl", "out.parquet"])
def target(request: pytest.FixtureRequest) -> Path:
    """An output that exists before the run."""
    need_for(Path(request.param).suffix)
    path = Path(request.param)
    path.write_text("what was here before")
    return path


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (KeyboardInterrupt(), 130, ""),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "minisbert: error: No space left on device\n"),
        (
            MemoryError(),
            2,
            "minisbert: error: out of memory; a smaller --batch-size or fewer --threads need less\n",
        ),
        (BrokenPipeError(), 141, ""),
    ],
)
@pytest.mark.usefixtures("small_chunks")
def test_a_run_that_fails_leaves_everything_as_it_was(
    run: Run, monkeypatch: pytest.MonkeyPatch, target: Path, error: BaseException, status: int, message: str
) -> None:
    encode = minisbert.SentenceEncoder.encode
    during: list[set[str]] = []

    def fail(self: minisbert.SentenceEncoder, sentences: Sequence[str], **options: Any) -> Any:
        if "five" in sentences:
            during.append(set(os.listdir()))
            assert target.read_text() == "what was here before"
            raise error
        return encode(self, sentences, **options)

    monkeypatch.setattr(minisbert.SentenceEncoder, "encode", fail)
    Path("texts.txt").write_text(SIX_LINES)
    before = set(os.listdir())
    assert run("encode", "texts.txt", "-o", target) == (status, "", message)
    assert set(os.listdir()) == before
    assert target.read_text() == "what was here before"
    (temporary,) = during[0] - before
    assert re.fullmatch(rf"\.minisbert-{os.getpid()}-[0-9a-f]+\.tmp", temporary)


@pytest.mark.usefixtures("small_chunks")
def test_a_bad_line_leaves_everything_as_it_was(run: Run, target: Path) -> None:
    Path("texts.jsonl").write_text('{"text": "x"}\n' * 4 + "{\n")
    assert run("encode", "texts.jsonl", "-o", target).status == 2
    assert set(os.listdir()) == {"texts.jsonl", target.name}
    assert target.read_text() == "what was here before"


def test_an_old_output_is_replaced_and_keeps_its_permissions(run: Run, target: Path) -> None:
    target.chmod(0o600)
    assert run("encode", write_input("txt", ["x"]), "-o", target).status == 0
    assert len(read_output(target)[1]) == 1
    assert target.stat().st_mode & 0o777 == 0o600 or os.name != "posix"


def test_the_output_is_on_the_disk_before_it_has_its_name(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    real = {name: getattr(os, name) for name in ("fsync", "replace")}
    for name in real:

        def note(*arguments: Any, name: str = name) -> None:
            steps.append(name)
            real[name](*arguments)

        monkeypatch.setattr(os, name, note)
    assert run("encode", write_input("txt", ["x"]), "-o", "out.npy").status == 0
    assert steps == ["fsync", "replace"]


@posix
def test_a_symbolic_link_stays_one(run: Run) -> None:
    Path("folder").mkdir()
    Path("link.npy").symlink_to("folder/real.npy")
    assert run("encode", write_input("txt", ["x"]), "-o", "link.npy").status == 0
    assert Path("link.npy").is_symlink()
    assert np.load("folder/real.npy").shape == (1, 75)


@posix
@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_leaves_nothing_behind(place: Path, name: str, status: int) -> None:
    (place / "out.npy").write_text("what was here before")
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_DFL)  # a signal that is ignored here is ignored by children too
    try:
        running = process("encode", "-o", "out.npy", stdin=subprocess.PIPE)
    finally:
        signal.signal(number, before)
    with running:
        wait_until(lambda: len(list(place.iterdir())) == 2)  # it has begun to write, and waits for its input
        running.send_signal(number)
        out, err = running.communicate()
    assert (running.returncode, out, err) == (status, b"", b"")
    assert [path.name for path in place.iterdir()] == ["out.npy"]
    assert (place / "out.npy").read_text() == "what was here before"


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@posix
@pytest.mark.parametrize(
    "argv", [["encode", "texts.txt", "-o", "-"], ["info"], ["search", "x", "texts.txt"], ["--help"]]
)
def test_a_closed_pipe_ends_the_run_quietly(argv: list[str]) -> None:
    write_input("txt", TEXTS)
    with process(*argv) as running:
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == b""
    assert running.returncode == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full to stand for a full disk")
@pytest.mark.parametrize("argv", [["encode", "texts.txt", "-o", "-"], ["info", "--json"]])
def test_a_full_disk_is_an_error(argv: list[str]) -> None:
    write_input("txt", TEXTS)
    with open("/dev/full", "wb") as full, process(*argv, stdout=full) as running:
        _, err = running.communicate()
    assert (running.returncode, err) == (2, b"minisbert: error: No space left on device\n")


def test_signal_handlers_are_put_back(run: Run) -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        assert run("info").status == 0
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_main_works_in_another_thread() -> None:
    statuses: list[int] = []
    thread = threading.Thread(target=lambda: statuses.append(cli.main(["info"])))
    thread.start()
    thread.join()
    assert statuses == [0]


# --- errors and warnings -------------------------------------------------------------------------------------

BAD_FILES = {
    "latin.txt": b"one\ntwo\ncaf\xe9\n",
    "broken.jsonl": b'{"text": "x"}\n\n{"text": \n',
    "deep.jsonl": b"[" * 100_000 + b"\n",
    "list.jsonl": b'["x"]\n',
    "field.jsonl": b'{"text": "x"}\n{"body": "y", "id": 1}\n',
    "number.jsonl": b'{"text": 3}\n',
    "null.jsonl": b'{"text": null}\n',
    "surrogate.jsonl": b'{"text": "\\ud800"}\n',
    "column.csv": b"id,body\n1,x\n",
    "twice.csv": b"text,text\nx,y\n",
    "ragged.csv": b'id,text\n1,"two\nlines"\n2,one, two\n',
    "short.csv": b"id,text\n1\n",
    "open.csv": b'text\nfine\n"never closed\nand more\n',
    "quote.csv": b'text\n"half" quoted\n',
    "latin.csv": b"text\nfine\ncaf\xe9\n",
    "good.txt": b"good\n",
    "data.json": b"[]",
    "folder/x.txt": b"",
}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("encode latin.txt -o o.npy", "latin.txt, line 3: not UTF-8 (byte 0xe9 at position 3 of the line)"),
        ("encode latin.csv -o o.npy", "latin.csv, line 3: not UTF-8"),
        ("encode broken.jsonl -o o.npy", "broken.jsonl, line 3: not JSON"),
        ("encode deep.jsonl -o o.npy", "deep.jsonl, line 1: not JSON"),
        ("encode list.jsonl -o o.npy", "list.jsonl, line 1: expected a JSON object, found list"),
        (
            "encode field.jsonl -o o.npy",
            "field.jsonl, line 2: no field 'text'; found 'body', 'id'; choose with --field",
        ),
        ("encode number.jsonl -o o.npy", "number.jsonl, line 1: field 'text' must be a string, found int"),
        ("encode null.jsonl -o o.npy", "null.jsonl, line 1: field 'text' must be a string, found NoneType"),
        (
            "encode surrogate.jsonl -o o.npy",
            "surrogate.jsonl, line 1: field 'text' holds half of a surrogate pair",
        ),
        ("encode column.csv -o o.npy", "column.csv, line 1: no column 'text'; found 'id', 'body'"),
        ("encode twice.csv -o o.npy", "twice.csv, line 1: more than one column 'text'"),
        ("encode ragged.csv -o o.npy", "ragged.csv, line 4: fields: 3, and in the header: 2"),
        ("encode short.csv -o o.npy", "short.csv, line 2: fields: 1, and in the header: 2"),
        ("encode open.csv -o o.npy", "open.csv, line 3: not CSV (unexpected end of data)"),
        ("encode quote.csv -o o.npy", "quote.csv, line 2: not CSV"),
        ("encode data.json -o o.npy", "data.json: a .json file is not one text a line"),
        ("encode good.txt -o o.npy --field x", "good.txt: --field x needs --format jsonl or csv"),
        ("encode nothing.txt -o o.npy", "nothing.txt: No such file or directory"),
        ("encode folder -o o.npy", "folder: "),
        ("encode good.txt -o o.pt", "o.pt: the output must end in .npy, .jsonl, .parquet"),
        ("encode good.txt -o no/o.npy", "no/o.npy: there is no folder no"),
        ("encode good.txt -o folder.npy", "folder.npy: exists and is not a regular file"),
        ("encode good.jsonl -o good.jsonl", "good.jsonl: is the input"),
        (
            "encode good.txt",
            "the following arguments are required: -o/--output (see minisbert encode --help)",
        ),
        (
            "encode good.txt -o o.npy --threads 0",
            "argument --threads: expected a whole number of at least 1, found '0'",
        ),
        ("encode good.txt -o o.npy --batch-size x", "argument --batch-size: expected a whole number"),
        ("encode good.txt -o o.npy --backend torch", "argument --backend: invalid choice: 'torch'"),
        ("encode good.txt -o o.npy --prompt a --prompt-name b", "argument --prompt-name: not allowed with"),
        ("encode good.txt -o o.npy --prompt-name b", "there is no prompt named 'b'"),
        ("encode good.txt -o o.npy --truncate-dim 76", "truncate_dim is 76"),
        ("encode good.txt -o o.npy --max-seq-length 65", "max_seq_length is 65"),
        ("encode good.txt -o o.npy --precision int8", "argument --precision: invalid choice: 'int8'"),
        ("encode good.txt -o o.npy --norm", "unrecognized arguments: --norm"),
        ("encode good.txt -o o.npy --model no-such-folder/", "no-such-folder"),
        ("similarity one", "two or more texts are needed, found one"),
        ("search x nothing.txt", "nothing.txt: No such file or directory"),
        ("search x good.txt -k 0", "argument -k: expected a whole number of at least 1, found '0'"),
        ("search x latin.txt", "latin.txt, line 3: not UTF-8"),
        ("info --model folder", "config.json"),
        ("dance", "argument COMMAND: invalid choice: 'dance'"),
        ("", "the following arguments are required: COMMAND (see minisbert --help)"),
    ],
)
def test_an_error_is_one_line(run: Run, argv: str, message: str) -> None:
    for name, content in BAD_FILES.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_bytes(content)
    Path("good.jsonl").write_bytes(b'{"text": "x"}\n')
    Path("folder.npy").mkdir()
    before = set(os.listdir())
    status, out, err = run(*argv.split())
    assert (status, out) == (2, "")
    assert err.startswith("minisbert: error: ")
    assert message in err
    assert err.index("\n") == len(err) - 1
    assert set(os.listdir()) == before


@pytest.mark.parametrize(
    "argv", [["--debug", "info", "--model", "no/"], ["info", "--model", "no/", "--debug"], ["--debug"]]
)
def test_debug_shows_the_traceback_of_an_error(run: Run, argv: list[str]) -> None:
    status, out, err = run(*argv)
    assert (status, out) == (2, "")
    assert err.startswith("Traceback (most recent call last):\n")
    assert err.splitlines()[-1].startswith("minisbert: error: ")


def test_a_bug_shows_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minisbert, "load", lambda *rest, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["info"])


@pytest.mark.parametrize("name", ["stdin", "stdout"])
def test_a_closed_standard_stream_is_an_error(run: Run, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    write_input("txt", TEXTS)
    monkeypatch.setattr(sys, name, None)
    status, _, err = run("encode", *([] if name == "stdin" else ["texts.txt"]), "-o", "-")
    assert status == 2
    assert re.fullmatch(
        r"minisbert: error: standard (in|out)put is closed; name a file to (read|write)\n", err
    )


def test_parquet_without_pyarrow_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    status, _, err = run("encode", write_input("txt", TEXTS), "-o", "out.parquet")
    assert status == 2
    assert (
        err == "minisbert: error: out.parquet: Parquet needs pyarrow; run: pip install 'minisbert[parquet]'\n"
    )


LONG = "word " * 40  # more than the 32 tokens that the tiny model reads


@pytest.mark.usefixtures("small_chunks")
def test_texts_that_are_cut_are_one_warning(run: Run) -> None:
    source = write_input("txt", ["x", "", LONG, "y", LONG, LONG])
    said = "texts.txt: texts cut to 32 tokens: 3, the first on line 3"
    assert run("encode", source, "-o", "out.npy", "--quiet") == (0, "", f"minisbert: warning: {said}\n")
    assert run("search", "x", source, "--json").err == f"minisbert: warning: {said}\n"
    assert run("encode", source, "-o", "out.npy", "--truncation", "silent", "--quiet").err == ""


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("command", [["encode", "texts.txt", "-o", "out.npy"], ["search", "x", "texts.txt"]])
def test_texts_that_are_too_long_can_be_an_error(
    run: Run, bert: minisbert.SentenceEncoder, command: list[str]
) -> None:
    write_input("txt", ["x", "", "y", LONG])
    tokens = bert.token_counts([LONG])[0]
    said = f"texts.txt, line 4: {tokens} tokens, more than 32; split the text, or choose --truncation warn"
    assert run(*command, "--truncation", "error") == (2, "", f"minisbert: error: {said}\n")
    assert os.listdir() == ["texts.txt"]


def test_a_query_can_be_too_long(run: Run) -> None:
    argv = ["search", LONG, write_input("txt", ["x"]), "--truncation"]
    assert run(*argv, "silent").err == ""
    assert run(*argv, "warn").err.startswith("minisbert: warning: 1 of 1 sentences were cut")
    assert run(*argv, "error")[:2] == (2, "")


@pytest.mark.parametrize(
    ("argv", "number", "first"),
    [
        (["encode", "texts.txt", "-o", "out.npy", "--quiet"], 2, 1),  # the default prompt
        (["encode", "texts.txt", "-o", "out.npy", "--quiet", "--prompt-name", "query"], 1, 2),
        (["encode", "texts.txt", "-o", "out.npy", "--quiet", "--prompt", LONG], 2, 1),
        (["encode", "texts.txt", "-o", "out.npy", "--quiet", "--prompt", ""], 1, 2),
        (["search", "x", "texts.txt", "--json"], 2, 1),
    ],
)
def test_a_prompt_counts_towards_the_limit(
    run: Run, copy_of: Callable[[str], Path], argv: list[str], number: int, first: int
) -> None:
    folder = copy_of("tiny-bert")
    prompts = {"query": "q ", "document": LONG}
    edit_json(folder / "config_sentence_transformers.json", prompts=prompts, default_prompt_name="document")
    write_input("txt", ["x", LONG])
    said = f"texts.txt: texts cut to 32 tokens: {number}, the first on line {first}"
    assert run(*argv, "--model", folder).err == f"minisbert: warning: {said}\n"


def test_max_seq_length_is_set(run: Run) -> None:
    source = write_input("txt", ["x", "one two three four five"])
    _, _, err = run("encode", source, "-o", "out.npy", "--max-seq-length", "4", "--quiet")
    assert err == "minisbert: warning: texts.txt: texts cut to 4 tokens: 1, the first on line 2\n"


def test_other_warnings_are_one_line_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = minisbert.SentenceEncoder.encode

    def warn(self: minisbert.SentenceEncoder, sentences: Sequence[str], **options: Any) -> Any:
        warnings.warn("something\nodd", RuntimeWarning, stacklevel=1)
        return encode(self, sentences, **options)

    monkeypatch.setattr(minisbert.SentenceEncoder, "encode", warn)
    source = write_input("txt", ["x"])
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert (
            run("encode", source, "-o", "out.npy", "--quiet").err == "minisbert: warning: something odd\n" * 2
        )
        assert run("similarity", "x", LONG).err.count("minisbert: warning: ") == 2


# --- similarity, search, info --------------------------------------------------------------------------------


def test_similarity_as_json(run: Run, bert: minisbert.SentenceEncoder) -> None:
    texts = ["one", "-2 degrees", "猫"]
    status, out, err = run("similarity", "--json", "--", *texts)
    assert (status, err) == (0, "")
    vectors = bert.encode(texts)
    expected = bert.similarity(vectors, vectors).tolist()
    assert json.loads(out) == {"texts": texts, "similarity_fn_name": "cosine", "similarities": expected}


def test_similarity_of_short_texts_is_a_table_with_their_names(
    run: Run, bert: minisbert.SentenceEncoder
) -> None:
    texts = ["one", "two words", "猫"]
    lines = run("similarity", *texts).out.splitlines()
    assert {columns(line) for line in lines} == {columns(lines[0])}
    assert re.split(r"  +", lines[0].strip()) == texts
    vectors = bert.encode(texts)
    for line, text, row in zip(lines[1:], texts, bert.similarity(vectors, vectors), strict=True):
        assert re.split(r"  +", line.strip()) == [text, *(f"{score:.4f}" for score in row)]


def test_similarity_of_long_texts_is_a_legend_and_a_table(run: Run, bert: minisbert.SentenceEncoder) -> None:
    texts = ["x" * 100, "a\tb\x1b[31m\n c", "", *"klmnopqrs"]
    lines = run("similarity", *texts).out.splitlines()
    assert max(map(columns, lines)) <= 80
    assert lines[:4] == [f" 1  {'x' * 75}…", " 2  a b[31m c", " 3  (blank)", " 4  k"]
    legend, first, second = [list(block) for block in split(lines)]
    assert (len(legend), len(first), len(second)) == (12, 13, 13)
    assert first[0].split() + second[0].split() == [str(i) for i in range(1, 13)]
    vectors = bert.encode(texts, truncation="silent")
    for i, row in enumerate(bert.similarity(vectors, vectors)):
        assert [first[i + 1].split()[0], second[i + 1].split()[0]] == [str(i + 1)] * 2
        assert first[i + 1].split()[1:] + second[i + 1].split()[1:] == [f"{score:.4f}" for score in row]


def split(lines: Sequence[str]) -> Iterator[list[str]]:
    """Split at empty lines."""
    return (block.split("\n") for block in "\n".join(lines).split("\n\n"))


def columns(text: str) -> int:
    return sum(1 + (unicodedata.east_asian_width(c) == "W") for c in text)


CORPUS = [
    "one apple",
    "",
    "two apples\x1b[2J and a pear",
    "猫" * 60,
    "   ",
    "a green apple",
    "one apple",
    "x" * 200,
]


@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv"])
@pytest.mark.parametrize("k", [1, 3, 100])
@pytest.mark.usefixtures("small_chunks")
def test_search_finds_the_closest(run: Run, bert: minisbert.SentenceEncoder, kind: str, k: int) -> None:
    status, out, err = run(
        "search", "an apple", write_input(kind, CORPUS), "-k", str(k), "--json", "--truncation", "silent"
    )
    assert (status, err) == (0, "")
    found = json.loads(out)
    lines = {i + 1 + (kind == "csv"): text for i, text in enumerate(CORPUS) if text.strip()}
    scores = bert.similarity(bert.encode("an apple"), bert.encode(list(lines.values()), truncation="silent"))[
        0
    ]
    expected = dict(zip(lines, scores, strict=True))
    assert [row["rank"] for row in found] == list(range(1, min(k, 6) + 1))
    assert [row["text"] for row in found] == [lines[row["line"]] for row in found]
    np.testing.assert_allclose(
        [row["score"] for row in found], sorted(expected.values())[::-1][:k], rtol=0, atol=1e-6
    )
    np.testing.assert_allclose(
        [expected[row["line"]] for row in found], sorted(expected.values())[::-1][:k], rtol=0, atol=1e-6
    )


def test_search_prints_a_table_that_fits(run: Run) -> None:
    source = write_input("txt", CORPUS)
    status, out, err = run("search", "an apple", source, "-k", "6", "--truncation", "silent")
    found = json.loads(run("search", "an apple", source, "-k", "6", "--truncation", "silent", "--json").out)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "rank   score  line  text"
    assert max(map(columns, lines)) in (79, 80)  # a wide character can leave one column over
    assert "\x1b" not in out
    for line, row in zip(lines[1:], found, strict=True):
        rank, score, number, text = line.split(maxsplit=3)
        assert (rank, score, number) == (str(row["rank"]), f"{row['score']:.4f}", str(row["line"]))
        assert row["text"].replace("\x1b", "").startswith(text.removesuffix("…"))


def test_equal_scores_keep_the_order_of_the_lines(run: Run) -> None:
    source = write_input("txt", ["same"] * 5)
    found = json.loads(run("search", "same", source, "-k", "3", "--json").out)
    assert [row["line"] for row in found] == [1, 2, 3]


def test_search_uses_the_prompts_for_queries_and_documents(
    run: Run, copy_of: Callable[[str], Path], calls: list[list[str]]
) -> None:
    folder = copy_of("tiny-bert")
    prompts = {"query": "what is ", "document": "this is "}
    edit_json(folder / "config_sentence_transformers.json", prompts=prompts, similarity_fn_name="euclidean")
    (found,) = json.loads(
        run("search", "an apple", write_input("txt", ["a pear"]), "--model", folder, "--json").out
    )
    encoder = minisbert.load(folder)
    expected = -np.linalg.norm(encoder.encode("what is an apple") - encoder.encode("this is a pear"))
    assert found["score"] == pytest.approx(expected, abs=1e-6)


def test_search_in_standard_input(run: Run, standard_input: Callable[[bytes], None]) -> None:
    standard_input(b"one\ntwo\n")
    assert [row["text"] for row in json.loads(run("search", "two", "-", "-k", "1", "--json").out)] == ["two"]


def test_search_in_nothing_says_so(run: Run) -> None:
    source = write_input("txt", ["", "  "])
    assert run("search", "x", source) == (
        0,
        "",
        "minisbert: warning: texts.txt: there is no text to search\n",
    )
    assert run("search", "x", source, "--json").out == "[]\n"


def test_info_as_json(run: Run, bert: minisbert.SentenceEncoder) -> None:
    facts = json.loads(run("info", "--json", "--threads", "3").out)
    assert facts["model"] == facts["folder"] == str(MODEL)
    assert facts["parameters"] == bert.num_parameters
    assert (facts["architecture"], facts["layers"], facts["width"], facts["heads"]) == ("bert", 3, 75, 3)
    assert (facts["pooling"], facts["normalize"], facts["dimension"]) == ("mean", True, 75)
    assert (facts["max_seq_length"], facts["max_positions"], facts["vocabulary"]) == (32, 64, 544)
    assert (facts["backend"], facts["threads"], facts["dtype"]) == (bert.backend, 3, "float32")
    assert facts["prompts"] == {"query": "", "document": ""}
    assert facts["versions"]["numpy"] == np.__version__
    assert facts["versions"]["minisbert"] == minisbert.__version__


def test_info_for_people(run: Run, copy_of: Callable[[str], Path], bert: minisbert.SentenceEncoder) -> None:
    folder = copy_of("tiny-bert")
    edit_json(folder / "config_sentence_transformers.json", prompts={"query": "what is", "other": "such as"})
    lines = run("info", "--model", folder).out.splitlines()
    assert f"parameters      {bert.num_parameters:,}" in lines
    assert "normalize       yes" in lines
    assert "default prompt  none" in lines
    at = lines.index("prompts         query: what is")
    assert lines[at + 1] == "                other: such as"


# --- help, versions, defaults --------------------------------------------------------------------------------

COMMANDS = ["encode", "similarity", "search", "info"]


@pytest.mark.parametrize("argv", [[], *([name] for name in COMMANDS)])
def test_help_fits_and_its_examples_are_right(capsys: pytest.CaptureFixture[str], argv: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*argv, "--help"])
    assert ended.value.code == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert max(map(len, out.splitlines())) <= 80
    shown = re.findall(
        r"^  (?:cat .* \| )?minisbert (.*?)(?: \|.*)?$", out.split("examples:\n")[1], re.MULTILINE
    )
    assert len(shown) >= 2
    for example in shown:
        assert callable(cli.build_parser().parse_args(shlex.split(example)).run)


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_version(capsys: pytest.CaptureFixture[str], option: str) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([option])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"minisbert {minisbert.__version__}\n")


def test_as_a_module_and_without_what_is_not_needed() -> None:
    with process("--version", env={"PYTHONPROFILEIMPORTTIME": "1"}) as running:
        out, err = running.communicate()
    assert (running.returncode, out.decode()) == (0, f"minisbert {minisbert.__version__}{os.linesep}")
    imported = {line.split("|")[-1].strip() for line in err.decode().splitlines()}
    assert "minisbert.cli" in imported
    assert not imported & {"pyarrow", "huggingface_hub", "tqdm", "numba"}


@pytest.mark.parametrize(
    ("variable", "argv", "model"),
    [
        (None, [], "sentence-transformers/all-MiniLM-L6-v2"),
        ("", [], "sentence-transformers/all-MiniLM-L6-v2"),
        ("from/variable", [], "from/variable"),
        ("from/variable", ["--model", "from/option"], "from/option"),
    ],
)
def test_which_model(
    monkeypatch: pytest.MonkeyPatch, variable: str | None, argv: list[str], model: str
) -> None:
    if variable is None:
        monkeypatch.delenv("MINISBERT_MODEL")
    else:
        monkeypatch.setenv("MINISBERT_MODEL", variable)
    assert cli.build_parser().parse_args(["info", *argv]).model == model


def test_the_model_is_loaded_as_asked(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def load(name: str, **options: Any) -> None:
        asked.append((name, options))
        raise minisbert.CheckpointError("as far as this test goes")

    monkeypatch.setattr(minisbert, "load", load)
    assert run("info").status == 2
    assert run("info", "--model", "a/b", "--backend", "reference", "--threads", "3").status == 2
    assert asked == [
        (str(MODEL), {"backend": "auto", "num_threads": None}),
        ("a/b", {"backend": "reference", "num_threads": 3}),
    ]


def test_output_without_unicode_is_escaped() -> None:
    write_input("txt", ["猫"])
    with process("search", "x", "texts.txt", env={"PYTHONIOENCODING": "ascii"}) as running:
        out, err = running.communicate()
    assert (running.returncode, err) == (0, b"")
    assert b"\\u732b" in out


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.usefixtures("small_chunks")
def test_progress_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, standard_input: Callable[[bytes], None]
) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert cli.main(["encode", str(write_input("txt", ["1", "2", "3", "4"])), "-o", "out.npy"]) == 0
    shown = [
        re.sub("[0-9,]+ a second", "N a second", line) for line in terminal.getvalue().split(cli.CLEAR_LINE)
    ]
    expected = [
        f"{done} texts, N a second, {share}% of the file" for done, share in [(0, 0), (2, 50), (4, 100)]
    ]
    assert shown == ["", *expected, "", "minisbert: out.npy: 4 x 75 float32\n"]


@pytest.mark.usefixtures("small_chunks")
def test_no_progress_when_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    assert cli.main(["encode", str(write_input("txt", ["1", "2", "3"])), "-o", "out.npy", "--quiet"]) == 0
    assert cli.main(["search", "x", "texts.txt", "--quiet"]) == 0
    assert terminal.getvalue() == ""
