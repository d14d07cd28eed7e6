"""Real checkpoints: the genuine all-MiniLM-L6-v2, and a RoBERTa of full size."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minisbert
from tests.conftest import load_golden
from tests.support import checkpoints, texts

NAMES = ("minilm", "roberta")


BACKENDS = ("native", "reference")


@pytest.fixture(
    scope="module", params=[(name, backend) for name in NAMES for backend in BACKENDS], ids="-".join
)
def real(request: pytest.FixtureRequest) -> tuple[dict[str, Any], list[str], minisbert.SentenceEncoder]:
    """What the reference gave, the texts it was given, and our encoder of the same checkpoint."""
    name, backend = request.param
    folder: Path = request.getfixturevalue(name)
    golden = load_golden(name)
    every = texts.all_texts()
    assert str(golden["texts_sha256"]) == texts.fingerprint(every), (
        "the texts changed: run tools/golden/make.py"
    )
    return golden, [every[row] for row in golden["rows"]], minisbert.load(folder, backend=backend)


def test_the_checkpoints_are_those_of_the_golden_files(minilm: Path, roberta: Path) -> None:
    assert str(load_golden("minilm")["model_sha256"]) == checkpoints.MINILM_SHA256
    assert checkpoints.file_sha256(minilm / "model.safetensors") == checkpoints.MINILM_SHA256
    assert checkpoints.weights_sha256(roberta) == str(load_golden("roberta")["model_sha256"])


def test_token_ids_equal_the_reference_s_in_every_row(real: Any) -> None:
    golden, sentences, encoder = real
    ids = encoder.tokenize(sentences)["input_ids"]
    offsets = golden["offsets"]
    expected = [golden["ids"][a:b].tolist() for a, b in pairwise(offsets)]
    assert [row for row, found in enumerate(ids) if found.tolist() != expected[row]] == []
    np.testing.assert_array_equal(encoder.token_counts(sentences), golden["token_counts"])


def test_vectors_are_closer_to_float64_than_torch_s(
    real: Any, record_property: Callable[[str, object], None]
) -> None:
    golden, sentences, encoder = real
    error = np.abs(encoder.encode(sentences, truncation="silent") - golden["vectors"])
    torch_max, torch_mean = float(golden["fp32_max_error"]), float(golden["fp32_mean_error"])
    print(
        f"\n{encoder.path.name}, {encoder.backend}, {len(sentences)} texts: error against float64 at most "
        f"{error.max():.2e} (torch fp32 {torch_max:.2e}), mean {error.mean():.2e} (torch fp32 {torch_mean:.2e})"
    )
    assert error.max() <= torch_max
    assert error.mean() <= 0.75 * torch_mean  # on both backends, as both cut long sums into parts


def test_the_same_vectors_always(real: Any) -> None:
    """Bit for bit: alone, in any company and order, at any batch size, on any number of threads."""
    _, sentences, encoder = real
    if encoder.backend == "reference":
        pytest.skip(
            "NumPy's BLAS picks other kernels for other row counts: the promise is that of the kernels"
        )
    together = encoder.encode(sentences, truncation="silent")
    rng = np.random.default_rng(5)
    for batch_size in (1, 3, 32, 1000):
        rows = rng.permutation(len(sentences))[: rng.integers(20, 60)]
        encoder.num_threads = int(rng.integers(1, 5))
        some = encoder.encode([sentences[row] for row in rows], batch_size=batch_size, truncation="silent")
        np.testing.assert_array_equal(some, together[rows])
    for row in rng.permutation(len(sentences))[:40]:
        np.testing.assert_array_equal(encoder.encode(sentences[row], truncation="silent"), together[row])


def test_the_oracle_is_the_reference_in_float64(minilm: Path) -> None:
    golden = load_golden("minilm")
    every = texts.all_texts()
    rows = np.flatnonzero(np.diff(golden["offsets"]) < 64)[:60]
    encoder = minisbert.load(minilm, dtype="float64")
    found = encoder.encode([every[golden["rows"][row]] for row in rows])
    assert np.abs(found - golden["vectors"][rows]).max() <= 1e-14


def test_at_least_four_hundred_texts_of_every_kind() -> None:
    every = texts.all_texts()
    assert len(every) >= 400
    assert {"", "<pad>", "</s>", "<mask>"} <= set(every)
    assert max(map(len, every)) == 100_000
    assert any(text and not text.strip(" ") for text in every)
    assert any(text.startswith(" ") and text.strip() for text in every)
    for low, high in ((0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0x3040, 0x30FF), (0x1F600, 0x1F64F), (0xC0, 0xFF)):
        assert any(low <= ord(character) <= high for text in every for character in text)
