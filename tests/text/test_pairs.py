"""Pairs of texts: what is accepted, and their tokens, as the tokenizers library itself puts pairs together."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, processors

import minisbert
from minisbert.checkpoint.cross_config import read_cross_config
from minisbert.text.pairs import PairTokenizer, load_pair_tokenizer, longest_first
from tests.conftest import DATA, edit_json, keep_tokenizer_steps, load_golden
from tests.support import cross_checkpoints
from tests.support.tokenizer_kinds import EVERY_RUN, texts

Copy = Callable[[str], Path]
CROSS = (*cross_checkpoints.TINY, *cross_checkpoints.FAMILIES)
TEXTS = ["", "one", "a longer text, with many words in it, that goes on and on. " * 3, "[SEP] <mask> </s> x"]


@pytest.fixture(scope="module")
def model() -> minisbert.CrossEncoder:
    return minisbert.load_cross_encoder(DATA / "cross-bert")


@pytest.mark.parametrize("name", CROSS)
def test_tokens_are_the_reference_s(name: str, cross_folder: Callable[[str], Path]) -> None:
    golden = load_golden(name)
    found = minisbert.load_cross_encoder(cross_folder(name)).tokenize(json.loads(str(golden["pairs"])))
    np.testing.assert_array_equal(np.concatenate(found["input_ids"]), golden["ids"])
    np.testing.assert_array_equal(np.concatenate(found["token_type_ids"]), golden["types"])
    np.testing.assert_array_equal(np.cumsum([0, *map(len, found["input_ids"])]), golden["offsets"])


@pytest.mark.parametrize("name", cross_checkpoints.TINY)
def test_truncation_is_the_library_s_own(name: str) -> None:
    """For every limit: as when the library truncates, longest first."""
    mine = minisbert.load_cross_encoder(DATA / name)
    library = Tokenizer.from_file(str(DATA / name / "tokenizer.json"))
    library.no_padding()
    pairs = list(product(TEXTS, TEXTS))
    for limit in range(mine._tokenizer.num_special, 32):
        library.enable_truncation(limit)
        mine.max_seq_length = limit
        expected = library.encode_batch(pairs)
        found = mine.tokenize(pairs)
        assert [row.tolist() for row in found["input_ids"]] == [encoding.ids for encoding in expected]
        assert [row.tolist() for row in found["token_type_ids"]] == [row.type_ids for row in expected]
    library.no_truncation()
    counts = [len(encoding.ids) for encoding in library.encode_batch(pairs)]
    assert mine.token_counts(pairs).tolist() == counts


@pytest.mark.parametrize("name", CROSS)
@EVERY_RUN
@given(pair=st.tuples(texts, texts), limit=st.integers(4, 24))
def test_no_more_of_long_texts_need_be_known(
    name: str, cross_folder: Callable[[str], Path], pair: tuple[str, str], limit: int
) -> None:
    """What is cut is what the library cuts, which reads all of both texts."""
    mine, library = _tokenizers(cross_folder(name))
    library.enable_truncation(limit)
    [row], [known] = mine([pair], 0, limit)
    assert row[:, 0].tolist() == library.encode(*pair).ids
    library.no_truncation()
    [count] = mine.count_all([pair], 0)
    assert count == len(library.encode(*pair).ids)
    assert min(count, limit + 1) == min(known, limit + 1)


@cache
def _tokenizers(folder: Path) -> tuple[PairTokenizer, Tokenizer]:
    tokenizer = load_pair_tokenizer(read_cross_config(folder))
    return tokenizer, Tokenizer.from_str(tokenizer.library.to_str())


@pytest.mark.parametrize("room", range(12))
def test_of_lengths_only_what_fills_the_room_matters(room: int) -> None:
    """And where the room is odd, which text is longer: so a pair is read until that is known."""
    for one, other in product(range(3 * room + 4), repeat=2):
        first, second = min(one, room + 1), min(other, room + 1)
        if room % 2 and min(one, other) > room:
            first, second = room + (one > other), room + 1 - (one > other)
        assert longest_first(first, second, room) == longest_first(one, other, room)


@pytest.mark.parametrize("words", [(300, 301), (301, 300), (300, 300), (3_000, 300), (300, 3_000)])
def test_the_longer_of_two_long_texts_gets_the_odd_token(words: tuple[int, int]) -> None:
    mine, library = _tokenizers(DATA / "cross-bert")
    pair = ("word " * words[0], "word " * words[1])
    whole = [np.array(library.encode(text, add_special_tokens=False).ids, np.int32) for text in pair]
    for limit in (10, 11):
        [row], [known] = mine([pair], 0, limit)
        np.testing.assert_array_equal(row, mine.join((whole[0], whole[1]), limit))
        assert known < 100  # so neither text was read to its end


@pytest.mark.parametrize(
    ("lengths", "room", "kept"),
    [
        ((3, 4), 7, (3, 4)),  # all fits
        ((3, 9), 7, (3, 4)),  # the shorter one takes less than half
        ((9, 3), 7, (4, 3)),
        ((9, 8), 7, (4, 3)),  # both are longer than half: the greater part is the longer one's
        ((8, 9), 7, (3, 4)),
        ((9, 9), 7, (3, 4)),  # and the second one's where they are equal
        ((9, 9), 0, (0, 0)),
    ],
)
def test_longest_first(lengths: tuple[int, int], room: int, kept: tuple[int, int]) -> None:
    assert longest_first(*lengths, room) == kept


# --- What goes in ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        list,
        tuple,
        iter,
        np.array,
        lambda pairs: np.array(pairs, object),
        lambda pairs: [list(pair) for pair in pairs],
        lambda pairs: [np.array(pair) for pair in pairs],
        lambda pairs: (pair for pair in pairs),
        dict,
        zip,
    ],
    ids=[
        "list",
        "tuple",
        "iterator",
        "U array",
        "object array",
        "lists",
        "arrays",
        "generator",
        "items",
        "zip",
    ],
)
def test_collections_that_are_accepted(model: minisbert.CrossEncoder, make: Callable[..., Any]) -> None:
    pairs = [("one", "two"), ("three", "four"), ("five", "")]
    collection = make(*zip(*pairs, strict=True)) if make is zip else make(pairs)
    collection = collection.items() if isinstance(collection, dict) else collection
    np.testing.assert_array_equal(model.predict(collection), model.predict(pairs))


@pytest.mark.parametrize("make", [tuple, list, np.array])
def test_one_pair_gives_one_score(model: minisbert.CrossEncoder, make: Callable[..., Any]) -> None:
    score = model.predict(make(["one", "two"]))
    assert isinstance(score, np.float32)
    assert score == model.predict([("one", "two")])[0]
    several = minisbert.load_cross_encoder(DATA / "cross-labels")
    assert several.predict(make(["one", "two"])).shape == (3,)


@pytest.mark.parametrize(
    "empty", [[], (), iter([]), np.empty((0, 2), str)], ids=["list", "tuple", "iter", "array"]
)
def test_nothing_gives_no_scores(model: minisbert.CrossEncoder, empty: Any) -> None:
    scores = model.predict(empty)
    assert (scores.shape, scores.dtype) == ((0,), np.float32)
    assert model.tokenize([])["input_ids"] == []
    assert minisbert.load_cross_encoder(DATA / "cross-labels").predict([]).shape == (0, 3)


class Table:
    """A data frame: iterating over it gives the names of its columns."""

    shape = (2, 2)

    def __iter__(self) -> Any:
        return iter(["query", "document"])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ("a text", r"inputs is str 'a text'; expected a pair"),
        (b"bytes", "inputs is bytes"),
        ({"a": "b"}, "inputs is dict"),
        ({("a", "b")}, "inputs is set .*sort it"),
        (None, "inputs is NoneType None"),
        (Table(), "inputs is Table"),
        (["one", "two", "three"], r"pair 0 is list \['one', 'two', 'three'\]; expected two strings"),
        (["one"], "pair 0 is list"),
        ([("a", "b"), "cd"], r"pair 1 is str 'cd'"),
        ([("a", "b"), ("c", None)], r"text 1 of pair 1 is NoneType None"),
        ([("a", "b"), (3, "c")], r"text 0 of pair 1 is int 3"),
        ([("a", "b"), ("c",)], r"pair 1 is tuple"),
        ([["a", "b"], {"c": "d", "e": "f"}], "pair 1 is dict"),
    ],
)
def test_what_is_no_pair_is_named(model: minisbert.CrossEncoder, inputs: Any, message: str) -> None:
    with pytest.raises(minisbert.EncodeTypeError, match=message):
        model.predict(inputs)


def test_lone_surrogates_are_refused(model: minisbert.CrossEncoder) -> None:
    with pytest.raises(
        minisbert.EncodeValueError, match=r"text 1 of pair 2 holds a lone surrogate, '\\ud800'"
    ):
        model.predict([("a", "b"), ("c", "d"), ("e", "f\ud800")])


# --- tokenizer.json --------------------------------------------------------------------------------------


def use_template(folder: Path, pair: str) -> None:
    keep_tokenizer_steps(folder)
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    special = [(token, values["model"]["vocab"][token]) for token in ("[CLS]", "[SEP]")]
    processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair=pair, special_tokens=special)
    values["post_processor"] = json.loads(processor.__getstate__())
    path.write_text(json.dumps(values), encoding="utf-8")


@pytest.mark.parametrize(
    "pair", ["[CLS] $A $B:1", "[CLS]:1 [CLS] $A:1 [SEP] [SEP]:1 $B:0 [SEP]:1 [SEP]", "[CLS] $A:0 [SEP] $B:0"]
)
def test_any_template_in_order(copy_of: Copy, pair: str) -> None:
    folder = copy_of("cross-bert")
    use_template(folder, pair)
    library = Tokenizer.from_file(str(folder / "tokenizer.json"))
    found = minisbert.load_cross_encoder(folder).tokenize([("one two", "three"), ("", "")])
    expected = library.encode_batch([("one two", "three"), ("", "")])
    assert [row.tolist() for row in found["input_ids"]] == [encoding.ids for encoding in expected]
    assert [row.tolist() for row in found["token_type_ids"]] == [encoding.type_ids for encoding in expected]


@pytest.mark.parametrize("pair", ["[CLS] $B $A", "$A [SEP] $B", "[CLS] $A $B $A", "[CLS] $A:0 $A:1 $B:1"])
def test_templates_that_can_t_be_honoured(copy_of: Copy, pair: str) -> None:
    folder = copy_of("cross-bert")
    use_template(folder, pair)
    with pytest.raises(minisbert.UnsupportedCheckpointError, match=r"tokenizer\.json: puts pairs together"):
        minisbert.load_cross_encoder(folder)


def test_a_template_without_the_second_text(copy_of: Copy) -> None:
    folder = copy_of("cross-bert")
    keep_tokenizer_steps(folder)
    values = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    values["post_processor"]["pair"] = values["post_processor"]["single"]
    (folder / "tokenizer.json").write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(
        minisbert.CheckpointError, match=r"tokenizer\.json.*(no tokens of both|failed with it)"
    ):
        minisbert.load_cross_encoder(folder)


def test_a_token_type_without_an_embedding(copy_of: Copy) -> None:
    folder = copy_of("cross-bert")
    use_template(folder, "[CLS] $A [SEP] $B:2")
    with pytest.raises(minisbert.CheckpointError, match=r"the token type 2.*type_vocab_size is 2"):
        minisbert.load_cross_encoder(folder)


def test_a_special_token_without_an_embedding(copy_of: Copy) -> None:
    folder = copy_of("cross-bert")
    keep_tokenizer_steps(folder)
    values = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    values["post_processor"]["special_tokens"]["[SEP]"]["ids"] = [9_999]
    (folder / "tokenizer.json").write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(minisbert.CheckpointError, match=r"tokenizer\.json.*the id 9999"):
        minisbert.load_cross_encoder(folder)


@pytest.mark.parametrize(
    ("changes", "types"),
    [
        ({}, {0, 1}),
        ({"tokenizer_class": "BertTokenizerFast"}, {0, 1}),
        ({"tokenizer_class": "ElectraTokenizer"}, {0, 1}),
        ({"tokenizer_class": ...}, {0, 1}),
        ({"tokenizer_class": "PreTrainedTokenizerFast"}, {0}),
        ({"model_input_names": ["input_ids", "attention_mask"]}, {0}),
        (
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "model_input_names": ["input_ids", "token_type_ids"],
            },
            {0, 1},
        ),
    ],
)
def test_token_types_as_the_reference_s_tokenizer_gives_them(
    copy_of: Copy, changes: dict[str, Any], types: set[int]
) -> None:
    folder = copy_of("cross-bert")
    edit_json(folder / "tokenizer_config.json", **changes)
    found = minisbert.load_cross_encoder(folder).tokenize(("one", "two"))["token_type_ids"][0]
    assert set(found.tolist()) == types


def test_a_limit_below_the_special_tokens(copy_of: Copy) -> None:
    folder = copy_of("cross-bert")
    edit_json(folder / "tokenizer_config.json", model_max_length=2)
    with pytest.raises(minisbert.CheckpointError, match=r"adds 3 special tokens.* is 2"):
        minisbert.load_cross_encoder(folder)
