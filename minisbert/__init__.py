"""Sentence embeddings from BERT and RoBERTa checkpoints, without torch.

>>> encoder = minisbert.load("sentence-transformers/all-MiniLM-L6-v2")
>>> vectors = encoder.encode(["A cat sits on the mat.", "Une deuxième phrase."])
"""

from typing import TYPE_CHECKING, Any

from minisbert.encoder import SentenceEncoder, load
from minisbert.errors import (
    BackendWarning,
    CalibrationWarning,
    CheckpointError,
    CheckpointNotFoundError,
    EncodeTypeError,
    EncodeValueError,
    MinisbertError,
    MissingPackageError,
    TruncationError,
    TruncationWarning,
    UnsupportedCheckpointError,
)

if TYPE_CHECKING:
    from minisbert.adapters.sentence_transformers import as_sentence_transformers
    from minisbert.cross_encoder import CrossEncoder, load_cross_encoder

__all__ = [
    "BackendWarning",
    "CalibrationWarning",
    "CheckpointError",
    "CheckpointNotFoundError",
    "CrossEncoder",
    "EncodeTypeError",
    "EncodeValueError",
    "MinisbertError",
    "MissingPackageError",
    "SentenceEncoder",
    "TruncationError",
    "TruncationWarning",
    "UnsupportedCheckpointError",
    "__version__",
    "as_sentence_transformers",
    "load",
    "load_cross_encoder",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import what few need when it is asked for: cross-encoders are a fiftieth of the time to a first vector."""
    if name in ("CrossEncoder", "load_cross_encoder"):
        from minisbert import cross_encoder

        return getattr(cross_encoder, name)
    if name == "as_sentence_transformers":
        from minisbert.adapters import sentence_transformers

        return sentence_transformers.as_sentence_transformers
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
