"""From a sentence to token ids: ``tokenizer.json``, with truncation and padding taken out of the library's hands."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import Lowercase
from tokenizers.normalizers import Sequence as NormalizerSequence

from minisbert.checkpoint.access import open_file
from minisbert.checkpoint.config import TextConfig
from minisbert.checkpoint.jsonfile import JsonFile, is_there, read_json
from minisbert.errors import CheckpointError, UnsupportedCheckpointError, shown
from minisbert.text.base import TextTokenizer, TokenIds, check_id, library_errors
from minisbert.text.steps import put_round, set_steps, steps_of
from minisbert.text.vocabulary import build, find_vocabulary

__all__ = ["SentenceTokenizer", "check_limits", "load_tokenizer", "read_library", "tokenizer_class"]


@dataclass(frozen=True, eq=False, repr=False)
class SentenceTokenizer(TextTokenizer):
    """Turns texts into ids; a sentence is ``before``, a text's ids and ``after``, which are never cut."""

    before: TokenIds
    after: TokenIds
    token_type: int

    def __call__(self, texts: Sequence[str], first: int, max_tokens: int) -> tuple[list[TokenIds], list[int]]:
        """Return the ids (T,) of each sentence, cut to `max_tokens`, and how many tokens it is known to have.

        For a text that is cut the count is a lower bound above `max_tokens`: it is not read to its end.

        Raises
        ------
        EncodeValueError
            If a text is not valid Unicode, as far as it is read; the message counts the texts from `first`.
        CheckpointError
            If the tokenizer fails, or gives an id that the word embeddings have no row for.
        """
        room = max_tokens - self.num_special
        rows, counts = [], []
        for ids in self.ids_of(texts, room, lambda index: f"sentence {first + index}"):
            rows.append(np.concatenate([self.before, ids[:room], self.after]))
            counts.append(len(ids) + self.num_special)
        return rows, counts

    def count_all(self, texts: Sequence[str], first: int) -> list[int]:
        """Return how many tokens each sentence has, uncut; it raises what a call does."""
        lengths = self.lengths(texts, lambda index: f"sentence {first + index}")
        return [length + self.num_special for length in lengths]

    def prompt_length(self, prompt: str, max_tokens: int) -> int:
        """Count the tokens that a prompt puts before a text: its own as a text, cut, less a special last one."""
        [ids], _ = self([prompt], 0, max_tokens)
        special = {id for id, token in self.library.get_added_tokens_decoder().items() if token.special}
        return len(ids) - (len(ids) > 0 and int(ids[-1]) in special)


def load_tokenizer(config: TextConfig) -> SentenceTokenizer:
    """Read ``tokenizer.json`` of a checkpoint, or the vocabulary that stands in for it.

    Raises
    ------
    CheckpointNotFoundError
        If the file is not there.
    CheckpointError
        If it is damaged, or contradicts another file.
    UnsupportedCheckpointError
        If one sentence gets more than one token type.
    """
    path, library = read_library(config)
    with library_errors(path):
        before, after, token_type = _probe(path, library)
    check_id(path, library, max([*before, *after], default=0), config.transformer.vocab_size)
    num_special = len(before) + len(after)
    check_limits(path, config, token_type, num_special)
    return SentenceTokenizer(
        path=path,
        library=library,
        num_special=num_special,
        vocab_size=config.transformer.vocab_size,
        before=np.array(before, np.int32),
        after=np.array(after, np.int32),
        token_type=token_type,
    )


def read_library(config: TextConfig) -> tuple[Path, Tokenizer]:
    """Read ``tokenizer.json``, or the vocabulary in its place; return the file's path too, for messages."""
    path = config.transformer_folder / "tokenizer.json"
    if not is_there(path):
        path = find_vocabulary(path.parent, tokenizer_class(config))
    with library_errors(path):
        return path, _read(path, config)


def tokenizer_class(config: TextConfig) -> str:
    """Return the tokenizer's class, as transformers finds it: what the files say, or else the family's."""
    kind = config.transformer.family.tokenizer
    for name in ("config.json", "tokenizer_config.json"):
        kind = read_json(config.transformer_folder / name).get("tokenizer_class", str, kind)
    return kind.removesuffix("Fast")


def check_limits(path: Path, config: TextConfig, token_type: int, num_special: int) -> None:
    """Compare the token types and special tokens that the tokenizer gives with what the model has room for."""
    if config.transformer.family.has_token_types and config.transformer.type_vocab_size <= token_type:
        raise CheckpointError(
            f"{path}: gives texts the token type {token_type}, and config.json says type_vocab_size is "
            f"{config.transformer.type_vocab_size}"
        )
    if config.max_seq_length < num_special:
        raise CheckpointError(
            f"{path}: adds {num_special} special tokens to each input, and max_seq_length, from "
            f"sentence_bert_config.json or tokenizer_config.json, is {config.max_seq_length}"
        )


def _read(path: Path, config: TextConfig) -> Tokenizer:
    """Make the tokenizer of a file, and overrule what it says of whatever other files decide."""
    kind, settings = tokenizer_class(config), read_json(path.with_name("tokenizer_config.json"))
    if path.name == "tokenizer.json":
        library, named = _read_json(path, kind, settings)
    else:
        library, named = build(path.parent, kind, settings)
    _check_named_tokens(path, library)
    _check_vocabulary(path, library, config.transformer.vocab_size)
    put_round(library, kind, settings, named)
    steps = steps_of(library.normalizer)
    if config.do_lower_case and not any(isinstance(step, Lowercase) for step in steps):
        library.normalizer = NormalizerSequence([Lowercase(), *steps])
    return library


def _read_json(path: Path, kind: str, settings: JsonFile) -> tuple[Tokenizer, dict[str, str | None]]:
    """Read ``tokenizer.json``, but for truncation, padding and dropout, and the special tokens that files name."""
    with open_file(path) as file:
        content = file.read()
    _check_charsmap(path, content)
    library = Tokenizer.from_buffer(content)  # not from_file: it takes no name that is not UTF-8
    library.no_truncation()
    library.no_padding()
    if isinstance(library.model, BPE):  # dropout of merges is for training; RobertaTokenizer has none
        library.model.dropout = None
    set_steps(library, kind, settings)
    return library, {key: token for _, key, token in _named_tokens(path.parent)}


def _check_vocabulary(path: Path, library: Tokenizer, vocab_size: int) -> None:
    """Refuse a vocabulary that is tiny beside the model's, or of added tokens alone: most words would be unknown to it.

    transformers silently makes such a one of the special tokens where the file of the vocabulary is missing.
    """
    size, added = library.get_vocab_size(), len(library.get_added_tokens_decoder())
    if (2 if size == added else 8) * size < vocab_size:
        raise CheckpointError(
            f"{path}: has {size} tokens, of which {added} are added ones, and vocab_size in config.json is "
            f"{vocab_size}, so the vocabulary itself is missing or cut; copy the checkpoint again, all files of it"
        )


def _check_named_tokens(path: Path, library: Tokenizer) -> None:
    """Refuse a token that another file names and that was not added: transformers would add it."""
    known = {token.content for token in library.get_added_tokens_decoder().values()}
    for file, key, token in _named_tokens(path.parent):
        if token not in known:
            raise CheckpointError(
                f"{file}: {key} names the token {shown(token)}, which is none of the added_tokens of {path.name}; "
                "do both files belong to one checkpoint? Where transformers is installed, AutoTokenizer loads them and "
                "saves files that agree"
            )


def _named_tokens(folder: Path) -> Iterator[tuple[Path, str, str]]:
    """Yield the tokens that the files beside ``tokenizer.json`` name: file, key and token."""
    settings = read_json(folder / "tokenizer_config.json")
    settings.refuse_unless({"split_special_tokens": (False,)})
    files = [settings]
    if "added_tokens_decoder" not in settings.values:  # else transformers does not read the older files
        files.append(read_json(folder / "special_tokens_map.json"))
        added = read_json(folder / "added_tokens.json")
        yield from ((added.path, "a key", token) for token in added.values if token in added.values)
    for file in files:
        for key in file.values:
            if key.endswith("_token") or key in _TOKEN_LISTS:
                tokens = _contents(file.values[key])
                is_overruled = file is not files[-1] and key in files[-1].values
                if key in _TOKEN_LISTS or not is_overruled:
                    yield from ((file.path, key, token) for token in tokens)


_TOKEN_LISTS = ("additional_special_tokens", "extra_special_tokens", "added_tokens_decoder")


def _contents(value: Any) -> Iterator[str]:
    """Yield the text of a token, or of those in a list or an object; each is a string, or an object of its own."""
    if isinstance(value, dict) and "content" not in value:
        value = list(value.values())
    for item in value if isinstance(value, list) else [value]:
        content = item.get("content") if isinstance(item, dict) else item
        if isinstance(content, str) and content:
            yield content


def _check_charsmap(path: Path, content: bytes) -> None:
    """Refuse a map of characters that claims to be longer than it is: the library would reserve that memory first."""
    for match in re.finditer(rb'"precompiled_charsmap"\s*:\s*"([A-Za-z0-9+/]{8})([^"]*)"', content):
        claimed = int.from_bytes(base64.b64decode(match[1])[:4], "little")
        if claimed > len(match[2]):
            raise CheckpointError(
                f"{path}: precompiled_charsmap says that {claimed} bytes follow, and there are fewer than "
                f"{len(match[2])}; copy the checkpoint again"
            )


def _probe(path: Path, library: Tokenizer) -> tuple[list[int], list[int], int]:
    """Return the ids that stand before and after those of a text, and the token type that a sentence gets."""
    for sample in ("a", "1", "."):
        encoding = library.encode(sample)
        special = encoding.special_tokens_mask
        if not all(special):
            if len(set(encoding.type_ids)) > 1:
                raise UnsupportedCheckpointError(
                    f"{path}: gives the tokens of one sentence the types {sorted(set(encoding.type_ids))}; "
                    "supported: one token type a sentence"
                )
            # If a template inserts the text twice, the first copy has no sequence id and is not marked as special.
            if [int(text is None) for text in encoding.sequence_ids] != special:
                raise UnsupportedCheckpointError(
                    f"{path}: puts a text in twice; supported: special tokens, the text, special tokens"
                )
            first, last = special.index(0), len(special) - special[::-1].index(0)
            return encoding.ids[:first], encoding.ids[last:], encoding.type_ids[0]
    raise CheckpointError(f"{path}: turns the text 'a' into no token at all; expected at least one")
