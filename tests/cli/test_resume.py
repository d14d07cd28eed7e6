"""``minisbert encode --resume``: a run that is cut short is gone on with to the same bytes, or refused."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from minisbert.cli import journal
from tests.conftest import edit_json
from tests.support.commandline import (
    LONG,
    Calls,
    Encoder,
    Run,
    check_error,
    posix,
    process,
    python,
    small_chunks,
    write_input,
    write_rows,
)
from tests.support.environment import PATIENCE

pytestmark = pytest.mark.usefixtures("place")
TEXTS = ["one", "two", LONG, "four", "", "six", "seven"]


@pytest.fixture
def keep_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any work is worth keeping, however short it took."""
    monkeypatch.setattr(journal, "KEEP_SECONDS", 0.0)


def cut_short(run: Run, source: Path, output: Path, at: str, *options: str) -> None:
    """Begin to encode, and fail as the chunk with that text comes."""

    def fail(texts: list[str]) -> None:
        if at in texts:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        encode = Encoder.encode
        patch.setattr(
            Encoder, "encode", lambda self, texts, **kw: (fail(texts), encode(self, texts, **kw))[1]
        )
        assert run("encode", source, "-o", output, *options).status == 130


@pytest.mark.usefixtures("keep_all")
@small_chunks
def test_a_run_goes_on_to_the_same_bytes(run: Run, calls: Calls, output: Path) -> None:
    source = write_rows("jsonl", [{"text": text, "id": row} for row, text in enumerate(TEXTS)])
    keep = [] if output.suffix == ".npy" else ["--keep"]
    argv = ["encode", source, "-o", output, *keep]
    said = run(*argv).err
    whole, partial = output.read_bytes(), Path(f"{output}.partial")
    output.write_text("what was here before")
    cut_short(run, source, output, "four", *keep)
    cut_short(run, source, output, "seven", *keep, "--resume")
    assert output.read_text() == "what was here before"
    assert sorted(os.listdir()) == sorted([str(output), str(partial), "rows.jsonl"])
    for last in (
        partial.stat().st_size - 1,
        partial.stat().st_size,
    ):  # the last chunk was written in part, or whole
        content = partial.read_bytes()
        os.truncate(partial, last)
        calls.clear()
        rows = 6 if last == len(content) else 4
        assert run(*argv, "--resume").err == f"minisbert: {output}: goes on after {rows} rows\n{said}"
        assert [text for call in calls for text in call] == TEXTS[rows:]
        assert output.read_bytes() == whole
        assert not partial.exists()
        partial.write_bytes(content)
    partial.unlink()
    assert (
        "2 more" in said or "rows.jsonl, line 3" in said
    )  # what was cut in the first run is told in the last


@pytest.mark.usefixtures("keep_all")
@small_chunks
def test_what_is_left_is_no_surprise(run: Run, output: Path) -> None:
    source = write_input("txt", TEXTS)
    cut_short(run, source, output, "seven")
    place = f"{Path(output).resolve()}.partial"
    content = Path(place).read_bytes()
    said = f"{place}: has 6 rows of a run that was cut short; go on from there with --resume, or remove it"
    check_error(run("encode", source, "-o", output), said)
    check_error(run("encode", source, "-o", output, "--normalize", "--resume"), "(other normalize)")
    check_error(run("encode", source, "-o", output, "--backend", "reference", "--resume"), "(other backend)")
    assert Path(place).read_bytes() == content
    assert run("encode", source, "-o", "other.npy", "--resume").err.startswith(
        "minisbert: other.npy: there is nothing to go on from; starts with the first row\n"
    )


@pytest.mark.usefixtures("keep_all")
@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            ["one", "two", LONG, "FOUR", *TEXTS[4:]],
            "the input changed since: of texts 3 to 4 not all are what they",
        ),
        ([*TEXTS, "more"], "is of a run that differs from this one (the input changed)"),
        (["two", "one", *TEXTS[2:]], "the input changed since: of texts 1 to 2 not all are what they were"),
    ],
)
@small_chunks
def test_another_input_is_refused(run: Run, changed: list[str], said: str) -> None:
    source, output = write_input("txt", TEXTS), Path("out.npy")
    cut_short(run, source, output, "seven")
    content = Path("out.npy.partial").read_bytes()
    check_error_at_the_end(run("encode", write_input("txt", changed), "-o", output, "--resume"), said)
    assert Path("out.npy.partial").read_bytes() == content
    assert sorted(os.listdir()) == ["out.npy.partial", "texts.txt"]
    write_input("txt", TEXTS)
    assert run("encode", source, "-o", output, "--resume").status == 0


def check_error_at_the_end(ran: Any, message: str) -> None:
    """After what was told on the way."""
    assert ran.status == 2
    last = ran.err.splitlines()[-1]
    assert last.startswith("minisbert: error: ")
    assert message in last


@pytest.mark.usefixtures("keep_all")
@small_chunks
def test_another_checkpoint_is_refused(run: Run, prompted: Path) -> None:
    source, output = write_input("txt", TEXTS), Path("out.npy")
    cut_short(run, source, output, "seven", "--model", str(prompted), "--prompt", "")
    edit_json(prompted / "config_sentence_transformers.json", similarity_fn_name="dot")
    argv = ["encode", source, "-o", output, "--model", prompted, "--prompt", "", "--resume"]
    check_error(run(*argv), "is of a run that differs from this one (other checkpoint)")


@pytest.mark.usefixtures("keep_all")
@small_chunks
def test_a_damaged_end_is_computed_anew(run: Run, calls: Calls, bert: Encoder) -> None:
    source, output = write_input("txt", TEXTS), Path("out.npy")
    assert run("encode", source, "-o", output).status == 0
    whole = output.read_bytes()
    cut_short(run, source, output, "seven")
    place = Path("out.npy.partial")
    content = bytearray(place.read_bytes())
    content[-50] ^= 1
    place.write_bytes(content)
    calls.clear()
    assert run("encode", source, "-o", output, "--resume").status == 0
    assert [text for call in calls for text in call] == TEXTS[4:]
    assert output.read_bytes() == whole
    place.write_bytes(
        content[: content.index(b"\n") + 1] + bytes(3000)
    )  # zeros, as a power failure leaves them
    assert run("encode", source, "-o", output).status == 0
    assert output.read_bytes() == whole
    assert not place.exists()


@pytest.mark.parametrize(
    "content", [b"mine\n", b"{}\n", b'{"minisbert": "partial output"}\n', b"\0" * 99, b"[]"]
)
def test_a_file_of_others_is_left_alone(run: Run, content: bytes) -> None:
    source = write_input("txt", TEXTS)
    Path("out.npy.partial").write_bytes(content)
    for resume in ([], ["--resume"]):
        check_error(
            run("encode", source, "-o", "out.npy", *resume, "--truncation", "silent"),
            "out.npy.partial: is no part of an output of minisbert; rename it, or remove it",
        )
    assert Path("out.npy.partial").read_bytes() == content
    assert not Path("out.npy").exists()


def test_what_took_no_time_is_not_kept(run: Run, output: Path) -> None:
    cut_short(run, write_input("txt", TEXTS), output, "seven")
    assert os.listdir() == ["texts.txt"]


def test_pipes_can_not_be_gone_on_with(run: Run) -> None:
    source = write_input("txt", TEXTS)
    check_error(run("encode", source, "-o", "-", "--resume"), "--resume needs a file for the output")
    with process("encode", "-o", "out.npy", "--resume", stdin=subprocess.PIPE) as running:
        _, err = running.communicate(b"one\n")
    assert running.returncode == 2
    assert (
        err == b"minisbert: error: standard input: --resume needs a file, as a pipe can't be read once more\n"
    )


@posix
def test_an_output_has_one_writer(run: Run) -> None:
    with process("encode", "-o", "out.npy", stdin=subprocess.PIPE) as running:
        wait_for(lambda: Path("out.npy.partial").exists() and Path(".minisbert-out.npy.tmp").exists())
        for resume in ([], ["--resume"]):
            ran = run("encode", write_input("txt", ["x"]), "-o", "out.npy", *resume)
            check_error(
                ran, "out.npy: another process is writing it, and has out.npy.partial; wait for its end"
            )
        running.communicate(b"one\ntwo\n")
    assert running.returncode == 0
    assert sorted(os.listdir()) == ["out.npy", "texts.txt"]


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 60 * PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


@posix
def test_kill_9(run: Run) -> None:
    """With 200,000 rows, in all formats, `tools/killed.py` does the same."""
    source, partial = write_input("txt", ["x"] * 5000), Path("out.npy.partial")
    argv = ["encode", str(source), "-o", "out.npy"]
    assert run(*argv, "--backend", "reference").status == 0
    whole = Path("out.npy").read_bytes()
    os.unlink("out.npy")
    for chunks in (1, 2):
        with process(*argv, *["--resume"] * (chunks > 1)) as running:
            wait_for(lambda size=chunks * 300_000: partial.exists() and partial.stat().st_size > size)
            running.send_signal(signal.SIGKILL)
            running.communicate()
        assert sorted(os.listdir()) == [".minisbert-out.npy.tmp", "out.npy.partial", "texts.txt"]
    assert re.search(
        r"out.npy: goes on after \d,\d+ rows", run(*argv, "--backend", "reference", "--resume").err
    )
    assert Path("out.npy").read_bytes() == whole
    assert sorted(os.listdir()) == ["out.npy", "texts.txt"]


STRUCK = """
import os
import signal
import sys
import time
from minisbert import SentenceEncoder
from minisbert.cli import commands, journal, textio

def strike(encoder, texts, **options):
    if "seven" in texts:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    return encode(encoder, texts, **options)

encode, SentenceEncoder.encode = SentenceEncoder.encode, strike
journal.KEEP_SECONDS, textio.CHUNK_TEXTS = 0, 2
sys.argv = ["minisbert", "encode", "texts.txt", "-o", "out.npy", "--backend", "reference"]
commands.main()
"""


@posix
def test_a_signal_says_what_is_kept() -> None:
    write_input("txt", TEXTS)
    with python("-c", STRUCK) as running:
        out, err = running.communicate(timeout=60 * PATIENCE)
    said = f"minisbert: {Path('out.npy.partial').resolve()}: keeps what is done; go on from there with --resume\n"
    assert (running.returncode, out, err.decode()) == (-signal.SIGTERM, b"", said)
    assert sorted(os.listdir()) == ["out.npy.partial", "texts.txt"]


@pytest.mark.usefixtures("keep_all")
@small_chunks
def test_an_append_goes_on_too(run: Run, calls: Calls) -> None:
    pytest.importorskip("pyarrow", reason="only Parquet is appended to")
    output = Path("out.parquet")
    append = ["--append", "--key", "id"]
    old = write_rows("csv", [{"id": row, "text": f"text {row}"} for row in range(3)], "old")
    new = write_rows("csv", [{"id": row, "text": f"text {row}"} for row in range(8)], "new")
    assert run("encode", old, "-o", output, *append).status == 0
    before = output.read_bytes()
    assert run("encode", new, "-o", output, *append).status == 0
    whole = output.read_bytes()
    output.write_bytes(before)
    cut_short(run, new, output, "text 7", *append)
    assert output.read_bytes() == before
    calls.clear()
    assert run("encode", new, "-o", output, *append, "--resume").status == 0
    assert [text for call in calls for text in call] == ["text 7"]
    assert output.read_bytes() == whole


@pytest.mark.usefixtures("keep_all")
@small_chunks
def test_a_chunk_of_bad_lines_is_gone_on_with_too(run: Run, output: Path) -> None:
    source = Path("texts.txt")
    source.write_bytes(b"one\ntwo\n\xff\n\xff\nfive\n\xff\nseven\n")
    argv = ["encode", source, "-o", output, "--on-bad-lines", "null"]
    said = run(*argv).err
    whole = output.read_bytes()
    output.unlink()
    cut_short(run, source, output, "seven", "--on-bad-lines", "null")
    assert run(*argv, "--resume").err == f"minisbert: {output}: goes on after 3 rows\n{said}"
    assert output.read_bytes() == whole
