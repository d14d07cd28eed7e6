"""The process of ``minisbert``: signals, full disks, closed pipes, and standard streams of any kind."""

from __future__ import annotations

import errno
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from minisbert.cli import commands, streams
from tests.support.commandline import (
    LONG,
    TEXTS,
    Encoder,
    Run,
    check_error,
    from_jsonl,
    not_ignored,
    posix,
    process,
    python,
    write_input,
)
from tests.support.environment import PATIENCE

pytestmark = pytest.mark.usefixtures("place")

# --- signals and full disks ----------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_leaves_nothing_behind(name: str) -> None:
    Path("out.npy").write_text("what was here before")
    number = getattr(signal, name)
    with not_ignored(number):
        running = process("encode", "-o", "out.npy", stdin=subprocess.PIPE)
    with running:
        deadline = time.monotonic() + 60
        while len(os.listdir()) < 2:  # until it has begun to write, and waits for its input
            assert time.monotonic() < deadline
            time.sleep(0.02)
        running.send_signal(number)
        out, err = running.communicate()
    assert (running.returncode, out, err) == (-number, b"", b"")
    assert os.listdir() == ["out.npy"]
    assert Path("out.npy").read_text() == "what was here before"


STRUCK = """
import io
import os
import signal
import sys
from minisbert.cli import commands

class Strike:
    def __del__(self):  # what is raised in here goes nowhere
        os.kill(os.getpid(), signal.SIGTERM)

class Input(io.BytesIO):
    def read1(self, size):
        if len(os.listdir()) > 1:
            Strike()
        return super().read1(size)

sys.stdin = io.TextIOWrapper(Input(b"one\\n" * 100))
sys.argv = ["minisbert", "encode", "-o", "out.npy", "--backend", "reference"]
"""


@posix
@pytest.mark.parametrize("is_first_process", [False, True])
def test_a_signal_ends_the_process_wherever_it_strikes(is_first_process: bool) -> None:
    Path("out.npy").write_text("what was here before")
    # The first process of a container does not end by a signal that it has no handler for.
    harmless = "signal.raise_signal = lambda number: None\n" if is_first_process else ""
    with python("-c", f"{STRUCK}{harmless}commands.main()") as running:
        out, err = running.communicate(timeout=60 * PATIENCE)
    assert (running.returncode, out, err) == (143 if is_first_process else -signal.SIGTERM, b"", b"")
    assert os.listdir() == ["out.npy"]
    assert Path("out.npy").read_text() == "what was here before"


STRUCK_AT_ONCE = """
import os
import signal
import sys
from minisbert.cli import commands, journal

journal.fcntl.flock = lambda *_: os.kill(os.getpid(), signal.SIGTERM)
sys.argv = ["minisbert", "encode", "-o", "out.npy", "--backend", "reference"]
commands.main()
"""


@posix
def test_a_signal_that_strikes_before_a_file_is_locked() -> None:
    with python("-c", STRUCK_AT_ONCE, stdin=subprocess.DEVNULL) as running:
        out, err = running.communicate(timeout=60 * PATIENCE)
    assert (running.returncode, out, err) == (-signal.SIGTERM, b"", b"")
    assert os.listdir() == []


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
    assert (running.returncode, err) == (2, b"minisbert: error: standard output: No space left on device\n")


@posix
def test_a_file_that_can_not_be_written_is_named(run: Run, output: Path) -> None:
    """A limit on the size of files stands for a full disk; it strikes in the middle, or only at the end."""
    import resource

    source = write_input("txt", TEXTS * 50)
    assert run("encode", source, "-o", output).status == 0
    size, limits = output.stat().st_size, resource.getrlimit(resource.RLIMIT_FSIZE)
    output.unlink()
    for most in (100, size - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
        try:
            ran = run("encode", source, "-o", output)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert ran == (2, "", f"minisbert: error: {output}: File too large\n")
        assert os.listdir() == [str(source)]


@posix
def test_a_file_that_can_not_be_made_is_named(run: Run, output: Path) -> None:
    source = write_input("txt", TEXTS)
    long = f"{'x' * 240}{output.suffix}"  # which leaves no room for what is added to it until it is complete
    assert run("encode", source, "-o", long) == (2, "", f"minisbert: error: {long}: File name too long\n")
    assert os.listdir() == [str(source)]


# --- standard streams ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stdin", [None, io.StringIO("one\n")])
def test_without_bytes_on_standard_input_a_file_is_needed(
    run: Run, monkeypatch: pytest.MonkeyPatch, stdin: io.StringIO | None
) -> None:
    monkeypatch.setattr(sys, "stdin", stdin)
    check_error(run("encode", "-o", "out.npy"), "standard input is closed, or gives no bytes; name a file")
    assert os.listdir() == []


def test_closed_standard_streams_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert commands.main(["encode", str(write_input("txt", [LONG])), "-o", "out.npy"]) == 0
    assert commands.main(["info"]) == 0


def test_without_a_standard_output_a_file_is_needed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_input("txt", TEXTS)
    monkeypatch.setattr(sys, "stdout", None)
    said = "minisbert: error: standard output is closed; name a file with --output\n"
    assert run("encode", source, "-o", "-").err == said


def test_standard_output_may_take_text_only(bert: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    source = str(write_input("txt", TEXTS))
    monkeypatch.setattr(sys, "stdout", text := io.StringIO())
    assert commands.main(["encode", source, "-o", "-"]) == 0
    texts, vectors = from_jsonl(text.getvalue().encode())
    assert texts == TEXTS
    np.testing.assert_array_equal(vectors, bert.encode(TEXTS), strict=True)


@pytest.mark.parametrize("argv", [["encode", "-o", "-"], ["search", "x"], ["search", "--json", "x"]])
def test_a_closed_pipe_of_windows(run: Run, monkeypatch: pytest.MonkeyPatch, argv: list[str]) -> None:
    """Writing into it is an invalid argument there."""

    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.EINVAL, "Invalid argument")

    source = write_input("txt", TEXTS)
    monkeypatch.setattr(sys, "stdout", Closed())
    assert run(*argv, source).err == "minisbert: error: standard output: Invalid argument\n"
    monkeypatch.setattr(streams, "CLOSED_PIPE", (errno.EPIPE, errno.EINVAL))
    assert run(*argv, source)[::2] == (141, "")
