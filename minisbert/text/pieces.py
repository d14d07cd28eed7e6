"""Where a text may be cut so that its pieces become, one by one, the tokens that it becomes as a whole.

A tokenizer works step by step: added tokens such as ``[MASK]`` are taken out, what is between them is normalised and
split into words, and the model turns each word into tokens without a look at the others. So a place is safe where no
added token lies across, where both sides are normalised as they would be together, and where a word ends. That is known
of the place before a separator, a character that the normaliser turns into a space or puts one before, if it follows a
character of a word and precedes another one or a blank:

- An added token lies across only if there is a separator in it. One that swallows the blanks before it swallows none on
  the left side, which ends in none.
- The normalisers below look at one character at a time, at one with the marks that follow it, or (SentencePiece's map)
  at a grapheme. Each of these ends before the separator, and the next one begins with it.
- Where words are what stands between blanks, nothing else is needed. Where the blank belongs to the word behind it, the
  left side must still end in none when it is normalised: so do the normalisers in `_PLAIN` leave it.

A tokenizer with any other step is cut nowhere.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tokenizers import Tokenizer

__all__ = ["pieces", "safe_cut"]

# A letter or a digit, or what punctuation most often stands at a space or the end of a line. Left out are the letters
# that are one grapheme with a neighbour, those that are marks in an older Unicode, and those that become a blank with
# marks where compatibility forms are taken apart.
WORD = (
    r"(?:[^\W\u037a\u0d4e\u0e33\u0eb3\u1cf2\u1cf3\ufb1d-\U0010ffff]"
    r"|[!-~\u2018-\u201f\u2026\u3001\u3002\u3008-\u3011\uff01-\uff5e])"
)
# The last are the Chinese characters that have been in Unicode from its beginning.
SEPARATORS = (" ", "\t", "\n", "\u3000", "\u4e00-\u9fa5")
_PLAIN = {"Lowercase", "NFC", "NFD", "NFKC", "NFKD", "Nmt", "StripAccents"}
_ANY = _PLAIN | {"BertNormalizer", "Precompiled", "Strip"}
# The pre-tokenisers that end a word at each space, and the normalisers that go with them.
_SPLITTERS = {
    "BertPreTokenizer": _ANY,
    "Whitespace": _ANY,
    "WhitespaceSplit": _ANY,
    "ByteLevel": _PLAIN,
    "Metaspace": _PLAIN,
}
# Those that end words at certain characters, whatever stands beside them. They may come first.
_AT_CHARACTERS = ("Digits", "Punctuation")


def safe_cut(library: Tokenizer) -> re.Pattern[str]:
    """Return what matches the first character of a piece wherever a text may be cut; it may match nowhere."""
    separators = "".join(_separators(library))
    if not separators:
        return re.compile("(?!)")
    return re.compile(rf"[{separators}](?<={WORD}[{separators}])(?={WORD}|\s)")


def pieces(text: str, cut: re.Pattern[str], size: int) -> Iterator[str]:
    """Yield the pieces of a text: each ends where it may first be cut after `size` characters, which are 1 or more."""
    start = 0
    while start < len(text):
        found = cut.search(text, start + size)
        end = found.start() if found else len(text)
        yield text[start:end]
        start = end


def _separators(library: Tokenizer) -> list[str]:
    """Return the characters, as they stand in a class of a pattern, before which a text may be cut."""
    if not _has_known_steps(library):
        return []
    normalize = library.normalizer.normalize_str if library.normalizer else str
    found = [some for some in SEPARATORS if normalize(f"a{some[0]}a").startswith("a ")]
    across = re.compile(rf"[\s{''.join(found)}]")
    for token in library.get_added_tokens_decoder().values():
        contents = (token.content, normalize(token.content))
        if token.single_word or token.rstrip or any(map(across.search, contents)):
            return []
    return found


def _has_known_steps(library: Tokenizer) -> bool:
    """Whether a word is known to end at each space, and the normaliser to be one that goes with that."""
    splitters = [step for step in _steps(library.pre_tokenizer) if step["type"] not in _AT_CHARACTERS]
    if not splitters or splitters[0]["type"] not in _SPLITTERS:
        return False
    # Those behind the first one work within its words, unless they ask which word is the text's first.
    first, *rest = splitters
    normalizers = {step["type"] for step in _steps(library.normalizer)}
    is_split = first.get("use_regex", True) and first.get("split", True)
    asks_no_more = all(step.get("prepend_scheme") != "first" for step in rest)
    return is_split and asks_no_more and normalizers <= _SPLITTERS[first["type"]]


def _steps(step: Any) -> list[dict[str, Any]]:
    """Return the settings of a normaliser or a pre-tokeniser, or of the several that it is a sequence of."""
    return [] if step is None else _flat(json.loads(step.__getstate__()))


def _flat(settings: dict[str, Any]) -> list[dict[str, Any]]:
    if settings["type"] != "Sequence":
        return [settings]
    steps = settings.get("normalizers", settings.get("pretokenizers", []))
    return [found for step in steps for found in _flat(step)]
