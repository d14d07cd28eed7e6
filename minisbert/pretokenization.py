"""The steps round the vocabulary: as the reference builds them, which is not always as ``tokenizer.json`` has them.

transformers 5 looks up the tokenizer's class in ``tokenizer_config.json``, else in ``config.json``, else goes by the
family. It builds the normaliser and the pre-tokeniser of that class, and what is put round a text, with the settings in
``tokenizer_config.json``, and takes from ``tokenizer.json`` the vocabulary, the special tokens and SentencePiece's map
of characters. So a BERT with ``do_lower_case: false`` keeps capitals, whatever its ``tokenizer.json`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from minisbert.errors import CheckpointError, shown
from minisbert.jsonfile import JsonFile

__all__ = ["rebuild", "steps_of"]


def rebuild(library: Tokenizer, kind: str, settings: JsonFile, named: Mapping[str, str]) -> None:
    """Give a tokenizer the steps of its class; one of any other class keeps those of its file.

    `named` are the special tokens that the files beside ``tokenizer.json`` name, by their keys.

    Raises
    ------
    CheckpointError
        If there is no token of the name that is to begin or end a text.
    """
    model, steps = _CLASSES.get(kind, (None, None))
    if model is not None and steps is not None and isinstance(library.model, model):
        steps(library, settings)
        _put_round(library, kind, settings, named)


def _put_round(library: Tokenizer, kind: str, settings: JsonFile, named: Mapping[str, str]) -> None:
    """Put a token before and one after each text, and what the class has between the two texts of a pair."""
    keys = (
        ("bos_token", "eos_token")
        if isinstance(library.model, models.Unigram)
        else ("cls_token", "sep_token")
    )
    as_bert = kind in ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer")
    begin, end = map(named.get, keys, ("[CLS]", "[SEP]") if as_bert else ("<s>", "</s>"))
    ids = [(token, library.token_to_id(str(token))) for token in dict.fromkeys((begin, end))]
    for token, id in ids:
        if id is None:
            raise CheckpointError(
                f"{settings.path}: a {kind} puts the token {shown(token)} before or after each text, and "
                f"tokenizer.json has none of that name; expected the token under the key {' or '.join(keys)}"
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
