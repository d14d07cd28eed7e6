"""Tokenizers without ``tokenizer.json``: the ids are those that transformers 5.23.0 gives for the same files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minisbert
from minisbert.checkpoint.config import read_config
from minisbert.cli import check
from minisbert.text.tokenizer import load_tokenizer
from tests.conftest import DATA, FEW, edit_json, use_vocabulary
from tests.support import texts

Copy = Callable[[str], Path]

WORDPIECE = ("tiny-bert", "tiny-distilbert", "tiny-electra", "tiny-mpnet")


def ids(folder: Path, text: str) -> list[int]:
    """What becomes of a text, whether or not the embeddings have rows for it."""
    found: list[int] = load_tokenizer(read_config(folder)).library.encode(text).ids
    return found


def changed(folder: Path, files: dict[str, dict[str, Any]]) -> Path:
    """The folder with a vocabulary in the place of ``tokenizer.json``, and other settings."""
    use_vocabulary(folder)
    for name, changes in files.items():
        edit_json(folder / name, **changes)
    return folder


@pytest.mark.parametrize("name", [*WORDPIECE, "tiny-roberta"])
def test_a_vocabulary_stands_in_for_tokenizer_json(copy_of: Copy, name: str) -> None:
    """With tokens that are looked for as those of the file are."""
    folder, sentences = copy_of(name), texts.all_texts()
    added = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    decoder = {str(token.pop("id")): token for token in added}
    before = minisbert.load(folder)
    expected, vectors = before.tokenize(sentences)["input_ids"], before.encode(FEW)
    use_vocabulary(folder)
    edit_json(folder / "tokenizer_config.json", added_tokens_decoder=decoder)
    after = minisbert.load(folder)
    found = after.tokenize(sentences)["input_ids"]
    assert [row.tolist() for row in found] == [row.tolist() for row in expected]
    np.testing.assert_array_equal(after.encode(FEW), vectors)


# A checkpoint, what else its files say, a text, and the reference's ids of it.
CASES: list[tuple[str, dict[str, dict[str, Any]], str, list[int]]] = [
    (
        "tiny-bert",
        {},
        "a [MASK] b [mask] CAF\u00c9 [NEW]",
        [2, 43, 4, 44, 37, 55, 74, 73, 87, 39, 45, 74, 96, 75, 37, 194, 39, 3],
    ),
    (
        "tiny-bert",
        {"tokenizer_config.json": {"do_lower_case": False}},
        "a A [MASK] CAF\u00c9",
        [2, 43, 1, 4, 1, 3],
    ),
    ("tiny-bert", {"tokenizer_config.json": {"strip_accents": False}}, "caf\u00e9", [2, 1, 3]),
    ("tiny-bert", {"added_tokens.json": {"[NEW]": 544}}, "a [NEW] [new]", [2, 43, 544, 544, 3]),
    ("tiny-bert", {"added_tokens.json": {"[B]": 600, "[A]": 599}}, "[A] [B]", [2, 544, 545, 3]),
    (
        "tiny-bert",
        {"special_tokens_map.json": {"additional_special_tokens": ["[NEW]"]}},
        "a [NEW] [new]",
        [2, 43, 544, 37, 194, 39, 3],
    ),
    (
        "tiny-bert",
        {"special_tokens_map.json": {"mask_token": {"content": "[NEW]", "rstrip": True}}},
        "a [NEW] [MASK] b",
        [2, 43, 544, 37, 55, 74, 73, 87, 39, 44, 3],
    ),
    (
        "tiny-bert",
        {
            "tokenizer_config.json": {
                "added_tokens_decoder": {"544": {"content": "w", "single_word": True, "special": False}}
            },
            "special_tokens_map.json": {"cls_token": "[MASK]"},
        },
        "w ww",
        [2, 65, 65, 106, 3],
    ),
    (
        "tiny-bert",
        {
            "tokenizer_config.json": {
                "cls_token": "[MASK]",
                "sep_token": {"__type": "AddedToken", "content": "[PAD]"},
            }
        },
        "a",
        [4, 43, 0],
    ),
    (
        "tiny-bert",
        {"tokenizer_config.json": {"mask_token": None}},
        "a [MASK]",
        [2, 43, 37, 55, 74, 73, 87, 39, 3],
    ),
    (
        "tiny-distilbert",
        {
            "tokenizer_config.json": {"tokenizer_class": ...},
            "config.json": {"tokenizer_class": "DistilBertTokenizerFast"},
        },
        "Hello [SEP]",
        [2, 150, 83, 83, 78, 3, 3],
    ),
    (
        "tiny-electra",
        {"tokenizer_config.json": {"extra_special_tokens": ["[NEW]", "[MASK]"]}},
        "x [NEW] [MASK]",
        [2, 66, 294, 4, 3],
    ),
    ("tiny-roberta", {}, "a <mask> b  <mask></s>", [0, 68, 224, 639, 279, 224, 224, 639, 2, 2]),
    (
        "tiny-roberta",
        {"special_tokens_map.json": {"mask_token": {"content": "<mask>", "lstrip": True}}},
        "a <mask> b  <mask></s>",
        [0, 68, 639, 279, 639, 2, 2],
    ),
    (
        "tiny-roberta",
        {"tokenizer_config.json": {"add_prefix_space": True}},
        "a <mask> b",
        [0, 261, 224, 639, 279, 2],
    ),
    (
        "tiny-mpnet",
        {},
        "a <MASK> b <mask> </S> <unk> [UNK]",
        [0, 44, 33, 56, 75, 74, 88, 35, 45, 5, 33, 20, 62, 35, 33, 64, 78, 88, 35, 4, 2],
    ),
    (
        "tiny-mpnet",
        {"special_tokens_map.json": {"mask_token": {"content": "<mask>"}}},
        "a <MASK> b <mask>",
        [0, 44, 33, 56, 75, 74, 88, 35, 45, 5, 2],
    ),
]


@pytest.mark.parametrize(("name", "files", "text", "expected"), CASES)
def test_what_the_files_beside_it_say(
    copy_of: Copy, name: str, files: dict[str, dict[str, Any]], text: str, expected: list[int]
) -> None:
    assert ids(changed(copy_of(name), files), text) == expected


# What was done to vocab.txt, and the reference's ids of "a b, word [PAD] [MASK]".
ODD_FILES: dict[str, tuple[Callable[[bytes], bytes], list[int]]] = {
    "CRLF": (lambda b: b.replace(b"\n", b"\r\n"), [2, 43, 44, 16, 65, 78, 80, 79, 0, 4, 3]),
    "an open last line": (lambda b: b.rstrip(b"\n"), [2, 43, 44, 16, 65, 78, 80, 79, 0, 4, 3]),
    "blank lines": (lambda b: b.replace(b"\n", b"\n\n", 8), [4, 51, 52, 24, 73, 86, 88, 87, 0, 8, 6]),
    "byte order mark": (lambda b: b"\xef\xbb\xbf" + b, [2, 43, 44, 16, 65, 78, 80, 79, 544, 4, 3]),
    "a token twice": (lambda b: b + b"a\n", [2, 544, 44, 16, 65, 78, 80, 79, 0, 4, 3]),
    "spaces": (
        lambda b: b.replace(b"\n", b" \t\xc2\x85\xe3\x80\x80\n"),
        [2, 43, 44, 16, 65, 78, 80, 79, 0, 4, 3],
    ),
    "no spaces": (
        lambda b: b.replace(b"\na\n", b"\na\x1c\n").replace(b"\nb\n", b"\nb\x1f\n"),
        [2, 1, 1, 16, 65, 78, 80, 79, 0, 4, 3],
    ),
    "carriage return": (lambda b: b.replace(b"\na\n", b"\na\rz\n"), [2, 1, 44, 16, 65, 78, 80, 79, 0, 4, 3]),
}


@pytest.mark.parametrize(("change", "expected"), ODD_FILES.values(), ids=ODD_FILES)
def test_lines_as_the_library_reads_them(
    copy_of: Copy, change: Callable[[bytes], bytes], expected: list[int]
) -> None:
    path = changed(copy_of("tiny-bert"), {}) / "vocab.txt"
    path.write_bytes(change(path.read_bytes()))
    assert ids(path.parent, "a b, word [PAD] [MASK]") == expected


@pytest.mark.parametrize(
    "change",
    [
        lambda b: b.replace(b"\n", b"\r\n"),
        lambda b: b.partition(b"\n")[2],
        lambda b: b + b"#version: 0.3\n",
    ],
    ids=["CRLF", "no version", "two versions"],
)
def test_merges_as_the_library_reads_them(copy_of: Copy, change: Callable[[bytes], bytes]) -> None:
    path = changed(copy_of("tiny-roberta"), {}) / "merges.txt"
    path.write_bytes(change(path.read_bytes()))
    assert ids(path.parent, "hello world, and more") == [0, 262, 301, 82, 480, 339, 15, 294, 521, 2]


def test_a_cross_encoder_s_vocabulary(copy_of: Copy) -> None:
    folder, pairs = copy_of("cross-bert"), [("a question", "an answer, and more"), ("", "x")]
    expected = minisbert.load_cross_encoder(folder).predict(pairs)
    use_vocabulary(folder)
    np.testing.assert_array_equal(minisbert.load_cross_encoder(folder).predict(pairs), expected)


@pytest.mark.parametrize(
    ("limits", "expected"), [({"max_len": 20}, 20), ({"max_len": 20, "model_max_length": 30}, 30)]
)
def test_the_first_name_of_the_limit(copy_of: Copy, limits: dict[str, int], expected: int) -> None:
    folder = changed(copy_of("tiny-bert"), {"tokenizer_config.json": {"model_max_length": ..., **limits}})
    assert minisbert.load(folder).max_seq_length == expected


def test_the_later_of_two_files_counts(copy_of: Copy) -> None:
    """A token that special_tokens_map.json puts another in the place of need not be there."""
    folder = copy_of("tiny-bert")
    edit_json(folder / "tokenizer_config.json", mask_token="[MADE UP]")
    edit_json(folder / "special_tokens_map.json", mask_token="[MASK]")
    before = ids(folder, "a [MADE UP] [MASK]")
    use_vocabulary(folder)
    assert ids(folder, "a [MADE UP] [MASK]") == before
    assert before[-2] == 4


# --- what `minisbert check` says ---------------------------------------------------------------------------------


def findings(folder: Path, **wanted: str) -> list[check.Finding]:
    found = check.check(folder, backend="reference").findings
    return [finding for finding in found if wanted.items() <= vars(finding).items()]


@pytest.mark.parametrize(("name", "files"), [("tiny-bert", 1), ("tiny-roberta", 2)])
def test_a_vocabulary_without_tokenizer_json(copy_of: Copy, name: str, files: int) -> None:
    folder = copy_of(name)
    use_vocabulary(folder)
    vocabulary = [
        f for f in findings(folder, kind="file") if f.file in ("vocab.txt", "vocab.json", "merges.txt")
    ]
    assert [finding.status for finding in vocabulary] == ["understood"] * files
    assert check.check(folder, backend="reference").encoder is not None


@pytest.mark.parametrize("named_in", ["tokenizer_config.json", "config.json", None])
def test_a_tokenizer_of_another_kind_than_its_class(copy_of: Copy, named_in: str | None) -> None:
    """As of checkpoints that were exported for JavaScript: the file is right, and transformers goes by the class."""
    folder = copy_of("tiny-multilingual")
    edit_json(folder / "tokenizer_config.json", tokenizer_class=...)
    if named_in is not None:
        edit_json(folder / named_in, tokenizer_class="BertTokenizer")
    [model] = findings(folder, file="tokenizer.json", name="model")
    assert model.status == "understood"
    assert model.detail.startswith("a Unigram, where a BertTokenizer has a WordPiece: the steps of the file")
    [model] = findings(DATA / "tiny-multilingual", file="tokenizer.json", name="model")
    assert model.detail == ""
