"""The trained checkpoint: what is in its folder, and that it is the base's in all that was not trained."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import minisbert
from minisbert.kernels.reference import ops
from minisbert.training import fit
from tests.conftest import DATA, edit_json
from tests.support import pipelines
from tests.support.training import Trained, some_rows

pytestmark = pytest.mark.filterwarnings("ignore::minisbert.TruncationWarning")
ROWS = some_rows(12, 2)
TEXTS = [text for row in ROWS for text in row]


def train(base: Path, out: Path, dtype: str = "float32", **more: object) -> minisbert.SentenceEncoder:
    options: dict[str, Any] = {"batch_size": 4, "lr": 1e-3, "num_threads": 1, "dtype": dtype, **more}
    fit(base, ROWS, out, **options)
    return minisbert.load(out, backend="reference", dtype=dtype)


def test_the_folder(tmp_path: Path) -> None:
    train(DATA / "tiny-bert", tmp_path / "out")
    found = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*")}
    assert found - {"loss.png"} == {
        "1_Pooling", "1_Pooling/config.json", "2_Normalize", "2_Normalize/config.json", "README.md", "config.json",
        "config_sentence_transformers.json", "model.safetensors", "modules.json", "sentence_bert_config.json",
        "tokenizer.json", "tokenizer_config.json", "train.jsonl",
    }  # fmt: skip
    assert ("loss.png" in found) == (find_spec("matplotlib") is not None)
    base, out = (
        json.loads((folder / "modules.json").read_text()) for folder in (DATA / "tiny-bert", tmp_path / "out")
    )
    assert base == out


def test_every_family_gives_the_vectors_of_its_weights(tiny: Path, tmp_path: Path) -> None:
    encoder = train(tiny, tmp_path / "out", "float64")
    np.testing.assert_allclose(
        encoder.encode(TEXTS), Trained(tmp_path / "out").model.encode(TEXTS), atol=1e-14
    )
    before = minisbert.load(tiny, backend="reference", dtype="float64").encode(TEXTS)
    assert np.abs(encoder.encode(TEXTS) - before).max() > 1e-3


def test_names_and_what_is_not_trained_are_those_of_the_base(tiny: Path, tmp_path: Path) -> None:
    train(tiny, tmp_path / "out")
    base, out = (
        {
            name: a
            for path in folder.rglob("*.safetensors")
            for name, a in load_file(path).items()
            if "_ids" not in name
        }
        for folder in (tiny, tmp_path / "out")
    )
    assert {name: a.shape for name, a in out.items()} == {name: a.shape for name, a in base.items()}
    same = {name for name in base if np.array_equal(base[name], out[name])}
    trained = re.compile(r"(embeddings|layer|relative_attention_bias|embeddings_project)\b")
    assert {name for name in same if trained.search(name)} == set()


@pytest.mark.parametrize(
    "name", ["dense PReLU", "layers", "layer norm", "dropout", "dense of tokens", "pooling all, old"]
)
def test_modules(tmp_path: Path, name: str) -> None:
    base = pipelines.build(tmp_path / "base", DATA / "tiny-bert", pipelines.CASES[name].modules, "2")
    encoder = train(base, tmp_path / "out", "float64")
    np.testing.assert_allclose(
        encoder.encode(TEXTS), Trained(tmp_path / "out").model.encode(TEXTS), atol=1e-13
    )


@pytest.mark.parametrize(
    ("name", "modes"),
    [("pooling mean", "mean"), ("pooling all, old", [*ops.POOLINGS]), ("pooling none, old", "mean")],
)
def test_poolings_have_today_s_settings(tmp_path: Path, name: str, modes: object) -> None:
    base = pipelines.build(tmp_path / "base", DATA / "tiny-bert", pipelines.CASES[name].modules)
    encoder = train(base, tmp_path / "out", lr=1e-12)
    settings = json.loads((tmp_path / "out" / "1_Pooling" / "config.json").read_text())
    assert settings == {"embedding_dimension": 75, "pooling_mode": modes, "include_prompt": True}
    np.testing.assert_allclose(
        encoder.encode(TEXTS), minisbert.load(base, backend="reference").encode(TEXTS), atol=1e-5
    )


def test_a_base_without_modules(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    base = copy_of("tiny-bert")
    for name in ("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"):
        (base / name).unlink()
    encoder = train(base, tmp_path / "out")
    assert [type(module).__name__ for module in encoder.config.modules] == ["Pooling"]
    assert (
        json.loads((tmp_path / "out" / "1_Pooling" / "config.json").read_text())["embedding_dimension"] == 75
    )


def test_a_base_whose_transformer_has_a_folder(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    base = copy_of("tiny-bert")
    (base / "0_Transformer").mkdir()
    for path in base.glob("*"):
        if path.is_file() and path.name not in ("modules.json", "config_sentence_transformers.json"):
            path.rename(base / "0_Transformer" / path.name)
    lines = json.loads((base / "modules.json").read_text())
    lines[0]["path"] = "0_Transformer"
    (base / "modules.json").write_text(json.dumps(lines))
    train(base, tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_a_base_in_shards_and_fewer_bits(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    base = copy_of("tiny-bert")
    tensors = load_file(base / "model.safetensors")
    (base / "model.safetensors").unlink()
    half = {name: array.astype(np.float16) for name, array in tensors.items()}
    shards = {f"model-{i}.safetensors": dict(list(half.items())[i::2]) for i in range(2)}
    for name, part in shards.items():
        save_file(part, base / name)
    where = {tensor: name for name, part in shards.items() for tensor in part}
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}))
    edit_json(base / "config.json", dtype="float16")
    train(base, tmp_path / "out")
    with safe_open(tmp_path / "out" / "model.safetensors", framework="numpy") as file:
        assert set(file.keys()) == set(tensors)
        assert file.get_tensor("embeddings.LayerNorm.weight").dtype == np.float32
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == "float32"


def test_the_card_and_the_log(tmp_path: Path) -> None:
    train(DATA / "tiny-bert", tmp_path / "out", evaluation=4, epochs=2, evaluation_steps=1)
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: sentence-transformers\n")
    assert "- data: 8 rows" in card
    assert '"batch_size": 4' in card
    log = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log if "loss" in entry] == [1, 2, 3, 4]
    scores = {entry["step"]: entry["mrr@10"] for entry in log if "mrr@10" in entry}
    assert list(scores) == [0, 1, 2, 3, 4]
    best = max(scores, key=lambda step: scores[step])
    assert f"| {best} | {scores[best]:.4f}, kept |\n" in card


def test_the_best_weights_are_kept(tmp_path: Path) -> None:
    rows = some_rows(60, 2)
    record = fit(
        DATA / "tiny-distilbert", rows[:40], tmp_path / "out", batch_size=8, lr=0.03, epochs=2, num_threads=1,
        evaluation=rows[40:], evaluation_steps=2,
    )  # fmt: skip
    scores = dict(record.evaluations)
    assert scores[record.best_step] == max(scores.values()) > min(scores.values())
    encoder = minisbert.load(tmp_path / "out")
    anchors, positives = (encoder.encode(list(column)) for column in zip(*rows[40:], strict=True))
    ranks = (anchors @ positives.T >= np.diagonal(anchors @ positives.T)[:, np.newaxis]).sum(axis=1)
    assert (1 / ranks)[ranks <= 10].sum() / 20 == pytest.approx(scores[record.best_step], abs=0.02)
