"""What tests of a checkpoint's weights have in common: changing them, and looking at what is said of it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

import minisbert

Copy = Callable[[str], Path]
Tensors = dict[str, Any]
SENTENCE = "a sentence"
# A matrix of the tiny BERT, and its word table.
QUERY = "encoder.layer.0.attention.self.query.weight"
WORDS = "embeddings.word_embeddings.weight"


def rewrite(folder: Path, change: Callable[[Tensors], Tensors | None]) -> Path:
    """Change the tensors of a checkpoint."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    save_file(change(tensors) or tensors, path)
    return path


def refused(folder: Path, kind: type[Exception], *parts: str) -> None:
    with pytest.raises(kind, match=".*".join(map(re.escape, parts))) as info:
        minisbert.load(folder)
    assert type(info.value) is kind
    assert re.search(r"model\S*\.safetensors", str(info.value))


def vector(folder: Path) -> Any:
    return minisbert.load(folder).encode(SENTENCE)


def setting(name: str, change: Callable[[Any], Any]) -> Callable[[Tensors], Any]:
    """Make a change of one tensor."""
    return lambda tensors: tensors.update({name: change(tensors[name])})


def first(value: float) -> Callable[[Any], Any]:
    """Make a change of a tensor's first number."""

    def change(tensor: Any) -> Any:
        tensor = tensor.copy()
        tensor.flat[0] = value
        return tensor

    return change
