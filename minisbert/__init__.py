"""Sentence embeddings from BERT and RoBERTa checkpoints, without torch.

>>> encoder = minisbert.load("sentence-transformers/all-MiniLM-L6-v2")
>>> vectors = encoder.encode(["A cat sits on the mat.", "Une deuxième phrase."])
"""

from minisbert.cross_encoder import CrossEncoder, load_cross_encoder
from minisbert.encoder import SentenceEncoder, load
from minisbert.errors import (
    BackendWarning,
    CalibrationWarning,
    CheckpointError,
    CheckpointNotFoundError,
    EncodeTypeError,
    EncodeValueError,
    MinisbertError,
    TruncationError,
    TruncationWarning,
    UnsupportedCheckpointError,
)

__all__ = [
    "BackendWarning",
    "CalibrationWarning",
    "CheckpointError",
    "CheckpointNotFoundError",
    "CrossEncoder",
    "EncodeTypeError",
    "EncodeValueError",
    "MinisbertError",
    "SentenceEncoder",
    "TruncationError",
    "TruncationWarning",
    "UnsupportedCheckpointError",
    "__version__",
    "load",
    "load_cross_encoder",
]

__version__ = "0.1.0"
