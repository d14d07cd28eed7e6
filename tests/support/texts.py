"""The texts that the parity tests encode: real ones from a file, and edge cases written out here.

The content is fixed: it depends neither on the Python version nor on the machine. The golden files hold
token ids and vectors of exactly these texts, in this order, and the fingerprint of the list. So a text that
is changed, added or removed here means that ``tools/golden/make.py`` must be run again.

Standard library only.
"""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

DATA = Path(__file__).resolve().parents[1] / "data"

LONG_LENGTH = 100_000  # characters of the longest text
_PASSAGE = (
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of "
    "foolishness, it was the epoch of belief, it was the epoch of incredulity, it was the season of Light. "
)


def real_texts() -> list[str]:
    """Docstrings, code and sentences in many languages, from ``data/texts.json``; sources are stated there."""
    groups = json.loads((DATA / "texts.json").read_text(encoding="utf-8"))["groups"]
    return [text for group in groups for text in group["texts"]]


def special_token_texts() -> list[str]:
    """Texts with the special tokens of both families written out, as a user might."""
    return [
        "[PAD]",
        "[SEP]",
        "a [MASK] in the middle of a [SEP] sentence [CLS] with [PAD] and [UNK].",
        "[PAD][PAD] two at the start",
        "[pad] [Mask] in other cases",
        "<pad>",
        "<s>",
        "</s>",
        "<mask>",
        "The <mask> sat on the mat.",
        "The<mask>sat <mask> on  <mask>  the mat.",
        "positions <pad> shift <pad> after <pad> each",
        "<pad><pad><pad>at the start",
        "at the end <pad>",
        "first</s></s>second <s> third <unk> fourth",
        "<s>wrapped by hand</s>",
        "<PAD> </S> <MASK> in capitals",
        "madeupword0001 and <|endoftext|>",
    ]


def edge_texts() -> list[str]:
    """Empty, blank, odd, special and very long texts."""
    return [*_blank(), *_characters(), *special_token_texts(), *_long()]


def all_texts() -> list[str]:
    """Every text, edge cases first: the rows of ``minilm.npz``."""
    return [*edge_texts(), *real_texts()]


def pairs() -> list[tuple[str, str]]:
    """Two hundred pairs for cross-encoders: half of them with edge cases, half of real texts."""
    bits = random.Random(11)
    edges = [text for text in edge_texts() if len(text) < 1000]
    real = real_texts()
    odd = [(bits.choice(edges), bits.choice(edges + real)) for _ in range(100)]
    return odd + [(bits.choice(real), bits.choice(real)) for _ in range(100)]


def fingerprint(texts: list[str]) -> str:
    """SHA-256 of the list: the golden files store it, to be told apart from another list's."""
    return hashlib.sha256(json.dumps(texts).encode("ascii")).hexdigest()


def _blank() -> list[str]:
    return [
        "",
        " ",
        "     ",
        "\n",
        "\t \r\n \v\f ",
        "\u00a0\u2003\u3000",
        "  two spaces before",
        "two spaces after  ",
        "two  spaces   between    words",
        "\ttab\tseparated\tvalues",
        "\n\nlines\nand\r\nmore lines\r\n\r\n",
    ]


def _characters() -> list[str]:
    return [
        "a",
        "A",
        "0",
        ".",
        "word",
        "Hello",
        "UPPER CASE and Title Case and camelCase and snake_case",
        "caf\u00e9 na\u00efve r\u00e9sum\u00e9 \u00c5ngstr\u00f6m",  # composed accents
        "cafe\u0301 nai\u0308ve re\u0301sume\u0301 A\u030angstro\u0308m",  # the same, decomposed
        "Z\u0335\u0321\u0322\u035ba\u0336\u0315l\u0334\u0321g\u0337\u0340o\u0338\u0341",  # stacked combining marks
        "\u0301 a lone combining accent",
        "\ud55c\uad6d\uc5b4 \u1112\u1161\u11ab\u1100\u116e\u11a8\u110b\u1165",  # Korean, composed and as jamo
        "\u4e2d\u6587and English\u6df7\u5408\u65e0\u7a7a\u683c",
        "\U00020000\U0002a6df rare Chinese characters outside the basic plane",
        "\uff26\uff55\uff4c\uff4c \uff57\uff49\uff44\uff54\uff48 \uff01",
        # characters whose other case has another length
        "\ufb01\ufb02 \u0132 \u01c4 \u00df \u1e9e \u017f \u0130 \u0131 \u03a3\u03b1\u03c2",
        "\U0001f600",
        # a family, a flag and a thumb: each one sign made of several characters
        "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 "
        "\U0001f3f3\ufe0f\u200d\U0001f308 \U0001f44d\U0001f3fd",
        "\U0001f1eb\U0001f1f7\U0001f1e9\U0001f1ea \u2764\ufe0f \u2764 1\ufe0f\u20e3",
        "zero\u200bwidth\u200dspaces\u2060and\ufeffmarks\u00adsoft\u00adhyphens",
        "\u202eright to left override\u202c and \u2066isolate\u2069",
        "null\x00byte, bell\x07, escape\x1b[31m, delete\x7f, and \x80\x9f control characters",
        "replacement \ufffd, private \ue000\uf8ff, noncharacter \uffff and \U0010ffff",
        "line\u2028separator and paragraph\u2029separator and next\x85line",
        "\u201ccurly\u201d \u2018quotes\u2019 \u2014 dashes \u2013 and\u2026 ellipsis \u2022 bullet",
        "$1,234.56 -0.5e-10 +7% 3/4 #42 1_000_000 0xDEADBEEF 10\u207b\u00b3",
        "!!!???...;;;:::---___***///\\\\\\|||~~~```^^^",
        "can't won't it's they'll I'd we've o'clock rock'n'roll",
        "don\u2019t isn\u2019t",
        "a.b.c@d-e_f+g",
        "def f(x: int = 0) -> str:\n\treturn f'{x!r:>10}'  # comment\n",
        "aGVsbG8gd29ybGQsIHRoaXMgaXMgYmFzZTY0IQ==",
        "3f2504e0-4f89-11d3-9a0c-0305e82c3301",
    ]


def _long() -> list[str]:
    passage = _PASSAGE * (LONG_LENGTH // len(_PASSAGE) + 1)
    return [
        "x" * 99,
        "x" * 100,  # the longest word that WordPiece looks at
        "x" * 101,
        "pneumono" * 250,  # one word of 2,000 letters
        "1234567890" * 60,
        "a " * 125,
        "a " * 126,  # in WordPiece, with two special tokens, a limit of 128 met exactly
        "a " * 127,
        "a " * 254,  # the same at 256
        "a " * 255,
        "\u6f22" * 600,
        "\U0001f600" * 300,
        " " * 5_000,
        passage[:3_000],
        passage[:LONG_LENGTH],
    ]
