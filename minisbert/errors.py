"""The exceptions: one root, and beside it the built-in exception that fits.

Every message names the file, the key or the tensor, what was found, what was expected and what to do.
"""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "CheckpointNotFoundError",
    "EncodeTypeError",
    "EncodeValueError",
    "MinisbertError",
    "TruncationError",
    "TruncationWarning",
    "UnsupportedCheckpointError",
]


class MinisbertError(Exception):
    """The root of every exception that minisbert raises on purpose."""


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

    Attributes
    ----------
    rows : tuple of int
        The indices of the texts that were cut.
    longest : int
        How many tokens the longest of them has.
    """
