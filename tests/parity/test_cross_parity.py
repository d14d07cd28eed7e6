"""Live parity of cross-encoders with the reference implementation, where torch is installed: as test_parity.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minisbert
from minisbert.cli import commands
from tests.conftest import largest
from tests.support import cross_checkpoints, texts

pytest.importorskip("torch", reason="torch is not installed: python tools/dev.py test --parity installs it")
reference = pytest.importorskip(
    "sentence_transformers", reason="sentence-transformers is not installed: see test_parity.py"
)

SCORE_TOLERANCE = 2e-6
MEAN_MARGIN = 1.5


@pytest.fixture(scope="module", params=[*cross_checkpoints.TINY, *cross_checkpoints.FAMILIES, "full size"])
def folder(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    cross_folder: Callable[[str], Path],
) -> Path:
    if request.param != "full size":
        return cross_folder(request.param)
    built = tmp_path_factory.mktemp("checkpoints") / "full-size"
    cross_checkpoints.build_full_size(built, request.getfixturevalue("minilm"))
    return built


@pytest.fixture(scope="module")
def pairs() -> list[tuple[str, str]]:
    return texts.pairs()


def reference_model(folder: Path) -> Any:
    return reference.CrossEncoder(str(folder), device="cpu", local_files_only=True)


@pytest.fixture(scope="module")
def expected(folder: Path, pairs: list[tuple[str, str]]) -> tuple[Any, Any]:
    """The reference's scores as its user gets them, and in float64."""
    model = reference_model(folder)
    return model.predict(pairs), model.double().predict(pairs, convert_to_tensor=True).numpy()


def test_tokens(folder: Path, pairs: list[tuple[str, str]]) -> None:
    theirs, found = reference_model(folder), minisbert.load_cross_encoder(folder).tokenize(pairs)
    for pair, ids, types in zip(pairs, found["input_ids"], found["token_type_ids"], strict=True):
        expected = theirs.preprocess([pair])
        assert ids.tolist() == expected["input_ids"][0].tolist(), pair
        if "token_type_ids" in expected:
            assert types.tolist() == expected["token_type_ids"][0].tolist(), pair


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_scores_and_ranks(
    folder: Path, pairs: list[tuple[str, str]], backend: str, expected: tuple[Any, Any]
) -> None:
    theirs, exact = expected
    found = minisbert.load_cross_encoder(folder, backend=backend).predict(pairs, truncation="silent")
    assert (found.shape, found.dtype) == (theirs.shape, theirs.dtype)
    ours, torch_error = np.abs(found - exact), np.abs(theirs - exact)
    print(f"{folder.name}, {backend}: from torch {largest(found - theirs):.1e}; from float64 {ours.max():.1e}, "
          f"torch {torch_error.max():.1e}; means {ours.mean():.1e}, {torch_error.mean():.1e}")  # fmt: skip
    assert largest(found - theirs) <= SCORE_TOLERANCE
    assert ours.max() <= SCORE_TOLERANCE
    # The largest of two hundred errors wanders; their mean must not, though it too is a matter of a few roundings.
    assert ours.mean() <= MEAN_MARGIN * torch_error.mean()
    once = [i for i, pair in enumerate(pairs) if pairs.index(pair) == i]  # equal pairs come in any order
    ranks = (np.argsort(scores[once], axis=0, kind="stable") for scores in (found, theirs))
    np.testing.assert_array_equal(*ranks)


def test_rank(folder: Path, pairs: list[tuple[str, str]]) -> None:
    """The same dicts in the same order, but for the last digits of the scores."""
    theirs, model = reference_model(folder), minisbert.load_cross_encoder(folder)
    documents = [document for _, document in pairs]
    if model.num_labels > 1:
        with pytest.raises(ValueError, match="num_labels"):
            theirs.rank(pairs[-1][0], documents)
        pytest.skip("rank needs one label, there as here")
    expected = theirs.rank(pairs[-1][0], documents, top_k=150, return_documents=True)
    found = model.rank(pairs[-1][0], documents, top_k=150, return_documents=True, truncation="silent")
    for one, other in zip(found, expected, strict=True):
        assert list(one) == list(other)
        assert (one["corpus_id"], one["text"]) == (other["corpus_id"], other["text"])
        assert abs(one["score"] - other["score"]) <= SCORE_TOLERANCE


def test_check_against_torch(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`minisbert check --against-torch` finds every stage in order."""
    assert commands.main(["check", str(folder), "--against-torch", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    names = [stage["name"] for stage in report["stages"]]
    layers = minisbert.load_cross_encoder(folder).config.transformer.num_hidden_layers
    assert report["class"] == "CrossEncoder"
    assert names[:2] + names[2 + layers :] == ["texts with other tokens", "embeddings", "logits", "predict"]
    assert all(stage["ok"] for stage in report["stages"])
