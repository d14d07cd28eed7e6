"""The forward pass, stage by stage, against the reference implementation's float64 results."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import minisbert
from minisbert import model
from tests.conftest import DATA, FP32_MARGIN, STAGE_TOLERANCE, TINY, VECTOR_TOLERANCE, largest, load_golden
from tests.support.recording import Recorder, stages


@pytest.mark.parametrize(
    ("backend", "dtype"), [("auto", "float32"), ("reference", "float32"), ("auto", "float64")]
)
@pytest.mark.parametrize("name", TINY)
def test_every_stage_is_the_reference_s(name: str, backend: str, dtype: str) -> None:
    golden = load_golden(name)
    encoder = minisbert.load(DATA / name, backend=backend, dtype=dtype)
    found = stages(encoder, golden["ids"], golden["offsets"])
    checked = [stage for stage in found if stage in golden]
    projected = encoder.config.transformer.family.projection != ()
    assert len(checked) == 1 + projected + 7 * encoder.config.transformer.num_hidden_layers + 2
    for stage in checked:  # in order: the first to fail is where the mistake is
        error = largest(found[stage] - golden[stage])
        assert error <= STAGE_TOLERANCE[dtype], f"{name}, {dtype}: {stage} is off by {error:.1e}"


@pytest.mark.parametrize("name", TINY)
def test_token_ids_and_vectors_are_the_reference_s(name: str) -> None:
    golden = load_golden(name)
    texts = json.loads(str(golden["texts"]))
    encoder = minisbert.load(DATA / name, dtype="float64")
    ids = encoder.tokenize(texts)["input_ids"]
    np.testing.assert_array_equal(np.concatenate(ids), golden["ids"])
    np.testing.assert_array_equal(np.cumsum([0, *map(len, ids)]), golden["offsets"])
    found = encoder.encode(texts, truncation="silent")
    assert largest(found - golden["normalised"]) <= VECTOR_TOLERANCE["float64"]
    for encode, key in ((encoder.encode_query, "encode_query"), (encoder.encode_document, "encode_document")):
        assert largest(encode(texts, truncation="silent") - golden[key]) <= VECTOR_TOLERANCE["float64"]
    half = golden["truncated"].shape[1]
    cut = encoder.encode(texts, truncate_dim=half, normalize_embeddings=True, truncation="silent")
    assert largest(cut - golden["truncated"]) <= VECTOR_TOLERANCE["float64"]


@pytest.mark.parametrize("name", TINY)
def test_fp32_is_no_worse_than_torch_s_at_any_stage(name: str) -> None:
    golden = load_golden(name)
    torch_errors = json.loads(str(golden["fp32_errors"]))
    found = stages(minisbert.load(DATA / name), golden["ids"], golden["offsets"])
    errors = {stage: largest(found[stage] - golden[stage]) for stage in found if stage in golden}
    worst = max(errors, key=lambda stage: errors[stage] / torch_errors[stage])
    # One element decides a maximum over a few hundred, so single stages wander; all together must not.
    assert errors[worst] <= 3 * torch_errors[worst], worst
    assert sum(errors.values()) <= FP32_MARGIN * sum(torch_errors[stage] for stage in errors)


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_bert_counts_positions_from_zero_and_roberta_from_the_ids(backend: str) -> None:
    ids = np.array([0, 7, 1, 8, 2, 0, 1, 1, 2])
    offsets = np.array([0, 5, 5, 9])  # the second sentence is empty
    expected = {"tiny-bert": [0, 1, 2, 3, 4, 0, 1, 2, 3], "tiny-roberta": [2, 3, 1, 4, 5, 2, 1, 1, 3]}
    for name, numbers in expected.items():
        encoder = minisbert.load(DATA / name, backend=backend)
        recorder, w = Recorder(encoder._kernels), encoder._weights.embeddings
        model.embed(ids, np.zeros_like(ids), offsets, w, encoder.config.transformer, recorder)
        [positions] = [found for operation, found in recorder.calls if operation == "positions"]
        assert positions.tolist() == numbers


def test_attention_is_far_from_uniform_in_the_tiny_checkpoints(tiny: Path) -> None:
    golden = load_golden(tiny.name)
    heads, ratios = 3, []
    for start, stop in pairwise(golden["offsets"]):
        q, k = (golden[f"layer0.{role}"][start:stop] for role in ("query", "key"))
        T, D = q.shape
        q, k = (a.reshape(T, heads, D // heads).swapaxes(0, 1) for a in (q, k))
        scores = np.exp(q @ k.swapaxes(1, 2) / np.sqrt(D // heads))
        weights = scores / scores.sum(axis=-1, keepdims=True)
        entropy = -(weights * np.log(weights)).sum(axis=-1).mean()
        ratios.append(entropy / np.log(T))
    assert np.mean(ratios) < 0.94
