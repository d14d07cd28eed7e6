"""What is refused without ``tokenizer.json``: files that are missing or damaged, and classes that are not made here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import minisbert
from tests.conftest import edit_json, edit_tokenizer, use_vocabulary
from tests.text.test_vocabulary import changed, ids

Copy = Callable[[str], Path]


def refused(folder: Path, kind: type[Exception], *parts: str) -> str:
    with pytest.raises(kind) as info:
        minisbert.load(folder)
    assert type(info.value) is kind
    for part in parts:
        assert part in str(info.value)
    return str(info.value)


@pytest.mark.parametrize(
    ("name", "lost", "kind"),
    [
        ("tiny-bert", "vocab.txt", "BertTokenizer"),
        ("tiny-roberta", "merges.txt", "RobertaTokenizer"),
        ("tiny-roberta", "vocab.json", "RobertaTokenizer"),
        ("tiny-xlm-roberta", "sentencepiece.bpe.model", "XLMRobertaTokenizer"),
    ],
)
def test_no_command_makes_a_tokenizer_of_nothing(copy_of: Copy, name: str, lost: str, kind: str) -> None:
    folder = copy_of(name)
    if name == "tiny-xlm-roberta":
        (folder / "tokenizer.json").unlink()
    else:
        use_vocabulary(folder)
        (folder / lost).unlink()
    message = refused(
        folder,
        minisbert.CheckpointNotFoundError,
        f"{folder / 'tokenizer.json'}: there is no such",
        lost,
        kind,
    )
    assert "python -c" not in message


@pytest.mark.parametrize("kind", ["PhobertTokenizer", "BertweetTokenizer", "PreTrainedTokenizer"])
def test_a_class_of_its_own_is_refused_by_name(copy_of: Copy, kind: str) -> None:
    """Of these transformers makes no tokenizer.json, and says nothing."""
    folder = changed(copy_of("tiny-bert"), {"tokenizer_config.json": {"tokenizer_class": kind}})
    (folder / "bpe.codes").write_text("a b 1\n")
    message = refused(
        folder, minisbert.UnsupportedCheckpointError, "tokenizer.json", f"no {kind}", "BertTokenizer"
    )
    assert "python -c" not in message


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        ("XLMRobertaTokenizer", ["sentencepiece.bpe.model"]),
        ("CamembertTokenizer", ["sentencepiece.bpe.model"]),
        ("BigBirdTokenizer", ["spiece.model"]),
        ("HerbertTokenizer", ["vocab.json", "merges.txt"]),
    ],
)
def test_a_class_that_transformers_converts(copy_of: Copy, kind: str, files: list[str]) -> None:
    folder = copy_of("tiny-xlm-roberta")
    (folder / "tokenizer.json").unlink()
    edit_json(folder / "tokenizer_config.json", tokenizer_class=kind)
    for name in files:
        (folder / name).write_bytes(b"not read")
    command = f"A.from_pretrained(r'{folder}').backend_tokenizer.save(r'{folder / 'tokenizer.json'}')\""
    message = refused(folder, minisbert.UnsupportedCheckpointError, files[0], kind)
    assert message.endswith(command)


def test_a_tokenizer_that_is_blind_to_its_text(copy_of: Copy) -> None:
    """As transformers makes it, without a word, where the vocabulary is missing: of five special tokens."""
    folder = copy_of("tiny-bert")
    names = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

    def forget(values: dict[str, Any]) -> None:
        values["model"]["vocab"] = {name: id for id, name in enumerate(names)}

    edit_tokenizer(folder, forget)
    refused(
        folder,
        minisbert.CheckpointError,
        "tokenizer.json: has 5 tokens, of which 5 are added",
        "vocab_size",
        "544",
        "copy",
    )
    edit_tokenizer(folder, lambda values: values["model"]["vocab"].update(word=5))
    refused(folder, minisbert.CheckpointError, "tokenizer.json: has 6 tokens, of which 5 are added", "or cut")
    words = {f"word{id}": id for id in range(5, 5 + 544 // 8)}
    edit_tokenizer(folder, lambda values: values["model"]["vocab"].update(words))
    assert ids(folder, "word5") == [2, 5, 3]


@pytest.mark.parametrize("content", [b"", b"[CLS]\n[SEP]\n"])
def test_a_vocabulary_that_is_empty(copy_of: Copy, content: bytes) -> None:
    folder = changed(copy_of("tiny-bert"), {})
    (folder / "vocab.txt").write_bytes(content)
    refused(folder, minisbert.CheckpointError, "vocab.txt: has 5 tokens, of which 5 are added ones")


@pytest.mark.parametrize(
    ("name", "file", "content", "found"),
    [
        ("tiny-bert", "vocab.txt", b"\xff\n", "is not UTF-8"),
        ("tiny-roberta", "vocab.json", b"[]", "expected an object"),
        ("tiny-roberta", "vocab.json", b'{"a": "0"}', "expected an object"),
        ("tiny-roberta", "vocab.json", b'{"a": -1}', "failed with it"),
        ("tiny-roberta", "vocab.json", b'{"a": 4294967296}', "failed with it"),
        ("tiny-roberta", "vocab.json", b'{"\\ud800": 1}', "failed with it"),
        ("tiny-roberta", "vocab.json", b"{", "not valid JSON"),
        ("tiny-roberta", "merges.txt", b"#version: 0.2\na b\n\n", "line 3 is ''"),
        ("tiny-roberta", "merges.txt", b"a b c\n", "line 1 is 'a b c'"),
        ("tiny-roberta", "merges.txt", b"\xff b\n", "is not UTF-8"),
        ("tiny-roberta", "merges.txt", b"zzz b\n", "out of vocabulary"),
    ],
)
def test_damaged_files(copy_of: Copy, name: str, file: str, content: bytes, found: str) -> None:
    folder = changed(copy_of(name), {})
    (folder / file).write_bytes(content)
    refused(folder, minisbert.CheckpointError, found, str(folder))


@pytest.mark.parametrize(
    ("file", "changes", "found"),
    [
        ("tokenizer_config.json", {"mask_token": 5}, "mask_token is 5; expected a token"),
        ("tokenizer_config.json", {"sep_token": {"lstrip": True}}, "expected a token"),
        ("tokenizer_config.json", {"cls_token": None}, "puts the token None before or after"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": {"content": "a"}}}, "'x' is the id"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"9": 9}}, "added_tokens_decoder is 9"),
        ("tokenizer_config.json", {"mask_token": {"content": "\ud800"}}, "failed with it"),
        ("tokenizer_config.json", {"unk_token": "\ud800"}, "failed with it"),
        ("tokenizer_config.json", {"made_up_token": "[MADE UP]"}, "made_up_token names the token"),
        ("special_tokens_map.json", {"mask_token": []}, "mask_token is []; expected a token"),
        ("added_tokens.json", {"[NEW]": "last"}, "'last' is the id of the token '[NEW]'"),
    ],
)
def test_tokens_that_make_no_sense(copy_of: Copy, file: str, changes: dict[str, Any], found: str) -> None:
    folder = changed(copy_of("tiny-bert"), {file: changes})
    refused(folder, minisbert.CheckpointError, found)


@pytest.mark.parametrize(
    "changes",
    [{"init_inputs": ["other.txt"]}, {"vocab": {"a": 0}}, {"extra_special_tokens": {"image": "[CLS]"}}],
)
def test_settings_that_change_what_is_made(copy_of: Copy, changes: dict[str, Any]) -> None:
    folder = changed(copy_of("tiny-bert"), {"tokenizer_config.json": changes})
    refused(folder, minisbert.UnsupportedCheckpointError, "tokenizer_config.json", *changes, "supported")
