"""The steps round the vocabulary: as transformers builds them, which is not always as ``tokenizer.json`` has them.

transformers 5 looks up the tokenizer's class in ``tokenizer_config.json``, else in ``config.json``, else goes by the
family. It builds the normaliser and the pre-tokeniser of that class, and what is put round a text, with the settings in
``tokenizer_config.json``, and takes from ``tokenizer.json`` the vocabulary, the special tokens and SentencePiece's map
of characters. So a BERT with ``do_lower_case: false`` keeps capitals, whatever its ``tokenizer.json`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from minisbert.checkpoint.jsonfile import JsonFile
from minisbert.errors import CheckpointError, shown

__all__ = ["of_another_class", "put_round", "set_steps", "steps_of"]


def of_another_class(library: Tokenizer, kind: str) -> str:
    """Say how the model of a tokenizer is not that of its class, if the steps of that class are known here."""
    if kind not in _CLASSES or _is_of_class(library, kind):
        return ""
    found, expected = type(library.model).__name__, _CLASSES[kind][0].__name__
    return (
        f"a {found}, where a {kind} has a {expected}: the steps of the file are taken here, and those of the class in "
        "transformers 5, which gives other ids"
    )


def _is_of_class(library: Tokenizer, kind: str) -> bool:
    return kind in _CLASSES and isinstance(library.model, _CLASSES[kind][0])


def set_steps(library: Tokenizer, kind: str, settings: JsonFile) -> None:
    """Give a tokenizer the steps of its class; of any other class, or with another model, it keeps those it has."""
    if _is_of_class(library, kind):
        _CLASSES[kind][1](library, settings)


def put_round(library: Tokenizer, kind: str, settings: JsonFile, named: Mapping[str, str | None]) -> None:
    """Put a token before and one after each text, and what the class has between the two texts of a pair.

    `named` are the special tokens by their keys, as far as files name them. What `set_steps` leaves alone is left
    alone here too.

    Raises
    ------
    CheckpointError
        If there is no token of the name that is to begin or end a text.
    """
    if not _is_of_class(library, kind):
        return
    is_unigram = isinstance(library.model, models.Unigram)
    keys = ("bos_token", "eos_token") if is_unigram else ("cls_token", "sep_token")
    as_bert = kind in ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer")
    begin, end = map(named.get, keys, ("[CLS]", "[SEP]") if as_bert else ("<s>", "</s>"))
    ids = [(token, library.token_to_id(str(token))) for token in dict.fromkeys((begin, end))]
    for token, id in ids:
        if id is None:
            raise CheckpointError(
                f"{settings.path}: a {kind} puts the token {shown(token)} before or after each text, and the "
                f"vocabulary has none of that name; expected the token under the key {' or '.join(keys)}"
            )
    pair = f"{begin}:0 $A:0 {end}:0 $B:1 {end}:1" if as_bert else f"{begin} $A {end} {end} $B {end}"
    library.post_processor = TemplateProcessing(single=f"{begin} $A {end}", pair=pair, special_tokens=ids)


def steps_of(normalizer: normalizers.Normalizer | None) -> list[normalizers.Normalizer]:
    """Return the steps of a normaliser, which may be a sequence of several, or none."""
    if isinstance(normalizer, normalizers.Sequence):
        return list(normalizer)  # type: ignore[call-overload, no-any-return]
    return [] if normalizer is None else [normalizer]


def _wordpiece(library: Tokenizer, settings: JsonFile) -> None:
    library.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", bool, True),
        strip_accents=settings.optional("strip_accents", bool),
        lowercase=settings.get("do_lower_case", bool, True),
    )
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    library.model.continuing_subword_prefix = "##"
    library.model.max_input_chars_per_word = 100


def _byte_level(library: Tokenizer, settings: JsonFile) -> None:
    library.normalizer = normalizers.Sequence([])
    library.pre_tokenizer = pre_tokenizers.ByteLevel(settings.get("add_prefix_space", bool, False))


def _unigram(library: Tokenizer, settings: JsonFile) -> None:
    steps = steps_of(library.normalizer)
    library.normalizer = normalizers.Sequence(
        [step for step in steps if isinstance(step, normalizers.Precompiled)][:1]
    )
    scheme = "always" if settings.get("add_prefix_space", bool, True) else "never"
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme=scheme)]
    )


_CLASSES: dict[str, tuple[type, Callable[[Tokenizer, JsonFile], None]]] = {
    "BertTokenizer": (models.WordPiece, _wordpiece),
    "DistilBertTokenizer": (models.WordPiece, _wordpiece),
    "ElectraTokenizer": (models.WordPiece, _wordpiece),
    "MPNetTokenizer": (models.WordPiece, _wordpiece),
    "RobertaTokenizer": (models.BPE, _byte_level),
    "XLMRobertaTokenizer": (models.Unigram, _unigram),
    "CamembertTokenizer": (models.Unigram, _unigram),
}
