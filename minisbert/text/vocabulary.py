"""Tokenizers from the files that there were before ``tokenizer.json``: vocab.txt, or vocab.json and merges.txt.

transformers 5 makes the model and the steps of the class, and then adds the tokens that the settings name: those that
the vocabulary has keep their ids, and the others get the next ones, so that their order counts. How each of them treats
capitals and the spaces beside it depends on the file that names it, and on the class. All this is repeated here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import BPE, Model, WordPiece

from minisbert.checkpoint.access import open_file
from minisbert.checkpoint.conversion import tokenizer_refusal
from minisbert.checkpoint.jsonfile import JsonFile, is_there, parse_json, read_json
from minisbert.errors import CheckpointError, CheckpointNotFoundError, UnsupportedCheckpointError, shown
from minisbert.text.steps import set_steps

__all__ = ["FILES", "build", "find_vocabulary"]

Token: TypeAlias = "AddedToken | str"

# What the tokenizer of a class is made of where there is no tokenizer.json.
FILES: dict[str, tuple[str, ...]] = {
    "BertTokenizer": ("vocab.txt",),
    "DistilBertTokenizer": ("vocab.txt",),
    "ElectraTokenizer": ("vocab.txt",),
    "MPNetTokenizer": ("vocab.txt",),
    "RobertaTokenizer": ("vocab.json", "merges.txt"),
}
# And of other classes, for which transformers makes one.
CONVERTIBLE: dict[str, tuple[str, ...]] = {
    "BarthezTokenizer": ("sentencepiece.bpe.model",),
    "BigBirdTokenizer": ("spiece.model",),
    "CamembertTokenizer": ("sentencepiece.bpe.model",),
    "HerbertTokenizer": ("vocab.json", "merges.txt"),
    "XLMRobertaTokenizer": ("sentencepiece.bpe.model",),
}

# The special tokens of a class where no file names others, in the order in which they are added.
_BERT = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
_ROBERTA = {
    "bos_token": "<s>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "sep_token": "</s>",
    "pad_token": "<pad>",
    "cls_token": "<s>",
    "mask_token": "<mask>",
}
_DEFAULTS = {"RobertaTokenizer": _ROBERTA, "MPNetTokenizer": {**_ROBERTA, "unk_token": "[UNK]"}}
_EXTRA, _OLD_EXTRA = "extra_special_tokens", "additional_special_tokens"
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")

# What Rust takes for white space at the end of a line: fewer characters than Python does.
_SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029" \
    "\u202f\u205f\u3000"  # fmt: skip


def find_vocabulary(folder: Path, kind: str) -> Path:
    """Return the first of the files that the tokenizer of a class is made of without ``tokenizer.json``.

    Raises
    ------
    CheckpointNotFoundError
        If one of them is not there.
    UnsupportedCheckpointError
        If minisbert makes no such tokenizer of other files.
    """
    missing = f"{folder / 'tokenizer.json'}: there is no such file, and "
    names = FILES.get(kind) or CONVERTIBLE.get(kind)
    if names is None:
        raise UnsupportedCheckpointError(
            f"{missing}of other files minisbert makes no {kind}; supported without it: {', '.join(FILES)}"
        )
    for name in names:
        if not is_there(folder / name):
            raise CheckpointNotFoundError(
                f"{missing}no {name} either, of which a {kind} is made without it; copy the checkpoint again, with "
                "all of its files"
            )
    if kind in CONVERTIBLE:
        raise tokenizer_refusal(folder / names[0], kind)
    return folder / names[0]


def build(folder: Path, kind: str, settings: JsonFile) -> tuple[Tokenizer, dict[str, str | None]]:
    """Make the tokenizer of a class, but for what it puts round a text; return its special tokens too, by their keys.

    Raises
    ------
    CheckpointError
        If a file is damaged.
    UnsupportedCheckpointError
        If a setting asks for what is not done here.
    """
    settings.refuse_unless({"init_inputs": ([],), "vocab": (), "merges": ()})
    named, tokens = _special_tokens(folder, kind, settings)
    unknown = str(named["unk_token"])
    library = Tokenizer(_wordpiece(folder, unknown) if FILES[kind] == ("vocab.txt",) else _byte_level(folder))
    # First, as the library looks for some tokens in the text as the steps leave it.
    set_steps(library, kind, settings)
    library.add_tokens(tokens)
    return library, {key: None if token is None else str(token) for key, token in named.items()}


# --- the vocabulary ------------------------------------------------------------------------------------------


def _wordpiece(folder: Path, unknown: str) -> Model:
    lines = _lines(folder / "vocab.txt")
    return WordPiece({line.rstrip(_SPACES): id for id, line in enumerate(lines)}, unk_token=unknown)


def _byte_level(folder: Path) -> Model:
    path = folder / "vocab.json"
    vocab = parse_json(path)
    if not isinstance(vocab, dict) or not all(type(id) is int for id in vocab.values()):
        raise CheckpointError(
            f"{path}: expected an object of tokens and their ids; copy the checkpoint again"
        )
    merges = list(_merges(folder / "merges.txt"))
    return BPE(vocab, merges, continuing_subword_prefix="", end_of_word_suffix="")


def _merges(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(_lines(path), 1):
        if not line.startswith("#version"):
            first, space, second = line.removesuffix("\r").partition(" ")
            if not space or " " in second:
                raise CheckpointError(
                    f"{path}: line {number} is {shown(line)}; expected two tokens and a space"
                )
            yield first, second


def _lines(path: Path) -> list[str]:
    with open_file(path) as file:
        content = file.read()
    try:
        lines = content.decode().split("\n")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: is not UTF-8 ({error}); copy the checkpoint again") from error
    return lines if lines[-1] else lines[:-1]  # where a line ends, none begins yet


# --- special tokens ------------------------------------------------------------------------------------------


def _special_tokens(
    folder: Path, kind: str, settings: JsonFile
) -> tuple[dict[str, Token | None], list[AddedToken]]:
    """Return the special tokens by their keys, and all that are to be added, in order."""
    values, added = _read_tokens(folder, settings)
    extra = values.get(_EXTRA, values.get(_OLD_EXTRA)) or []
    if not isinstance(extra, list):
        raise UnsupportedCheckpointError(
            f"{settings.path}: {_EXTRA} is {shown(extra)}; supported without tokenizer.json: a list of tokens"
        )
    defaults = _DEFAULTS.get(kind, _BERT)
    named = {key: _named(settings, kind, key, values.get(key, defaults.get(key))) for key in _ROBERTA}
    tokens: list[Token] = list(added)
    known = {str(token) for token in tokens}
    for token in (*named.values(), *(_token(settings, _EXTRA, value) for value in extra)):
        # A string and a token with settings of its own are two: the library is given both, and keeps one.
        if token is not None and str(token) not in known and token not in tokens:
            tokens.append(token)
    special = {str(token) for token in named.values()}
    return named, [_special(token, str(token) in special) for token in tokens]


def _special(token: Token, is_named: bool) -> AddedToken:
    if isinstance(token, str):
        return AddedToken(token, special=True)
    token.special = token.special or is_named
    return token


def _named(settings: JsonFile, kind: str, key: str, value: Any) -> Token | None:
    """Return a special token; null stands for none. MPNet's are looked for in the text that is in small letters."""
    if kind == "MPNetTokenizer" and isinstance(value, str):
        return AddedToken(value, lstrip=key == "mask_token")
    return None if value is None else _token(settings, key, value)


def _read_tokens(folder: Path, settings: JsonFile) -> tuple[dict[str, Any], list[AddedToken]]:
    """Return the settings of tokens, by their keys, and those that are added first, in the order of their ids."""
    values = dict(settings.values)
    if _OLD_EXTRA in values and not values.get(_EXTRA):
        values[_EXTRA] = values.pop(_OLD_EXTRA)
    if "added_tokens_decoder" in values:
        decoder = settings.get("added_tokens_decoder", dict, {})
        added = ((id, _token(settings, "added_tokens_decoder", token)) for id, token in decoder.items())
        return values, _in_order(settings.path, added)
    older, ids = (read_json(folder / name) for name in ("special_tokens_map.json", "added_tokens.json"))
    for key, value in older.values.items():
        values[key] = _token(older, key, value, special=True) if isinstance(value, dict) else value
    special = {str(values[key]) for key in _ROBERTA if values.get(key)}
    special |= set(map(str, values.get(_EXTRA) or ()))
    tokens = ((t, id, t in special) for t, id in ids.values.items())
    added = (
        (id, AddedToken(t, normalized=not is_special, special=is_special)) for t, id, is_special in tokens
    )
    return values, _in_order(ids.path, added)


def _in_order(path: Path, added: Iterable[tuple[Any, AddedToken]]) -> list[AddedToken]:
    tokens: dict[int, AddedToken] = {}
    for id, token in added:
        if not str(id).isdecimal():
            raise CheckpointError(
                f"{path}: {shown(id)} is the id of the token {shown(str(token))}; expected a number"
            )
        tokens[int(id)] = token
    return [tokens[id] for id in sorted(tokens)]


def _token(file: JsonFile, key: str, value: Any, **flags: bool) -> Any:
    """Return a token as it is written: a string, or an object with what is special about it."""
    if isinstance(value, str | AddedToken):
        return value
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        raise CheckpointError(f"{file.path}: {key} is {shown(value)}; expected a token")
    return AddedToken(value["content"], **{flag: value[flag] for flag in _FLAGS if flag in value} | flags)
