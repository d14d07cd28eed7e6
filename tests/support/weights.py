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
