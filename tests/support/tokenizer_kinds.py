"""Tokenizers with all kinds of steps round the tiny checkpoints' vocabularies, and what their texts are made of."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer
from tokenizers import normalizers as n
from tokenizers import pre_tokenizers as p

from minisbert.checkpoint.config import read_config
from minisbert.text.pieces import safe_cut
from minisbert.text.tokenizer import load_tokenizer

DATA = Path(__file__).resolve().parents[1] / "data"
BYTES = p.ByteLevel(add_prefix_space=False)
REGEX = p.Split(" ", "merged_with_next")  # as a pattern of which nothing is known
SCRIPTS = p.UnicodeScripts()
BERT, ROBERTA, UNIGRAM, CHARSMAP = "tiny-bert", "tiny-roberta", "tiny-multilingual", "tiny-xlm-roberta"
WORDS = p.WhitespaceSplit()
KEEP: Any = ...  # the steps of the checkpoint

# A checkpoint, and the normaliser, pre-tokeniser and added tokens that its tokenizer gets.
Kind = tuple[str, Any, Any, tuple[AddedToken, ...]]
CUT: dict[str, Kind] = {
    **{
        name: (f"tiny-{name}", KEEP, KEEP, ())
        for name in (
            "bert",
            "roberta",
            "multilingual",
            "xlm-roberta",
            "camembert",
            "distilbert",
            "electra",
            "mpnet",
        )
    },
    "cased": (BERT, n.BertNormalizer(lowercase=False, handle_chinese_chars=False), KEEP, ()),
    "no clean text": (BERT, n.BertNormalizer(clean_text=False), KEEP, ()),
    "lower-cased first": (BERT, n.Sequence([n.Lowercase(), n.BertNormalizer()]), KEEP, ()),
    "as in the library's guide": (BERT, n.Sequence([n.NFD(), n.Lowercase(), n.StripAccents()]), KEEP, ()),
    "stripped": (BERT, n.Sequence([n.NFKC(), n.Strip()]), p.Whitespace(), ()),
    "nmt": (BERT, n.Nmt(), WORDS, ()),
    "within words": (BERT, KEEP, p.Sequence([WORDS, REGEX, SCRIPTS, p.Punctuation(), p.Digits(True)]), ()),
    "characters first": (
        BERT,
        None,
        p.Sequence([p.Digits(), p.Punctuation("merged_with_next"), p.Whitespace()]),
        (),
    ),
    "added words": (BERT, KEEP, KEEP, (AddedToken("word"), AddedToken("ther", lstrip=True))),
    "prefix space": (ROBERTA, n.NFC(), p.ByteLevel(add_prefix_space=True), ()),
    "no accents": (ROBERTA, n.Sequence([n.NFKD(), n.StripAccents(), n.Lowercase()]), BYTES, ()),
    "compatibility": (ROBERTA, n.Sequence([n.Nmt(), n.NFKC()]), BYTES, (AddedToken("ther", lstrip=True),)),
    "digits": (ROBERTA, None, p.Sequence([p.Digits(individual_digits=True), BYTES]), ()),
    "punctuation": (
        ROBERTA,
        None,
        p.Sequence([p.Punctuation("merged_with_previous"), p.ByteLevel(add_prefix_space=True)]),
        (),
    ),
    "bytes within words": (ROBERTA, KEEP, p.Sequence([WORDS, p.ByteLevel(use_regex=False)]), ()),
    "metaspace": (UNIGRAM, None, p.Metaspace(), ()),
    "metaspace at the start": (UNIGRAM, n.NFKC(), p.Metaspace(prepend_scheme="first"), ()),
    "metaspace nowhere": (
        UNIGRAM,
        n.Nmt(),
        p.Sequence([p.Digits(), p.Metaspace(prepend_scheme="never")]),
        (),
    ),
    "metaspace within words": (UNIGRAM, None, p.Sequence([WORDS, p.Metaspace(split=False)]), ()),
}
# Those that nothing is known of, and those of which a place is known that would not be safe.
WHOLE: dict[str, Kind] = {
    "no steps": (BERT, None, None, ()),
    "bytes without words": (ROBERTA, KEEP, p.ByteLevel(use_regex=False), ()),
    "metaspace without words": (UNIGRAM, None, p.Metaspace(split=False), ()),
    "a pattern": (ROBERTA, KEEP, p.Sequence([REGEX, BYTES]), ()),
    "scripts": (ROBERTA, KEEP, p.Sequence([SCRIPTS, BYTES]), ()),
    "another delimiter": (BERT, KEEP, p.CharDelimiterSplit("-"), ()),
    "prepended": (BERT, n.Prepend("x"), KEEP, ()),
    "replaced": (BERT, n.Replace(" ", "_"), KEEP, ()),
    "stripped bytes": (ROBERTA, n.Strip(), BYTES, ()),
    "spaced bytes": (ROBERTA, n.BertNormalizer(), BYTES, ()),
    "bytes before words": (ROBERTA, n.ByteLevel(), WORDS, ()),
    "mapped bytes": (CHARSMAP, KEEP, BYTES, ()),
    "first of words": (UNIGRAM, None, p.Sequence([WORDS, p.Metaspace(prepend_scheme="first")]), ()),
    "a token of two words": (BERT, KEEP, KEEP, (AddedToken("the other"),)),
    "two Chinese characters": (BERT, KEEP, KEEP, (AddedToken("\u4e2d\u6587", normalized=False),)),
    "a token that is a word": (BERT, KEEP, KEEP, (AddedToken("ther", single_word=True),)),
    "a token that takes blanks": (ROBERTA, KEEP, KEEP, (AddedToken("<pad>", rstrip=True),)),
}

# What texts are made of: what becomes tokens, what stands between them, what joins with a neighbour or vanishes.
FRAGMENTS = (
    *(
        "the",
        "a",
        "word",
        "other",
        "ther",
        "Weather",
        "isn't",
        "'s",
        "42",
        "3.5",
        "_",
        "-",
        ",",
        ".",
        "!?",
        "#",
    ),
    *(" ", " ", " ", " ", " ", "  ", "   ", "\n", "\n\n", "\t", "\r\n", "\r", "\x0b", "\x0c", "\x85", "\xa0"),
    *(
        "\u3000",
        "\u2003",
        "\u1680",
        "\u2028",
        "\u200b",
        "\u200d",
        "\ufeff",
        "\u2060",
        "\xad",
        "\0",
        "\x1c",
        "\x7f",
    ),
    *(
        "\u4e2d",
        "\u6587",
        "\u4e2d\u6587",
        "\u3002",
        "\uff0c",
        "\u3042",
        "\u30ab\u3099",
        "\uff76\uff9e",
        "\ud55c",
    ),
    *("\u1112\u1161\u11ab", "\u1161", "\u11a8", "\uac00", "\U00020000", "\u0e01\u0e33", "\u0e33", "\u0964"),
    *(
        "\u0915\u094d\u0937\u093f",
        "\u093e",
        "e\u0301",
        "\u0301",
        "\u0345",
        "\u0600",
        "\u0d4e",
        "\u1cf2",
        "\u037a",
    ),
    *(
        "\ufc5e",
        "\ufdfa",
        "\u0149",
        "\u0130",
        "\u03c2",
        "\u03a3",
        "\ufb01",
        "\uff21",
        "\xb4",
        "\xa8",
        "\u2026",
    ),
    *(
        "\u201d",
        "\u2581",
        "\u0120",
        "\ufffd",
        "\ufe0f",
        "\U0001f600",
        "\U0001f468\u200d\U0001f469",
        "\U0001f3fd",
    ),
    *("\U0001f1eb\U0001f1f7", "\u2764\ufe0f", "1\ufe0f\u20e3", "x" * 101, "lo" * 30, "z"),
    *("[MASK]", "[SEP]", "[mask]", "<mask>", "<s>", "</s>", "<pad>", "<unk>", "[UNK]"),
)

fragments = st.sampled_from(FRAGMENTS)
parts_of_texts = fragments | fragments.map("{} ".format) | st.text(max_size=3)
texts = st.lists(parts_of_texts, max_size=60).map("".join)

# Examples are chosen by the test's code alone, so that a run is like the next. A longer search: set the variable.
EVERY_RUN = settings(
    max_examples=int(os.environ.get("MINISBERT_EXAMPLES", "25")),
    derandomize=True,
    deadline=None,
    database=None,
)


@cache
def library(name: str) -> tuple[Tokenizer, re.Pattern[str]]:
    """Make the tokenizer of a kind, and what matches where a text may be cut for it."""
    checkpoint, normalizer, pre_tokenizer, tokens = {**CUT, **WHOLE}[name]
    found = load_tokenizer(read_config(DATA / checkpoint)).library
    made = Tokenizer.from_str(found.to_str())
    if normalizer is not KEEP:
        made.normalizer = normalizer
    if pre_tokenizer is not KEEP:
        made.pre_tokenizer = pre_tokenizer
    made.add_tokens([*tokens])
    return made, safe_cut(made)
