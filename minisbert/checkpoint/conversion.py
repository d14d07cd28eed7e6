"""Refusals of what minisbert does not open itself, each with the one command that makes what it does open.

A command keeps everything that the checkpoint has. So weights are converted tensor by tensor, and not by way of a
model, which would leave out what it has no use for; and what has only a name is saved by sentence-transformers, as a
model of transformers has no pooling, no Dense and no limit of its own.
"""

from __future__ import annotations

from pathlib import Path

from minisbert.checkpoint.access import open_file
from minisbert.errors import UnsupportedCheckpointError

__all__ = ["PICKLED", "PIECES", "pickle_refusal", "refusal_by_name", "tokenizer_refusal"]

PICKLED = (
    "the weights are in Python's pickle format, which can run code and is never opened; expected safetensors"
)
PIECES = (
    "the vocabulary is in SentencePiece's format, of which minisbert makes no tokenizer; expected tokenizer.json, "
    "which it takes the packages sentencepiece and protobuf to make"
)


def pickle_refusal(pickle: Path) -> UnsupportedCheckpointError:
    """Refuse a folder with pickles alone; the command makes one ``model.safetensors`` of them all."""
    open_file(pickle).close()
    return UnsupportedCheckpointError(
        f'{pickle}: {PICKLED}. Convert it where torch is installed: python -c "import torch, '
        f"pathlib; from safetensors.torch import save_file; d = pathlib.Path(r'{pickle.parent}'); "
        "save_file({k: v.contiguous().clone() for f in sorted(d.glob('pytorch_model*.bin')) for k, v in "
        "torch.load(f, map_location='cpu', weights_only=True).items()}, d / 'model.safetensors', {'format': 'pt'})\""
    )


def tokenizer_refusal(vocabulary: Path, kind: str) -> UnsupportedCheckpointError:
    """Refuse a vocabulary of which only transformers makes a tokenizer; the command writes ``tokenizer.json``."""
    folder = vocabulary.parent
    return UnsupportedCheckpointError(
        f"{vocabulary}: is what a {kind} is made of, which minisbert does not do; expected tokenizer.json. Where "
        'transformers, sentencepiece and protobuf are installed, this makes it: python -c "from transformers import '
        f"AutoTokenizer as A; A.from_pretrained(r'{folder}').backend_tokenizer.save(r'{folder / 'tokenizer.json'}')\""
    )


def refusal_by_name(
    name: str, revision: str, is_cross_encoder: bool, what: str
) -> UnsupportedCheckpointError:
    """Refuse what the hub has under a name; the command saves all of it in a folder called after the model."""
    model = "CrossEncoder" if is_cross_encoder else "SentenceTransformer"
    at = "" if revision == "main" else f", revision='{revision}'"
    folder = name.rpartition("/")[2]
    return UnsupportedCheckpointError(
        f"{name}/{what}. Where sentence-transformers is installed, this saves the whole checkpoint in the folder "
        f'{folder}, to be loaded from there: python -c "from sentence_transformers import {model} as M; '
        f"M('{name}'{at}).save_pretrained('{folder}')\""
    )
