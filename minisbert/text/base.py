"""Texts to token ids: the `tokenizers` library, a few texts at a time, and no more of a long one than is wanted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from minisbert.errors import CheckpointError, EncodeValueError
from minisbert.text.pieces import pieces, safe_cut

__all__ = ["TextTokenizer", "TokenIds", "check_id", "library_errors"]

TokenIds = NDArray[np.int32]
# At most so many texts and characters are given to the library in one call, as its results take memory: thirty to fifty
# bytes for a character of a short text, two hundred for one of a long text. Smaller groups slow down short texts.
AT_ONCE = 256
CHARACTERS_AT_ONCE = 1 << 16
# A text is read in pieces until it has the tokens that are wanted: of so many characters for each wanted token,
# so that one piece is mostly enough; of PIECE characters where all tokens are counted.
CHARACTERS_PER_TOKEN = 6
PIECE = 1 << 10


@dataclass(frozen=True, eq=False, repr=False)
class TextTokenizer:
    """A ``tokenizer.json`` and the number of rows that the word embeddings have for its ids.

    Truncation is done here and not by the library, because a file often has a limit of its own baked in, and
    because the library tokenises all of a text before it cuts it.
    """

    path: Path
    library: Tokenizer
    num_special: int
    vocab_size: int

    def ids_of(self, texts: Sequence[str], most: int, name: Callable[[int], str]) -> list[TokenIds]:
        """Return the ids of each text, without special tokens: all of them, or at least `most + 1` from the start.

        `name` says what text i is called in messages.
        """
        size = min(CHARACTERS_PER_TOKEN * (most + 1), CHARACTERS_AT_ONCE)
        unread = {row: pieces(text, self._cut, size) for row, text in enumerate(texts) if len(text) > size}
        heads = [*texts]
        for row, rest in unread.items():
            heads[row] = next(rest)
        with _blame(texts, name):
            found = self._ids_of_all(heads)
            while more := _next_pieces(unread, found, most):
                for row, ids in zip(more, self._ids_of_all([*more.values()]), strict=True):
                    found[row] = np.concatenate([found[row], ids])
        return found

    def lengths(self, texts: Sequence[str], name: Callable[[int], str]) -> list[int]:
        """Return how many ids all of each text has, without special tokens; a long text takes no more memory."""
        lengths = [0] * len(texts)
        unread = ((row, piece) for row, text in enumerate(texts) for piece in pieces(text, self._cut, PIECE))
        with _blame(texts, name):
            while some := [*islice(unread, AT_ONCE)]:
                for (row, _), ids in zip(some, self._ids_of_all([piece for _, piece in some]), strict=True):
                    lengths[row] += len(ids)
        return lengths

    def is_longer(self, one: str, other: str, name: Callable[[int], str]) -> bool:
        """Whether one text has more ids than another: of each no more is read than it takes to know."""
        ours, theirs = (pieces(text, self._cut, PIECE) for text in (one, other))
        lead = 0
        with _blame((one, other), name):
            while piece := next(ours if lead <= 0 else theirs, ""):  # of the one that is behind
                [ids] = self._ids_of_all([piece])
                lead += len(ids) if lead <= 0 else -len(ids)
        return lead > 0

    @cached_property
    def _cut(self) -> re.Pattern[str]:
        return safe_cut(self.library)  # which takes some milliseconds, that short texts need not spend

    def _ids_of_all(self, texts: list[str]) -> list[TokenIds]:
        """Return the ids of all of each text; the library gets a few texts at a time."""
        if len(texts) > 1 and (len(texts) > AT_ONCE or sum(map(len, texts)) > CHARACTERS_AT_ONCE):
            half = len(texts) // 2
            return self._ids_of_all(texts[:half]) + self._ids_of_all(texts[half:])
        with library_errors(self.path):
            encodings = self.library.encode_batch_fast(texts, add_special_tokens=False)
        rows = [encoding.ids for encoding in encodings]
        check_id(self.path, self.library, max(map(max, filter(None, rows)), default=0), self.vocab_size)
        return [np.array(ids, np.int32) for ids in rows]


def _next_pieces(unread: dict[int, Iterator[str]], found: list[TokenIds], most: int) -> dict[int, str]:
    """Take the next piece of each text that has no more than `most` ids so far, if there is one."""
    return {
        row: piece for row, rest in unread.items() if len(found[row]) <= most and (piece := next(rest, ""))
    }


@contextmanager
def library_errors(path: Path) -> Iterator[None]:
    """Turn what the library raises into our exception; what comes from elsewhere meanwhile passes as it is."""
    try:
        yield
    except BaseException as error:
        if not _is_the_librarys(error):
            raise
        raise CheckpointError(
            f"{path}: the tokenizers library failed with it ({error}); copy the checkpoint again"
        ) from error


def _is_the_librarys(error: BaseException) -> bool:
    """Whether the library itself raised this, and not a signal's handler or another thread, such as a time limit.

    It raises a few built-in exceptions as they are, and a panic, which is none of them; and as it is no Python, the
    last Python frame is then one of ours, while that of a handler is its own.
    """
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    ours = last is not None and last.tb_frame.f_globals.get("__name__", "").startswith("minisbert.")
    kinds = (Exception, TypeError, UnicodeEncodeError, ValueError)
    return ours and (type(error) in kinds or type(error).__name__ == "PanicException")


def check_id(path: Path, library: Tokenizer, highest: int, vocab_size: int) -> None:
    """Refuse the highest id of some tokens, if the word embeddings have no row for it."""
    if highest >= vocab_size:
        raise CheckpointError(
            f"{path}: gives the token {library.id_to_token(highest)!r} the id {highest}, and "
            f"the word embeddings have {vocab_size} rows; do both files belong to one checkpoint?"
        )


@contextmanager
def _blame(texts: Sequence[str], name: Callable[[int], str]) -> Iterator[None]:
    """Refuse the text that is to blame where the library fails, if one is."""
    try:
        yield
    except CheckpointError:
        for index, text in enumerate(texts):
            _check_unicode(text, name(index))
        raise


def _check_unicode(text: str, name: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise EncodeValueError(
            f"{name} holds a lone surrogate, {text[error.start]!r}, at character {error.start}, so it "
            "can't be written as UTF-8; decode the bytes it came from with errors='replace'"
        ) from None
