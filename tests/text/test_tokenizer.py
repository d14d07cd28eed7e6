"""From text to ids: limits, special tokens, damaged files."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, processors

import minisbert
from minisbert.checkpoint.config import read_config
from minisbert.text.tokenizer import load_tokenizer
from tests.conftest import DATA, edit_json, edit_tokenizer, keep_tokenizer_steps

Copy = Callable[[str], Path]


def test_truncation_is_the_library_s_own(tiny: Path) -> None:
    """For every limit: the special token at the end stays, as when the library truncates, which reads all of a text."""
    texts = [
        "",
        "one",
        "a longer text, with many words in it, that goes on and on. " * 9,
        "\u4e2d\u6587" * 200,
    ]
    mine = load_tokenizer(read_config(tiny))
    library = Tokenizer.from_file(str(mine.path))
    library.no_padding()
    for limit in range(2, 30):
        library.enable_truncation(limit)
        expected = [encoding.ids for encoding in library.encode_batch(texts)]
        rows, _ = mine(texts, 0, limit)
        assert [ids.tolist() for ids in rows] == expected


def test_truncation_and_padding_in_the_file_are_overridden(tiny: Path) -> None:
    baked_in = json.loads((DATA / "tiny-roberta" / "tokenizer.json").read_text(encoding="utf-8"))
    assert baked_in["truncation"]["max_length"] == 16
    assert baked_in["padding"] is not None
    encoder = minisbert.load(tiny)
    short, long = encoder.tokenize(["word", "word " * 200])["input_ids"]
    assert len(short) < 16
    assert len(long) == encoder.max_seq_length == (128 if tiny.name == "tiny-mpnet" else 32)
    assert encoder.token_counts(["word " * 200])[0] > 200


def test_a_tokenizer_without_special_tokens(copy_of: Copy) -> None:
    folder = copy_of("tiny-bert")
    keep_tokenizer_steps(folder)
    edit_json(folder / "tokenizer.json", post_processor=None)
    encoder = minisbert.load(folder)
    assert encoder.token_counts(["", "word"]).tolist()[0] == 0
    empty, word = encoder.encode(["", "word"])
    np.testing.assert_array_equal(empty, np.zeros(75))
    np.testing.assert_array_equal(encoder.encode([""]), [empty])
    np.testing.assert_allclose(np.linalg.norm(word), 1, rtol=1e-6)


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", b"\xff", b'{"version": "1.0"}', b'{"version": "1.0", "model": {"type": "X"}}'],
)
def test_damaged_file(copy_of: Copy, content: bytes) -> None:
    folder = copy_of("tiny-bert")
    (folder / "tokenizer.json").write_bytes(content)
    with pytest.raises(minisbert.CheckpointError, match=r"tokenizer\.json.*failed with it"):
        minisbert.load(folder)


def test_an_id_without_an_embedding_is_refused(copy_of: Copy) -> None:
    folder = copy_of("tiny-bert")
    size = read_config(folder).transformer.vocab_size

    def add(values: dict[str, Any]) -> None:
        token = {**values["added_tokens"][0], "id": size + 7, "content": "[NEW]"}
        values["added_tokens"].append(token)
        values["model"]["vocab"]["[NEW]"] = size + 7

    edit_tokenizer(folder, add)
    encoder = minisbert.load(folder)
    encoder.encode("fine")
    with pytest.raises(minisbert.CheckpointError, match=rf"'\[NEW\]' the id {size + 7}.*{size} rows"):
        encoder.encode("a [NEW] word")


def test_a_tokenizer_that_fails_on_a_text(copy_of: Copy) -> None:
    folder = copy_of("tiny-bert")
    edit_tokenizer(folder, lambda values: values["model"].update(unk_token="[GONE]"))
    with pytest.raises(minisbert.CheckpointError, match=r"tokenizer\.json.*failed.*"):
        minisbert.load(folder).encode("\U0001f600")


@pytest.mark.parametrize("index", [2**31, 2**32 - 1])
@pytest.mark.parametrize("where", ["vocabulary", "special tokens"])
def test_an_id_beyond_int32_is_refused(copy_of: Copy, index: int, where: str) -> None:
    folder = copy_of("tiny-bert")
    keep_tokenizer_steps(folder)

    def change(values: dict[str, Any]) -> None:
        if where == "vocabulary":
            values["model"]["vocab"]["a"] = index
        else:
            values["post_processor"]["special_tokens"]["[CLS]"]["ids"] = [index]

    edit_tokenizer(folder, change)
    with pytest.raises(minisbert.CheckpointError, match=rf"tokenizer\.json.*the id {index}"):
        minisbert.load(folder).encode("a")


# What the library does about these files: an Exception where no unknown token is known, else a panic, which
# is a BaseException alone. The search goes wrong for some texts only, the others for any, so that `load` sees it.
UNUSABLE: dict[str, dict[str, Any]] = {
    "no unknown token": {
        "model": {"type": "WordLevel", "vocab": {f"q{id}": id for id in range(70)}, "unk_token": "[UNK]"}
    },
    "chunks of nothing": {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
    "endless search": {
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": "(z+)+$"},
            "behavior": "Isolated",
            "invert": False,
        }
    },
    "no such special token": {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "B", "type_id": 0}}],
            "pair": [],
            "special_tokens": {},
        }
    },
}


@pytest.mark.parametrize("changes", UNUSABLE.values(), ids=UNUSABLE)
def test_whatever_the_library_raises_is_ours(copy_of: Copy, changes: dict[str, Any]) -> None:
    folder = copy_of("tiny-bert")
    edit_json(folder / "tokenizer.json", **changes)
    edit_json(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    with pytest.raises(minisbert.CheckpointError, match=r"tokenizer\.json.*failed with it"):
        minisbert.load(folder).encode("z" * 60 + "!")


def test_an_interrupt_is_no_error_of_the_checkpoint(copy_of: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(path: Path, lower_case: bool) -> Tokenizer:
        raise KeyboardInterrupt

    monkeypatch.setattr("minisbert.text.tokenizer._read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_tokenizer(read_config(copy_of("tiny-bert")))


def test_dropout_is_for_training(copy_of: Copy) -> None:
    """The reference, whose RobertaTokenizer ignores it, gives the same vectors as without."""
    folder = copy_of("tiny-roberta")
    expected = minisbert.load(folder).tokenize("hello world")["input_ids"]
    edit_tokenizer(folder, lambda values: values["model"].update(dropout=0.9))
    np.testing.assert_array_equal(minisbert.load(folder).tokenize("hello world")["input_ids"], expected)


@pytest.mark.parametrize(
    ("settings", "key"),
    [("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")],
)
def test_a_limit_below_the_special_tokens(copy_of: Copy, settings: str, key: str) -> None:
    folder = copy_of("tiny-bert")
    edit_json(folder / "sentence_bert_config.json", max_seq_length=...)
    edit_json(folder / settings, **{key: 1})
    with pytest.raises(
        minisbert.CheckpointError, match=rf"tokenizer\.json.*2 special.*{settings}.* is 1"
    ) as info:
        minisbert.load(folder)
    assert type(info.value) is minisbert.CheckpointError


def test_a_folder_whose_name_is_not_utf8(copy_of: Copy) -> None:
    folder = copy_of("tiny-bert")
    odd = Path(os.fsdecode(os.fsencode(folder) + b"\xff"))
    try:
        shutil.move(folder, odd)
    except OSError:
        pytest.skip("this file system takes no name that is not UTF-8")
    assert minisbert.load(odd).encode("text").shape == (75,)
    (odd / "tokenizer.json").unlink()
    with pytest.raises(minisbert.CheckpointNotFoundError, match=r"\\udcff") as info:
        minisbert.load(odd)
    assert str(info.value).isprintable()


def template(type_ids: tuple[int, int]) -> dict[str, Any]:
    processor = processors.TemplateProcessing(
        single=f"[CLS]:{type_ids[0]} $A:{type_ids[1]}", special_tokens=[("[CLS]", 2)]
    )
    values: dict[str, Any] = json.loads(processor.__getstate__())
    return values


def test_the_token_type_is_the_tokenizer_s(copy_of: Copy) -> None:
    folder = copy_of("tiny-bert")
    keep_tokenizer_steps(folder)
    edit_json(folder / "tokenizer.json", post_processor=template((0, 0)))
    first = minisbert.load(folder)
    edit_json(folder / "tokenizer.json", post_processor=template((1, 1)))
    second = minisbert.load(folder)
    assert set(second.tokenize("word")["token_type_ids"][0]) == {1}
    assert np.abs(first.encode("word") - second.encode("word")).max() > 0.01


@pytest.mark.parametrize("single", ["[CLS] $A [SEP] $A", "$A $A", "$A [SEP] $A $A [SEP]"])
def test_a_text_that_is_put_in_twice_is_refused(copy_of: Copy, single: str) -> None:
    folder = copy_of("tiny-bert")
    keep_tokenizer_steps(folder)
    processor = processors.TemplateProcessing(
        single=single, pair="$A $B", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    edit_json(folder / "tokenizer.json", post_processor=json.loads(processor.__getstate__()))
    with pytest.raises(minisbert.UnsupportedCheckpointError, match=r"tokenizer\.json.*puts a text in twice"):
        minisbert.load(folder)


def test_token_types_that_can_t_be_honoured(copy_of: Copy) -> None:
    folder = copy_of("tiny-bert")
    keep_tokenizer_steps(folder)
    edit_json(folder / "tokenizer.json", post_processor=template((0, 1)))
    with pytest.raises(minisbert.UnsupportedCheckpointError, match=r"types \[0, 1\]"):
        minisbert.load(folder)
    edit_json(folder / "tokenizer.json", post_processor=template((2, 2)))
    with pytest.raises(minisbert.CheckpointError, match=r"token type 2.*type_vocab_size is 2"):
        minisbert.load(folder)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("tokenizer_config.json", {"mask_token": "[MADE UP]"}),
        ("tokenizer_config.json", {"any_other_token": {"content": "[MADE UP]", "lstrip": True}}),
        ("tokenizer_config.json", {"additional_special_tokens": ["[CLS]", "[MADE UP]"]}),
        ("tokenizer_config.json", {"extra_special_tokens": {"image": "[MADE UP]"}}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"4": {"content": "[MADE UP]"}}}),
        ("special_tokens_map.json", {"mask_token": "[MADE UP]"}),
        ("added_tokens.json", {"[MADE UP]": 7}),
    ],
)
def test_a_token_that_only_another_file_names(copy_of: Copy, name: str, changes: dict[str, Any]) -> None:
    """The reference would find it in texts."""
    folder = copy_of("tiny-bert")
    edit_json(folder / name, **changes)
    with pytest.raises(minisbert.CheckpointError, match=re.escape(name) + r".*'\[MADE UP\]'.*added_tokens"):
        minisbert.load(folder, backend="reference")


def test_files_that_name_tokens_again(copy_of: Copy) -> None:
    folder = copy_of("tiny-bert")
    edit_json(folder / "special_tokens_map.json", mask_token={"content": "[MASK]"}, sep_token="[SEP]")
    edit_json(folder / "added_tokens.json", **{"[MASK]": 4})
    minisbert.load(folder, backend="reference")
    edit_json(folder / "tokenizer_config.json", added_tokens_decoder={"4": {"content": "[MASK]"}})
    edit_json(
        folder / "special_tokens_map.json", mask_token="[MADE UP]"
    )  # then the reference does not read it
    minisbert.load(folder, backend="reference")


def test_special_tokens_that_are_split(copy_of: Copy) -> None:
    folder = copy_of("tiny-bert")
    edit_json(folder / "tokenizer_config.json", split_special_tokens=True)
    with pytest.raises(minisbert.UnsupportedCheckpointError, match="split_special_tokens is True"):
        minisbert.load(folder, backend="reference")


# The reference's ids of "a b" where another token is named, or none: it puts round a text what the class has there.
@pytest.mark.parametrize(
    ("name", "changes", "ends"),
    [
        ("tiny-bert", {"cls_token": "[MASK]"}, (4, 3)),
        ("tiny-bert", {"sep_token": {"content": "[MASK]"}}, (2, 4)),
        ("tiny-bert", {}, (2, 3)),
        ("tiny-roberta", {"cls_token": "<mask>"}, (639, 2)),
        ("tiny-xlm-roberta", {"cls_token": "<mask>"}, (0, 2)),
        ("tiny-xlm-roberta", {"bos_token": "<mask>"}, (342, 2)),
        ("tiny-xlm-roberta", {"eos_token": "<mask>"}, (0, 342)),
        ("tiny-mpnet", {"sep_token": "<mask>"}, (0, 5)),
        ("tiny-electra", {}, (2, 3)),
    ],
)
def test_what_is_put_round_a_text_is_the_class_s(
    copy_of: Copy, name: str, changes: dict[str, Any], ends: tuple[int, int]
) -> None:
    folder = copy_of(name)
    edit_json(folder / "tokenizer_config.json", **changes)
    edit_json(folder / "tokenizer.json", post_processor=None)
    ids, types = (rows[0].tolist() for rows in minisbert.load(folder).tokenize("a b").values())
    assert (ids[0], ids[-1]) == ends
    assert set(types) == {0}


def test_a_class_whose_tokens_are_not_there(copy_of: Copy) -> None:
    folder = copy_of("tiny-mpnet")
    edit_json(folder / "tokenizer_config.json", tokenizer_class="BertTokenizer")
    with pytest.raises(
        minisbert.CheckpointError, match=r"a BertTokenizer puts the token '\[CLS\]' .*has none"
    ):
        minisbert.load(folder)
