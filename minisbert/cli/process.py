"""The process of the ``minisbert`` command: its standard streams, and the signals that end it."""

from __future__ import annotations

import io
import os
import signal
import sys
from contextlib import suppress
from types import FrameType

from minisbert.cli.streams import STDOUT, naming
from minisbert.cli.writers import GO_ON
from minisbert.unfinished import kept, remove_unfinished

__all__ = ["end_at_signals", "flush_stdout", "prepare_streams"]


def prepare_streams() -> None:
    """Make sure that printing works: where standard error was closed, as by 2>&-, and on a terminal without Unicode."""
    sys.stderr = sys.stderr or io.StringIO()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def end_at_signals() -> None:
    """Have the signals that end this process leave no temporary file behind.

    An exception would remove it too, but not from everywhere: what strikes in a callback, as there are many while a
    module is imported, Python swallows, and goes on. The process ends by the signal itself, from which a shell sees
    that its script is to end too. On Windows a file that is open can't be removed: there Ctrl-C raises as ever.
    """
    if sys.platform == "win32":
        return

    def end(number: int, frame: FrameType | None) -> None:
        remove_unfinished()
        for place in kept:  # written at once: what the signal interrupts may be a write to the buffer
            with suppress(OSError):
                os.write(2, f"minisbert: {place}: {GO_ON}\n".encode(errors="backslashreplace"))
        signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
        os._exit(128 + number)  # as the first process of a container, which such signals do not end

    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):  # nohup has one ignored
            signal.signal(number, end)


def flush_stdout() -> None:
    """Flush standard output; where that fails, let nothing be left for the interpreter to fail at once more."""
    try:
        with naming(STDOUT):
            if sys.stdout is not None:  # as where it was closed
                sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise
