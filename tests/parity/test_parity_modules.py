"""Live parity of the modules after the transformer, where torch is installed: see `test_parity`."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minisbert
from minisbert.cli import parity
from tests.conftest import DATA, edit_json, largest
from tests.support import pipelines, texts
from tests.support.pipelines import CASES, STYLES

pytest.importorskip("torch", reason="torch is not installed: python tools/dev.py test --parity installs it")
pytest.importorskip(
    "sentence_transformers", reason="sentence-transformers is not installed: see test_parity.py"
)

SENTENCES = [*pipelines.TEXTS, *texts.all_texts()[::40]]


@pytest.fixture(scope="module")
def load() -> Any:
    """Load a checkpoint with the reference implementation."""
    from tools.golden import make as make_golden

    make_golden.torch.set_num_threads(1)  # more would be slower for so small a model
    return make_golden.load


def encode(encoder: Any, case: pipelines.Case, **more: Any) -> Any:
    """Encode with either implementation: (S, D), or (N, D) for tokens."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch on softmax; texts that are cut
        found = encoder.encode(SENTENCES, prompt=case.prompt, output_value=case.output_value, **more)
    return found if case.output_value == "sentence_embedding" else np.concatenate(found)


@pytest.mark.parametrize("name", CASES)
def test_every_pipeline(load: Any, tmp_path: Path, name: str) -> None:
    """float64 within 1e-12, and float32 within 2e-6, of the largest component."""
    case = CASES[name]
    folder = pipelines.build(tmp_path / "model", DATA / "tiny-bert", case.modules)
    expected = encode(load(folder).double(), case, batch_size=1)
    torch_error, size = largest(encode(load(folder), case) - expected), np.abs(expected).max()
    for backend, dtype in (("auto", "float32"), ("reference", "float32"), ("reference", "float64")):
        error = largest(encode(minisbert.load(folder, backend=backend, dtype=dtype), case) - expected)
        print(f"{name:50} {backend:10} {dtype} {error:.1e} (torch float32 {torch_error:.1e}) of {size:.1e}")
        assert error <= {"float32": 2e-6, "float64": 1e-12}[dtype] * size


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("kind", ["Normalize", "Dense", "LayerNorm", "Dropout", "WeightedLayerPooling"])
def test_every_type_name(load: Any, tmp_path: Path, kind: str, style: str) -> None:
    case = next(case for case in CASES.values() if kind in dict(case.modules))
    folder = pipelines.build(tmp_path / "model", DATA / "tiny-bert", case.modules, style)
    expected = encode(load(folder).double(), case, batch_size=1)
    found = encode(minisbert.load(folder, dtype="float64"), case)
    assert largest(found - expected) <= 1e-12 * np.abs(expected).max()


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"pooling_mode_cls_token": False},
        {"pooling_mode_mean_tokens": False},
        {"pooling_mode_cls_token": True},
        {"pooling_mode_lasttoken": True, "pooling_mode_max_tokens": True},
        {"pooling_mode": ["lasttoken", "max"], "pooling_mode_max_tokens": True},
        {"pooling_mode": "cls", "include_prompt": None},
        {"pooling_mode": ["weightedmean"], "include_prompt": False},
    ],
)
def test_settings_of_a_pooling(load: Any, tmp_path: Path, settings: dict[str, Any]) -> None:
    folder = pipelines.build(tmp_path / "model", DATA / "tiny-bert", (pipelines.pooling("mean"),))
    values = {"word_embedding_dimension": 75, "embedding_dimension": ..., "pooling_mode": ..., **settings}
    edit_json(folder / "1_Pooling" / "config.json", **values)
    case = pipelines.Case((), pipelines.PROMPT)
    expected = encode(load(folder).double(), case, batch_size=1)
    found = encode(minisbert.load(folder, dtype="float64"), case)
    assert largest(found - expected) <= 1e-12 * np.abs(expected).max()


def test_without_modules_json(load: Any, tmp_path: Path) -> None:
    folder = pipelines.build(tmp_path / "model", DATA / "tiny-bert", (pipelines.pooling("cls"),))
    for name in ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"):
        (folder / name).unlink()
    case = pipelines.Case(())
    expected = encode(load(folder).double(), case, batch_size=1)
    assert largest(encode(minisbert.load(folder, dtype="float64"), case) - expected) <= 1e-13


def test_what_sentence_transformers_saves(load: Any, tmp_path: Path) -> None:
    """Every kind of module, as the installed version writes it."""
    stack = (
        pipelines.weighted_layers(1),
        pipelines.on_tokens(pipelines.dense(20)),
        pipelines.pooling("mean", "cls", width=20, include_prompt=False),
        pipelines.dense(30, "PReLU", width=40, use_residual=True),
        ("LayerNorm", {"dimension": 30}),
        pipelines.DROPOUT,
        pipelines.NORMALIZE,
    )
    model = load(pipelines.build(tmp_path / "model", DATA / "tiny-bert", stack))
    model.save(str(tmp_path / "saved"), create_model_card=False)
    case = pipelines.Case((), pipelines.PROMPT)
    expected = encode(model.double(), case, batch_size=1)
    found = encode(minisbert.load(tmp_path / "saved", dtype="float64"), case)
    assert largest(found - expected) <= 1e-13


@pytest.mark.parametrize(
    "stack",
    [
        (pipelines.dense(), pipelines.pooling("mean")),
        (pipelines.NORM, pipelines.pooling("mean")),
        (pipelines.DROPOUT, pipelines.pooling("mean")),
        (pipelines.NORMALIZE,),
        (pipelines.pooling("mean"), pipelines.dense(width=76)),
        (pipelines.pooling("mean", "cls"), pipelines.NORM),
        (pipelines.pooling("mean"), pipelines.dense(activation="Softmax2d")),
        (pipelines.weighted_layers(num_hidden_layers=12), pipelines.pooling("mean")),
    ],
)
def test_what_is_refused_fails_in_the_reference_too(load: Any, tmp_path: Path, stack: Any) -> None:
    folder = pipelines.build(tmp_path / "model", DATA / "tiny-bert", stack)
    with pytest.raises(minisbert.CheckpointError):
        minisbert.load(folder)
    with pytest.raises((KeyError, RuntimeError, AssertionError, ValueError)):
        load(folder).encode(["a"])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_are_as_stored_whatever_config_json_says(tmp_path: Path, dtype: str) -> None:
    shutil.copytree(DATA / "tiny-bert", folder := tmp_path / "model")
    edit_json(folder / "config.json", dtype=dtype)
    assert all(stage.ok for stage in parity.compare(minisbert.load(folder)))


@pytest.mark.parametrize("name", ["tiny-bert", "tiny-roberta", "tiny-xlm-roberta", "tiny-mpnet"])
@pytest.mark.parametrize("key", ["cls_token", "sep_token", "bos_token", "eos_token"])
def test_other_tokens_round_a_text(tmp_path: Path, name: str, key: str) -> None:
    shutil.copytree(DATA / name, folder := tmp_path / "model")
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    mask = next(token["content"] for token in tokenizer["added_tokens"] if "mask" in token["content"].lower())
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer | {"post_processor": None}), encoding="utf-8")
    edit_json(folder / "tokenizer_config.json", **{key: mask})
    assert all(stage.ok for stage in parity.compare(minisbert.load(folder)))
