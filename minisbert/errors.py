"""The exceptions: one root, and beside it the built-in exception that fits.

Every message names the file, the key or the tensor, what was found, what was expected and what to do.
"""

from __future__ import annotations

import reprlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

__all__ = [
    "BackendWarning",
    "CalibrationWarning",
    "CheckpointError",
    "CheckpointNotFoundError",
    "EncodeTypeError",
    "EncodeValueError",
    "MinisbertError",
    "MissingPackageError",
    "TruncationError",
    "TruncationWarning",
    "UnsupportedCheckpointError",
    "level_of_caller",
    "shown",
]

MAX_MESSAGE = 1400  # characters: names in a damaged file can have any length, and any character
MAX_VALUE = 100


class MinisbertError(Exception):
    """The root of every exception that minisbert raises on purpose: its message is one line, of bounded length."""

    def __init__(self, message: str) -> None:
        line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
        if len(line) > MAX_MESSAGE:  # what was found stands at the start, and what to do at the end
            line = f"{line[: MAX_MESSAGE // 2]} ... {line[5 - MAX_MESSAGE // 2 :]}"
        super().__init__(line)


_repr = reprlib.Repr()
_repr.maxlevel = 3
_repr.maxstring = _repr.maxother = MAX_VALUE


def shown(value: object) -> str:
    """Write a value for a message: briefly, however large, nested or unwilling it is."""
    try:
        return _repr.repr(value[:MAX_VALUE] if isinstance(value, bytes | bytearray) else value)[:MAX_VALUE]
    except Exception:  # its __repr__ is the caller's code, and can raise anything
        return f"a {type(value).__name__} that can't be shown"


class CheckpointError(MinisbertError, ValueError):
    """A file of the checkpoint is damaged or contradicts another one."""


class CheckpointNotFoundError(MinisbertError, FileNotFoundError):
    """The checkpoint, or a file that it needs, is not there."""


class UnsupportedCheckpointError(CheckpointError):
    """The checkpoint is sound, and asks for something that minisbert does not compute."""


class EncodeTypeError(MinisbertError, TypeError):
    """An argument, or one of the texts, has the wrong type."""


class EncodeValueError(MinisbertError, ValueError):
    """An argument, or one of the texts, has the right type and an impossible value."""


class MissingPackageError(MinisbertError, ImportError):
    """A package that minisbert does not need, but what was asked for does, can't be imported."""


class _TextsTooLong(Exception):
    """What the error and the warning about texts that are too long have in common."""

    def __init__(self, message: str, rows: tuple[int, ...] = (), longest: int = 0) -> None:
        super().__init__(message)  # this alone, so that both can be made from a message, and unpickled
        self.rows = rows
        self.longest = longest


class TruncationError(_TextsTooLong, EncodeValueError):
    """A text is longer than ``max_seq_length``, and the caller asked for that to be an error.

    Attributes
    ----------
    rows : tuple of int
        The index of the text; it is the first one that is too long.
    longest : int
        How many tokens it has.
    """


class TruncationWarning(_TextsTooLong, UserWarning):
    """Texts were longer than ``max_seq_length`` and were cut.

    Its message is the same whichever texts they were, so a filter that shows each warning once shows it once.

    Attributes
    ----------
    rows : tuple of int
        The indices of the texts that were cut.
    longest : int
        How many tokens the longest of them has at least: texts are not read to the end.
    """


class BackendWarning(UserWarning):
    """The fast kernels can't be loaded: NumPy computes, or Numba compiled them anew. The message says why."""


class CalibrationWarning(UserWarning):
    """Vectors were quantised by the ranges of one call's, so those of another call can't be compared with them."""


def level_of_caller() -> int:
    """Return the ``stacklevel``, where this is called, of the first frame outside of minisbert."""
    level = 0
    frame: FrameType | None = sys._getframe(0)
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == "minisbert":
        level, frame = level + 1, frame.f_back
    return level
