"""Whether stored vectors are those that a model makes, and how a query is encoded such that it fits them."""

from __future__ import annotations

from typing import Any

import numpy as np

from minisbert import vectors
from minisbert.cli.report import tell
from minisbert.cli.settings import Settings
from minisbert.cli.stored import Corpus
from minisbert.cli.streams import TextFileError
from minisbert.cli.writers import Vectors
from minisbert.encoder import SentenceEncoder
from minisbert.engine.prompts import resolve_prompt, with_role

__all__ = ["fit"]

PRECISIONS = {"f": "float32", "i": "binary", "u": "ubinary"}  # by the kind of the dtype
PROBED = 8  # texts that are encoded where a file doesn't say who made its vectors
ALIKE = 0.95  # the least cosine of these: other settings such as a dtype make less of a difference, other models more
DOCUMENT = ("document", "passage", "corpus")  # prompts, as `SentenceEncoder.encode_document` looks for them


def fit(encoder: SentenceEncoder, corpus: Corpus) -> dict[str, Any]:
    """Set the encoder's `truncate_dim`, and return the options with which it encodes queries for stored vectors.

    Raises
    ------
    TextFileError
        If they are another checkpoint's: by the fingerprint in the file, or else by their width, and by what the
        encoder makes of the first texts.
    """
    name, settings, empty = corpus.name, corpus.settings, corpus.empty
    if settings is not None and settings.checkpoint != encoder.fingerprint:
        raise TextFileError(
            f"{name}: its vectors were made by another checkpoint than {encoder.path}; name that one with --model, or "
            "encode the texts once more"
        )
    precision, dimension = _format(encoder, name, empty)
    if settings is None:
        encoder.truncate_dim = dimension
        _probe(encoder, corpus, precision)
        return {"precision": precision}
    encoder.truncate_dim = settings.truncate_dim
    if (settings.precision, vectors.output_width(precision, settings.truncate_dim)) != (
        precision,
        empty.shape[1],
    ):
        raise TextFileError(
            f"{name}: holds {empty.dtype}, {empty.shape[1]} wide, and says that it was encoded in the precision "
            f"{settings.precision!r}, with {settings.truncate_dim} components; encode the texts once more"
        )
    _compare_prompts(encoder, name, settings)
    return {"precision": precision, "normalize_embeddings": settings.normalize}


def _format(encoder: SentenceEncoder, name: str, empty: Vectors) -> tuple[str, int]:
    """Tell from their dtype and width in which precision vectors are, and how many components each has."""
    width, most = empty.shape[1], encoder.get_embedding_dimension()
    precision = PRECISIONS[empty.dtype.kind]
    if precision == "float32" and 0 < width <= most:
        return precision, width
    if empty.dtype in (np.int8, np.uint8) and 0 < width <= -(-most // 8):
        return precision, min(8 * width, most)
    raise TextFileError(
        f"{name}: its vectors are {empty.dtype}, {width} wide; expected this model's: float32, {most} wide at most, or "
        f"packed bits, {-(-most // 8)} wide at most (int8 of one byte a component can't be compared without its ranges)"
    )


def _probe(encoder: SentenceEncoder, corpus: Corpus, precision: str) -> None:
    """Refuse vectors if the first ones are not what the encoder makes of their texts, as documents or as they are."""
    first = next((block for block in corpus.blocks() if len(block.lines)), None)
    if first is None:
        return
    stored = first.vectors[:PROBED]
    texts = [first.record(index).text or "" for index in range(len(stored))]
    options: dict[str, Any] = {"precision": precision, "truncation": "silent", "show_progress_bar": False}
    alike = max(
        vectors.similarity_pairwise(made, stored, "cosine", encoder.truncate_dim).min()
        for made in (encoder.encode_document(texts, **options), encoder.encode(texts, **options))
    )
    if alike < ALIKE:
        raise TextFileError(
            f"{corpus.name}: its vectors are not what {encoder.path} makes of the texts (cosine {alike:.2f}); name the "
            "model that made them with --model, or encode the texts once more, best to Parquet, which says how"
        )


def _compare_prompts(encoder: SentenceEncoder, name: str, settings: Settings) -> None:
    """Warn if texts were encoded with another prompt than the model has for documents."""
    role = with_role(encoder.prompts, DOCUMENT, {})["prompt_name"]
    prompt = resolve_prompt(encoder.prompts, encoder.default_prompt_name, role, None)
    if settings.prompt != prompt:
        tell(
            f"warning: {name}: was encoded with the prompt {settings.prompt!r}; the model's for documents is {prompt!r}"
        )
