"""The same bits on every processor: vectors of fixed texts have one hash, whatever computed them.

A hash changes only when what is computed does, or its order: then every level has to have the new one.
"""

from __future__ import annotations

import hashlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import minisbert
from minisbert.kernels.levels import CHOSEN, LEVELS
from tests.conftest import DATA, TINY
from tests.support import backends, texts

HASHES = {
    "tiny": "93dcda75f83c",
    "minilm": "1164881e8fd6",
    "roberta": "a9375eb17011",
    "cross-bert": "5cc3d7483d8b",
}

pytestmark = pytest.mark.skipif(
    backends.compiled.NAME == "reference" or not LEVELS[str(CHOSEN)].fuses,
    reason="without kernels, or multiply-adds that are rounded once, the last bits are others",
)


def short_hash(*arrays: np.ndarray) -> str:
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}
    return hashlib.sha256(b"".join(array.astype("<f4").tobytes() for array in arrays)).hexdigest()[:12]


def vectors(folder: Path) -> np.ndarray:
    encoder = minisbert.load(folder, backend=backends.NAME, num_threads=2)
    found: np.ndarray = encoder.encode(some_texts(), truncation="silent")
    return found


def some_texts() -> list[str]:
    """Return 160 texts of all kinds and lengths."""
    return texts.all_texts()[::3][:160]


def test_tiny_checkpoints_of_every_family() -> None:
    assert short_hash(*(vectors(DATA / name) for name in TINY)) == HASHES["tiny"]


@pytest.mark.parametrize("name", ["minilm", "roberta"])
def test_real_checkpoints(request: pytest.FixtureRequest, name: str) -> None:
    assert short_hash(vectors(request.getfixturevalue(name))) == HASHES[name]


def test_a_cross_encoder() -> None:
    model = minisbert.load_cross_encoder(DATA / "cross-bert", backend=backends.NAME, num_threads=2)
    scores = model.predict(list(pairwise(some_texts())), truncation="silent")
    assert short_hash(scores) == HASHES["cross-bert"]
