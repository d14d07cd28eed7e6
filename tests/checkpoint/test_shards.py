"""Weights in several files, and the index that says which tensor is in which."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import minisbert
from tests.support.weights import Copy, refused, vector


@pytest.fixture
def sharded(copy_of: Copy) -> Path:
    return copy_of("tiny-xlm-roberta")


def edit_index(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    change(index["weight_map"])
    path.write_text(json.dumps(index))


def test_one_file_goes_before_an_index(sharded: Path) -> None:
    expected = vector(sharded)
    tensors = {
        name: tensor for path in sharded.glob("*.safetensors") for name, tensor in load_file(path).items()
    }
    save_file(tensors, sharded / "model.safetensors")
    edit_index(sharded, lambda places: places.clear())
    np.testing.assert_array_equal(vector(sharded), expected)


def test_an_index_of_nothing(sharded: Path) -> None:
    edit_index(sharded, lambda places: places.clear())
    refused(sharded, minisbert.CheckpointError, "index.json", "missing: embeddings.word_embeddings.weight")


@pytest.mark.parametrize("content", ["{}", "[]", '{"weight_map": []}', "{", '{"weight_map": {"a": 3}}'])
def test_a_damaged_index(sharded: Path, content: str) -> None:
    (sharded / "model.safetensors.index.json").write_text(content)
    refused(sharded, minisbert.CheckpointError, "model.safetensors.index.json")


@pytest.mark.parametrize(
    "shard",
    ["../model.safetensors", "/etc/model.safetensors", "a/b.safetensors", "..\\b.safetensors", "C:b.safetensors",
     "a\0.safetensors", "model.bin", "..", "", None, ["model.safetensors"]],
)  # fmt: skip
def test_an_index_that_leads_elsewhere(sharded: Path, shard: Any) -> None:
    edit_index(sharded, lambda places: places.update({"roberta.embeddings.LayerNorm.bias": shard}))
    refused(
        sharded, minisbert.CheckpointError, "index.json", "expected the name of a safetensors file beside"
    )


def test_a_missing_shard(sharded: Path) -> None:
    (sharded / "model-00002-of-00002.safetensors").unlink()
    refused(sharded, minisbert.CheckpointNotFoundError, "00002.safetensors", "index.json names it")


def test_a_truncated_shard(sharded: Path) -> None:
    path = sharded / "model-00002-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    refused(sharded, minisbert.CheckpointError, path.name, "not a sound safetensors file")


def test_tensors_that_are_not_where_the_index_says(sharded: Path) -> None:
    name = "roberta.embeddings.LayerNorm.bias"
    message = ("index.json", repr(name), "not to both")
    index = (sharded / "model.safetensors.index.json").read_text()
    edit_index(sharded, lambda places: places.update({name: "model-00002-of-00002.safetensors"}))
    refused(sharded, minisbert.CheckpointError, *message)
    (sharded / "model.safetensors.index.json").write_text(index)
    edit_index(sharded, lambda places: places.pop(name))
    refused(sharded, minisbert.CheckpointError, *message)


def test_a_tensor_that_is_in_two_shards(sharded: Path) -> None:
    name = "roberta.embeddings.LayerNorm.bias"
    path = sharded / "model-00002-of-00002.safetensors"
    save_file({**load_file(path), name: np.ones(24, np.float32)}, path)
    refused(sharded, minisbert.CheckpointError, "index.json", repr(name), "not to both")


def test_pickles_with_an_index_are_refused(copy_of: Copy) -> None:
    folder = copy_of("tiny-bert")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin.index.json").write_text("{}")
    refused(folder, minisbert.UnsupportedCheckpointError, "pytorch_model.bin", "pickle", "pytorch_model*.bin")
