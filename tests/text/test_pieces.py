"""The pieces of a long text become the tokens that it becomes as a whole, whatever the tokenizer's steps."""

from __future__ import annotations

import re
from functools import cache
from itertools import cycle, permutations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers

from minisbert.checkpoint.config import read_config
from minisbert.text.base import AT_ONCE, CHARACTERS_AT_ONCE, CHARACTERS_PER_TOKEN, TextTokenizer
from minisbert.text.pieces import SEPARATORS, WORD, pieces
from minisbert.text.tokenizer import SentenceTokenizer, load_tokenizer
from tests.conftest import DATA, TINY
from tests.support import tokenizer_kinds

ENGLISH = "The weather is lovely, and nobody knows how it will be tomorrow. "
CHINESE = "\u4eca\u5929\u5929\u6c14\u5f88\u597d"
BETWEEN_CHINESE_CHARACTERS = (
    *("bert", "distilbert", "electra", "mpnet"),
    *("no clean text", "lower-cased first", "within words", "added words"),
)
KINDS = {**tokenizer_kinds.CUT, **tokenizer_kinds.WHOLE}


def ids_of(library: Tokenizer, parts: list[str]) -> list[list[int]]:
    return [encoding.ids for encoding in library.encode_batch_fast(parts, add_special_tokens=False)]


def tokenizer_of(library: Any) -> TextTokenizer:
    return TextTokenizer(path=Path("tokenizer.json"), library=library, num_special=0, vocab_size=1 << 30)


@pytest.mark.parametrize("kind", KINDS)
@tokenizer_kinds.EVERY_RUN
@given(text=tokenizer_kinds.texts, size=st.integers(1, 30))
def test_pieces_become_the_tokens_of_the_whole(kind: str, text: str, size: int) -> None:
    library, cut = tokenizer_kinds.library(kind)
    parts = [*pieces(text, cut, size)]
    assert "".join(parts) == text
    whole, *found = ids_of(library, [text, *parts])
    assert [id for ids in found for id in ids] == whole
    tokenizer, most = tokenizer_of(library), size // 2
    [ids] = tokenizer.ids_of([text], most, str)
    assert ids.tolist() == whole[: len(ids)]
    assert len(ids) == len(whole) or len(ids) > most


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_counted_to_the_end(kind: str) -> None:
    library, _ = tokenizer_kinds.library(kind)
    some = ["", *tokenizer_kinds.FRAGMENTS, " ".join(tokenizer_kinds.FRAGMENTS) * 5, ENGLISH * 40, "a"]
    assert tokenizer_of(library).lengths(some, str) == [*map(len, ids_of(library, some))]


@pytest.mark.parametrize("kind", KINDS)
def test_which_tokenizers_texts_are_cut_for(kind: str) -> None:
    _, cut = tokenizer_kinds.library(kind)
    for text in (ENGLISH * 9, (ENGLISH * 9).replace(" ", "  ")):
        parts = [*pieces(text, cut, 10)]
        assert max(map(len, parts)) < 30 if kind in tokenizer_kinds.CUT else parts == [text]
    chinese = [*pieces(CHINESE * 9, cut, 10)]
    assert len(chinese) == (6 if kind in BETWEEN_CHINESE_CHARACTERS else 1)


# --- Sentences, with their special tokens ----------------------------------------------------------------


@pytest.mark.parametrize("name", TINY)
@tokenizer_kinds.EVERY_RUN
@given(text=tokenizer_kinds.texts, limit=st.integers(2, 20))
def test_a_text_is_cut_as_if_all_of_it_were_read(name: str, text: str, limit: int) -> None:
    mine, library = _tokenizers(name)
    library.enable_truncation(limit)
    [ids], [known] = mine([text], 0, limit)
    assert ids.tolist() == library.encode(text).ids
    library.no_truncation()
    count = len(library.encode(text).ids)
    assert mine.count_all([text], 0) == [count]
    assert min(known, limit + 1) == min(count, limit + 1)


@cache
def _tokenizers(name: str) -> tuple[SentenceTokenizer, Tokenizer]:
    tokenizer = load_tokenizer(read_config(DATA / name))
    return tokenizer, Tokenizer.from_str(tokenizer.library.to_str())


@pytest.mark.parametrize("name", TINY)
def test_a_limit_that_all_tokens_just_reach_cuts_nothing(name: str) -> None:
    mine, _ = _tokenizers(name)
    text = "word " * 400
    [count] = mine.count_all([text], 0)
    assert count > 400
    for limit, is_cut in ((count - 1, True), (count, False)):
        [ids], [known] = mine([text], 0, limit)
        assert (known > limit) == is_cut
        assert len(ids) == limit


@pytest.mark.parametrize("name", TINY)
def test_a_text_that_the_special_tokens_leave_no_room_for(name: str) -> None:
    mine, _ = _tokenizers(name)
    [ids], [known] = mine(["word " * 400], 0, 2)
    assert known > 2
    assert len(ids) == 2


# --- What is taken for granted of single characters ------------------------------------------------------


def words() -> list[str]:
    """Return the characters of words that this version of Unicode has: of some 30,000 that are alike, a sample."""
    chars = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
    alike = re.compile("[\u3400-\u9fff\uac00-\ud7a3]")
    return re.findall(rf"(?!{alike.pattern}){WORD}", chars) + alike.findall(chars)[::50]


def test_a_normaliser_that_is_trusted_leaves_a_word_s_character_without_a_blank() -> None:
    names = ("Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "StripAccents")
    steps = [getattr(normalizers, name)() for name in names]
    text = " ".join(words())
    assert len(text) > 20_000
    for chosen in [*permutations(steps, 1), *permutations(steps, 2), steps, steps[::-1]]:
        found = normalizers.Sequence([*chosen]).normalize_str(text).split(" ")
        assert len(found) == text.count(" ") + 1
        assert all(part and part == part.strip() for part in found)


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta", "no accents", "metaspace at the start"])
def test_every_character_of_a_word_may_stand_beside_a_separator(kind: str) -> None:
    library, cut = tokenizer_kinds.library(kind)
    separators = [part[0] for part in SEPARATORS if cut.search(f"a{part[0]}a")]
    beside = zip(words(), cycle(separators), strict=False)
    text = "".join(f"a{word}{separator}{word}a" for word, separator in beside)
    parts = [*pieces(text, cut, 1)]
    assert len(parts) > 10_000
    whole, *found = ids_of(library, [text, *parts])
    assert [id for ids in found for id in ids] == whole


# --- How much the library gets ---------------------------------------------------------------------------


class Recorder:
    """A tokenizer that notes of how many characters the texts are that each call gets."""

    def __init__(self, library: Tokenizer) -> None:
        self.library = library
        self.calls: list[list[int]] = []

    def encode_batch_fast(self, texts: list[str], add_special_tokens: bool) -> Any:
        self.calls.append([len(text) for text in texts])
        return self.library.encode_batch_fast(texts, add_special_tokens=add_special_tokens)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.library, name)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder(tokenizer_kinds.library("bert")[0])


def test_of_a_long_text_no_more_is_read_than_is_wanted(recorder: Recorder) -> None:
    tokenizer = tokenizer_of(recorder)
    for length in (4_000, 500_000):
        recorder.calls = []
        tokenizer.ids_of([(ENGLISH * 9_000)[:length]], 100, str)
        [[read]] = recorder.calls
        assert 100 * CHARACTERS_PER_TOKEN < read < 110 * CHARACTERS_PER_TOKEN
    recorder.calls = []
    [ids] = tokenizer.ids_of([("pneumonoultramicroscopic" * 5 + " ") * 9_000], 100, str)  # one token a word
    assert len(ids) == 102
    assert len(recorder.calls) == 17


def test_a_call_of_the_library_gets_few_texts_and_few_characters(recorder: Recorder) -> None:
    tokenizer, long = tokenizer_of(recorder), ENGLISH * 150
    tokenizer.ids_of([long] * 40, 20_000, str)
    assert tokenizer.lengths([long * 9], str) == [len(ids_of(recorder.library, [long * 9])[0])]
    assert len(recorder.calls) < 20
    tokenizer.ids_of(["short"] * 1_000, 100, str)
    assert max(map(len, recorder.calls)) == 250 < AT_ONCE
    assert max(map(sum, recorder.calls)) < CHARACTERS_AT_ONCE
