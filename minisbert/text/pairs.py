"""Pairs of texts to token ids and types, cut longest first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from minisbert.checkpoint.config import TextConfig
from minisbert.checkpoint.jsonfile import read_json
from minisbert.errors import CheckpointError, UnsupportedCheckpointError
from minisbert.text.base import TextTokenizer, TokenIds, check_id, library_errors
from minisbert.text.tokenizer import check_limits, read_library, tokenizer_class

__all__ = ["PairTokenizer", "load_pair_tokenizer", "longest_first"]

# The tokenizers of transformers that hand on token types.
TYPED_TOKENIZERS = ("BertTokenizer", "ElectraTokenizer")


@dataclass(frozen=True, eq=False, repr=False)
class PairTokenizer(TextTokenizer):
    """Turns pairs of texts into ids and token types, which stand side by side: (T, 2).

    A pair is ``before``, the first text, ``between``, the second text and ``after``: the special tokens, each
    with its type, are always the same. ``types`` are the types of the two texts.
    """

    before: TokenIds
    between: TokenIds
    after: TokenIds
    types: tuple[int, int]

    def __call__(
        self, pairs: Sequence[tuple[str, str]], first: int, max_tokens: int
    ) -> tuple[list[TokenIds], list[int]]:
        """Return the ids and types (T, 2) of each pair, cut to `max_tokens`, and how many tokens it is known to have.

        Raises
        ------
        EncodeValueError, CheckpointError
            As `minisbert.text.tokenizer.SentenceTokenizer`; the message counts the pairs from `first`.
        """
        room = max_tokens - self.num_special
        ids = self.ids_of([text for pair in pairs for text in pair], room, _names(first))
        found = list(zip(ids[::2], ids[1::2], strict=True))
        if room % 2:  # of two texts that would each fill it, the longer one gets one token more
            for row, (one, other) in enumerate(found):
                if min(len(one), len(other)) > room:
                    is_longer = self.is_longer(*pairs[row], _names(first + row))
                    found[row] = one[: room + is_longer], other[: room + 1 - is_longer]
        counts = [len(one) + len(other) + self.num_special for one, other in found]
        return [self.join(pair, max_tokens) for pair in found], counts

    def count_all(self, pairs: Sequence[tuple[str, str]], first: int) -> list[int]:
        """Return how many tokens each pair has that is not cut; it raises what a call does."""
        lengths = self.lengths([text for pair in pairs for text in pair], _names(first))
        return [
            one + other + self.num_special for one, other in zip(lengths[::2], lengths[1::2], strict=True)
        ]

    def join(self, pair: tuple[TokenIds, TokenIds], max_tokens: int) -> TokenIds:
        """Put a pair together, cut to at most `max_tokens`: ids and types (T, 2)."""
        kept = longest_first(len(pair[0]), len(pair[1]), max_tokens - self.num_special)
        first, second = (
            np.stack([ids[:count], np.full(count, kind, np.int32)], axis=1)
            for ids, count, kind in zip(pair, kept, self.types, strict=True)
        )
        return np.concatenate([self.before, first, self.between, second, self.after])


def _names(first: int) -> Callable[[int], str]:
    """Return what says how the texts of pairs, one after the other, are called in messages."""
    return lambda index: f"text {index % 2} of pair {first + index // 2}"


def longest_first(first: int, second: int, room: int) -> tuple[int, int]:
    """Return how many tokens of each of two texts are kept, of at most `room` in all.

    The shorter text is kept whole if it takes no more than half of the room. If both are longer than that, each
    gets half; of an odd room the greater part goes to the longer text, and of equals to the second.
    """
    if first + second <= room:
        return first, second
    shorter = min(first, second, room // 2)
    return (shorter, room - shorter) if first <= second else (room - shorter, shorter)


def load_pair_tokenizer(config: TextConfig) -> PairTokenizer:
    """Read ``tokenizer.json`` of a cross-encoder.

    Raises
    ------
    CheckpointNotFoundError, CheckpointError
        As `minisbert.text.tokenizer.load_tokenizer`.
    UnsupportedCheckpointError
        If a pair is not a special token, the one text, and then the other one.
    """
    path, library = read_library(config)
    with library_errors(path):
        sample = _sample(path, library)
    texts = sample.sequence_ids
    _check_order(path, sample)
    ids = [index for index, text in zip(sample.ids, texts, strict=True) if text is None]
    check_id(path, library, max(ids), config.transformer.vocab_size)
    types = sample.type_ids if _has_token_types(config) else [0] * len(texts)
    check_limits(path, config, max(types), len(ids))
    tokens: NDArray[np.int64] = np.array([sample.ids, types], np.int64).T  # (T, 2)
    first, second = texts.index(0), texts.index(1)
    return PairTokenizer(
        path=path,
        library=library,
        num_special=len(ids),
        vocab_size=config.transformer.vocab_size,
        before=tokens[:first].astype(np.int32),
        between=tokens[first + texts.count(0) : second].astype(np.int32),
        after=tokens[second + texts.count(1) :].astype(np.int32),
        types=(types[first], types[second]),
    )


def _has_token_types(config: TextConfig) -> bool:
    """Whether transformers' tokenizer tells the model which text a token is of; else every token has type 0."""
    settings = read_json(config.transformer_folder / "tokenizer_config.json")
    inputs = settings.optional("model_input_names", list)
    typed = tokenizer_class(config) in TYPED_TOKENIZERS if inputs is None else "token_type_ids" in inputs
    return typed and config.transformer.family.has_token_types


def _sample(path: Path, library: Tokenizer) -> Encoding:
    """Encode a pair of texts that become tokens."""
    for text in ("a", "1", "."):
        encoding = library.encode(text, text)
        if set(encoding.sequence_ids) >= {0, 1}:
            return encoding
    raise CheckpointError(
        f"{path}: turns the pair 'a', 'a' into no tokens of both texts; expected at least one of each"
    )


def _check_order(path: Path, sample: Encoding) -> None:
    """Check which text each token of a pair is of, special ones being of none, and its type."""
    texts = sample.sequence_ids
    groups = [text for text, _ in groupby(texts)]
    in_order = groups[0] is None and [text for text in groups if text is not None] == [0, 1]
    kinds = {kind for kind in zip(texts, sample.type_ids, strict=True) if kind[0] is not None}
    # The library forgets the first of two places that one text is put in: its tokens are of none, and not special.
    once = [text is None for text in texts] == [special == 1 for special in sample.special_tokens_mask]
    if not in_order or len(kinds) != 2 or not once:
        raise UnsupportedCheckpointError(
            f"{path}: puts pairs together in a way that minisbert does not compute; supported: special tokens, the "
            "first text, special tokens, the second text, special tokens, with one token type for each text"
        )
