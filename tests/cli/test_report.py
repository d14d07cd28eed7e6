"""What the ``minisbert`` command prints: JSON that is JSON anywhere, tables, and the progress."""

from __future__ import annotations

import errno
import io
import json
import re
import sys
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import tqdm

from minisbert.cli import commands, report
from tests.support.commandline import Run, process, small_chunks, write_input

pytestmark = pytest.mark.usefixtures("place")

# --- standard output -----------------------------------------------------------------------------------------

ODD = "caf\xe9 \x85 \u2028 \u2029 \x0b \x1c 猫 🙂"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8", "utf-8:strict", "shift_jis"])
@pytest.mark.parametrize(
    "argv", ["similarity --json x", "search --json x texts.txt", "rerank --json x texts.txt"]
)
def test_json_is_json_in_any_encoding(argv: str, encoding: str) -> None:
    write_input("txt", [ODD])
    texts = [ODD] if "similarity" in argv else []
    with process(*argv.split(), *texts, env={"PYTHONIOENCODING": encoding}) as running:
        out, err = running.communicate()
    assert (running.returncode, err) == (0, b"")
    found = json.loads(out)  # UTF-8, as JSON has to be
    assert ODD in (found["texts"] if texts else [found["text"]])


def test_json_stays_readable_where_it_can(run: Run) -> None:
    assert '"猫 é", "\\u2028"' in " ".join(run("similarity", "猫 é", "\u2028", "--json").out.split())


def test_a_line_of_json_is_one_line_for_all_readers() -> None:
    everything = "".join(map(chr, (*range(0xD800), *range(0xE000, 0x110000))))
    (line,) = report.to_json(everything).splitlines()
    assert json.loads(line) == everything


def test_output_without_unicode_is_escaped() -> None:
    write_input("txt", ["猫"])
    with process("search", "x", "texts.txt", env={"PYTHONIOENCODING": "ascii"}) as running:
        out, err = running.communicate()
    assert (running.returncode, err) == (0, b"")
    assert b"\\u732b" in out


# --- standard error ------------------------------------------------------------------------------------------


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Make standard error a terminal, where every step of a bar is seen."""
    monkeypatch.setattr(sys, "stderr", terminal := io.StringIO())
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(tqdm, "tqdm", partial(tqdm.tqdm, mininterval=0))
    monkeypatch.setattr(report, "BAR_DELAY", 0)
    return terminal


@small_chunks
def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_a_terminal(monkeypatch)
    source = str(write_input("txt", ["1", "2", "3", "4"]))
    assert commands.main(["encode", source, "-o", "out.npy", "--quiet"]) == 0
    assert commands.main(["search", "x", source, "--quiet"]) == 0
    assert terminal.getvalue() == ""
    assert commands.main(["encode", source, "-o", "out.npy"]) == 0
    assert re.findall(r"\d+%", terminal.getvalue()) == ["0%", "50%", "100%"]
    assert "| 2/4 [" in terminal.getvalue()
    # The bar has been cleared away, with spaces: some consoles print escape sequences as they are.
    assert re.search(r" \r+minisbert: out.npy: 4 x 75 float32\n$", terminal.getvalue())
    assert "\x1b" not in terminal.getvalue()


@pytest.mark.parametrize("argv", [["encode", "-o", "out.npy"], ["search", "x"], ["rerank", "x"]])
def test_progress_within_a_chunk(monkeypatch: pytest.MonkeyPatch, argv: list[str]) -> None:
    terminal = on_a_terminal(monkeypatch)
    source = str(write_input("txt", ["1", "2", "3", "4"]))
    assert commands.main([*argv, source, "--batch-size", "1"]) == 0
    assert re.findall(r"\d+%", terminal.getvalue()) == ["0%", "25%", "50%", "75%", "100%"]


def test_bad_lines_count_as_done(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_a_terminal(monkeypatch)
    Path("a.txt").write_bytes(b"one\n\xff\n\xff\ntwo\n")
    assert commands.main(["encode", "a.txt", "-o", "out.npy", "--on-bad-lines", "null"]) == 0
    assert re.findall(r"\d+%", terminal.getvalue()) == ["0%", "50%", "100%"]


def test_what_is_told_beside_a_bar_has_a_line_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = on_a_terminal(monkeypatch)
    with report.progress("Encoding", 4, quiet=False) as update:
        update(2)
        report.tell("something")
        update(2)
    assert re.search(r" \rminisbert: something\n\rEncoding: 100%", terminal.getvalue())


def test_progress_in_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where standard error is no terminal, such as in a log; and not more often than every half minute."""
    clock = count(0, 20)
    monkeypatch.setattr(report, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with report.progress("Encoding", 10_000, quiet=False) as update:
        for _ in range(5):
            update(1_000)
    assert capsys.readouterr().err == (
        "minisbert: Encoding: 2,000 of 10,000 texts, 50.0 a second, 0:02:40 left\n"
        "minisbert: Encoding: 4,000 of 10,000 texts, 50.0 a second, 0:02:00 left\n"
    )
    with report.progress("Encoding", None, quiet=False) as update:
        for _ in range(2):
            update(1_000)
    assert capsys.readouterr().err == "minisbert: Encoding: 2,000 texts, 50.0 a second\n"
    with report.progress("Encoding", None, quiet=True) as update:
        for _ in range(2):
            update(1_000)
    assert capsys.readouterr().err == ""


def test_the_lines_are_about_reading_and_encoding(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "LINE_SECONDS", 0)
    source = write_input("txt", ["1", "2", "3", "4"])
    said = run("encode", source, "-o", "out.npy", "--batch-size", "1").err.splitlines()
    assert [re.sub(r" texts.*", "", line).removeprefix("minisbert: ") for line in said] == [
        "Reading: 4",
        "Encoding: 1 of 4",
        "Encoding: 2 of 4",
        "Encoding: 3 of 4",
        "Encoding: 4 of 4",
        "out.npy: 4 x 75 float32",
    ]


def test_where_standard_error_is_full_nothing_is_said(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stderr", Full())
    assert run("encode", write_input("txt", ["x" * 200]), "-o", "out.npy").status == 0
