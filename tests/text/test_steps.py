"""The steps before a tokenizer's model: those of the class that tokenizer_config.json names, and lower-casing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import minisbert
from minisbert.checkpoint.config import read_config
from minisbert.text.tokenizer import load_tokenizer
from tests.conftest import DATA, edit_json, edit_tokenizer
from tests.support import texts

Copy = Callable[[str], Path]


def test_lower_casing_happens_when_it_is_asked_for(copy_of: Copy) -> None:
    folder = copy_of("tiny-roberta")
    cased = minisbert.load(folder)
    edit_json(folder / "sentence_bert_config.json", do_lower_case=True)
    lower = minisbert.load(folder)
    (expected,) = cased.tokenize("hello world")["input_ids"]
    assert cased.tokenize("HeLLo World")["input_ids"][0].tolist() != expected.tolist()
    assert lower.tokenize("HeLLo World")["input_ids"][0].tolist() == expected.tolist()


def test_lower_casing_is_not_added_twice(copy_of: Copy) -> None:
    folder = copy_of("tiny-roberta")
    lower = {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]}
    edit_json(folder / "tokenizer.json", normalizer=lower)
    edit_json(folder / "sentence_bert_config.json", do_lower_case=True)
    edit_json(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    tokenizer = load_tokenizer(read_config(folder))
    assert json.loads(tokenizer.library.to_str())["normalizer"] == lower


BERT_STEPS = {
    "type": "BertNormalizer",
    "clean_text": True,
    "handle_chinese_chars": True,
    "strip_accents": None,
    "lowercase": True,
}
UNIGRAM_STEPS = {
    "type": "Sequence",
    "pretokenizers": [
        {"type": "WhitespaceSplit"},
        {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
    ],
}
BYTE_STEPS = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
# A checkpoint, settings in its tokenizer_config.json, and what in tokenizer.json they amount to.
REBUILT: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "cased": (
        "tiny-bert",
        {"do_lower_case": False},
        {"normalizer": {**BERT_STEPS, "lowercase": False}, "pre_tokenizer": {"type": "BertPreTokenizer"}},
    ),
    "accents": (
        "tiny-distilbert",
        {"strip_accents": False, "tokenizer_class": "DistilBertTokenizerFast"},
        {"normalizer": {**BERT_STEPS, "strip_accents": False}, "pre_tokenizer": {"type": "BertPreTokenizer"}},
    ),
    "chinese": (
        "tiny-mpnet",
        {"tokenize_chinese_chars": False, "tokenizer_class": None},
        {
            "normalizer": {**BERT_STEPS, "handle_chinese_chars": False},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
        },
    ),
    "unigram": (
        "tiny-multilingual",
        {"tokenizer_class": "CamembertTokenizer"},
        {"normalizer": None, "pre_tokenizer": UNIGRAM_STEPS},
    ),
    "unigram of a bert": ("tiny-multilingual", {}, {"normalizer": None, "pre_tokenizer": UNIGRAM_STEPS}),
    "bytes": ("tiny-roberta", {"add_prefix_space": True}, {"normalizer": None, "pre_tokenizer": BYTE_STEPS}),
}


@pytest.mark.parametrize(("name", "settings", "amounts_to"), REBUILT.values(), ids=REBUILT)
def test_the_steps_are_those_of_the_class(
    copy_of: Copy, name: str, settings: dict[str, Any], amounts_to: dict[str, Any]
) -> None:
    """Whatever steps are in the file: tokenizer_config.json and its class, if transformers knows it, decide."""
    folder, sentences = copy_of(name), texts.edge_texts()
    edit_json(folder / "tokenizer_config.json", **settings)
    found = []
    for steps in (
        {"normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "Whitespace"}},
        {"normalizer": {"type": "NFC"}, "pre_tokenizer": None},
    ):
        edit_json(folder / "tokenizer.json", **steps)
        found.append([ids.tolist() for ids in minisbert.load(folder).tokenize(sentences)["input_ids"]])
    edit_json(folder / "tokenizer.json", **amounts_to)
    edit_json(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    expected = [ids.tolist() for ids in minisbert.load(folder).tokenize(sentences)["input_ids"]]
    assert found == [expected, expected]


def test_the_class_may_stand_in_the_model_s_config(copy_of: Copy) -> None:
    """As it does in old checkpoints: a generic class there leaves the file's steps alone."""
    folder = copy_of("tiny-bert")
    edit_json(folder / "tokenizer_config.json", tokenizer_class=...)
    edit_tokenizer(folder, lambda values: values["normalizer"].update(lowercase=False))
    (rebuilt,) = minisbert.load(folder).tokenize("UPPER")["input_ids"]
    edit_json(folder / "config.json", tokenizer_class="PreTrainedTokenizerFast")
    (kept,) = minisbert.load(folder).tokenize("UPPER")["input_ids"]
    (lower,) = minisbert.load(DATA / "tiny-bert").tokenize("upper")["input_ids"]
    assert rebuilt.tolist() == lower.tolist() != kept.tolist()


def test_a_map_of_characters_is_kept(copy_of: Copy) -> None:
    """SentencePiece's: other steps are not the class's, such as the one that would lower-case."""
    folder = copy_of("tiny-xlm-roberta")
    pairs = ["\ufb01nd it\uff01", "a\u3000B"], ["find it!", "a B"]
    for _ in range(2):
        encoder = minisbert.load(folder)
        found, expected = ([ids.tolist() for ids in encoder.tokenize(texts)["input_ids"]] for texts in pairs)
        assert found == expected
        assert found[1] != encoder.tokenize("a b")["input_ids"][0].tolist()
        charsmap = json.loads((folder / "tokenizer.json").read_text())["normalizer"]
        steps = {"type": "Sequence", "normalizers": [{"type": "Lowercase"}, charsmap, {"type": "NFC"}]}
        edit_json(folder / "tokenizer.json", normalizer=steps)


@pytest.mark.parametrize(
    ("key", "value"), [("tokenizer_class", 3), ("do_lower_case", "no"), ("strip_accents", 1)]
)
def test_settings_of_the_tokenizer_that_make_no_sense(copy_of: Copy, key: str, value: Any) -> None:
    folder = copy_of("tiny-bert")
    edit_json(folder / "tokenizer_config.json", **{key: value})
    with pytest.raises(minisbert.CheckpointError, match=rf"tokenizer_config\.json.*{key} is {value!r}"):
        minisbert.load(folder)


def test_a_map_of_characters_that_claims_to_be_longer_than_it_is(copy_of: Copy) -> None:
    folder = copy_of("tiny-xlm-roberta")

    def claim(values: dict[str, Any]) -> None:
        charsmap = values["normalizer"]["precompiled_charsmap"]
        values["normalizer"]["precompiled_charsmap"] = charsmap[:4] + "///" + charsmap[7:]  # gigabytes

    edit_tokenizer(folder, claim)
    with pytest.raises(
        minisbert.CheckpointError, match=r"tokenizer\.json: precompiled_charsmap says that \d{9,} bytes"
    ):
        load_tokenizer(read_config(folder))
