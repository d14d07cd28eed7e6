"""What the tests of recipes share: real texts, their vectors, and an exact search in NumPy."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import minisbert
from tests.support.texts import real_texts

Rows = np.ndarray[Any, Any]
K = 10
ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "tools" / "recipes"


def recipe(name: str, *packages: str) -> ModuleType:
    """Import a recipe; skip the test where it can't run."""
    for package in packages:
        pytest.importorskip(package, reason=f"{package} is optional")
    return importlib.import_module(f"tools.recipes.{name}")


@pytest.fixture(scope="session")
def encoder(minilm: Path) -> minisbert.SentenceEncoder:
    return minisbert.load(minilm)


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Distinct short texts: where vectors are equal, nobody could tell which is the better one."""
    short = dict.fromkeys(text for text in real_texts() if len(text) < 300)
    return list(short)[:300]


@pytest.fixture(scope="session")
def queries(texts: list[str]) -> list[str]:
    return [f"{text[:40]} ..." for text in texts[::15]]


@pytest.fixture(scope="session")
def vectors(encoder: minisbert.SentenceEncoder, texts: list[str]) -> Rows:
    return encoder.encode(texts)


@pytest.fixture(scope="session")
def cosines(encoder: minisbert.SentenceEncoder, vectors: Rows, queries: list[str]) -> Rows:
    """What NumPy says in float64: (Q, S)."""
    unit = [
        x / np.linalg.norm(x, axis=1, keepdims=True)
        for x in map(np.float64, (encoder.encode(queries), vectors))
    ]
    return unit[0] @ unit[1].T


def best(scores: Rows, k: int = K) -> Rows:
    """Return the rows of the k highest scores, the highest first: along the last axis."""
    return np.argsort(-scores, axis=-1, kind="stable")[..., :k]


def share(found: Rows, expected: Rows) -> float:
    """Return which share of the expected rows was found, in whatever order."""
    return float(
        np.mean(
            [len(set(a) & set(b)) / len(b) for a, b in zip(found.tolist(), expected.tolist(), strict=True)]
        )
    )
