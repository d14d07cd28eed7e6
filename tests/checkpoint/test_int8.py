"""Checkpoints in int8, as `minisbert.convert` writes them: how they load, and what damage is found."""

from __future__ import annotations

import copy
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import minisbert
from minisbert.checkpoint.int8 import MARKER
from minisbert.checkpoint.repository import INT8_WEIGHTS, QUANTIZATION
from minisbert.convert import convert_checkpoint
from tests.conftest import DATA, FEW, edit_json
from tests.support.fetching import NAME as HUB_NAME
from tests.support.fetching import files_of
from tests.support.hubserver import COMMIT, Hub, Repository
from tests.support.weights import QUERY, WORDS, first, setting

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert_checkpoint(DATA / "tiny-bert", tmp_path_factory.mktemp("converted") / "int8", dtype="int8")


def test_int8_is_the_default_of_its_folder_alone(int8: Path) -> None:
    encoder = minisbert.load(int8)
    assert ", int8, " in repr(encoder)
    assert minisbert.load(int8, dtype="int8")._weights is encoder._weights
    assert minisbert.load(DATA / "tiny-bert", dtype=None).dtype == "float32"
    for other in (copy.copy(encoder), pickle.loads(pickle.dumps(encoder))):
        np.testing.assert_array_equal(other.encode(FEW), encoder.encode(FEW))
    alone = [encoder.encode(text) for text in FEW]
    np.testing.assert_array_equal(np.stack(alone), encoder.encode(FEW))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", np.float32])
def test_it_computes_in_nothing_else(int8: Path, dtype: Any) -> None:
    with pytest.raises(
        minisbert.EncodeValueError, match=r"dtype is \w+, and the weights in .* are int8; expected int8"
    ):
        minisbert.load(int8, dtype=dtype)


def test_it_is_fetched_by_name(int8: Path, server: Hub, cache: Path) -> None:
    server.repositories[HUB_NAME] = Repository({COMMIT: files_of(int8)})
    expected = minisbert.load(int8).encode(FEW)
    np.testing.assert_array_equal(minisbert.load(HUB_NAME, cache_folder=cache).encode(FEW), expected)
    assert INT8_WEIGHTS in server.fetched()
    server.requests.clear()
    assert minisbert.load(HUB_NAME, cache_folder=cache).dtype == "int8"
    assert server.requests == []


DAMAGE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no scales": (lambda t: t.pop(f"{QUERY}_scale"), f"missing: {QUERY}_scale"),
    "no matrix": (lambda t: t.pop(WORDS), f"missing: {WORDS}"),
    "a shape": (
        setting(QUERY, lambda t: t[:-1].copy()),
        rf"{QUERY} has shape \(74, 75\), expected \(75, 75\)",
    ),
    "scales' shape": (setting(f"{WORDS}_scale", lambda t: t[:-1].copy()), f"{WORDS}_scale has shape"),
    "one scale": (setting(f"{QUERY}_scale", lambda t: t[:1, None]), f"{QUERY}_scale has shape"),
    "floats": (
        setting(QUERY, lambda t: t.astype(np.float32)),
        f"'{QUERY}' has dtype F32; expected I8, as {QUANTIZATION}",
    ),
    "bytes": (setting(WORDS, lambda t: t.view(np.uint8)), f"'{WORDS}' has dtype U8; expected I8"),
    "narrow scales": (
        setting(f"{QUERY}_scale", lambda t: t.astype(np.float16)),
        f"'{QUERY}_scale' has dtype F16; expected F32",
    ),
    "NaN": (setting(f"{QUERY}_scale", first(np.nan)), f"'{QUERY}_scale' holds NaN"),
    "infinity": (setting(f"{WORDS}_scale", first(np.inf)), f"'{WORDS}_scale' holds NaN, infinity"),
    "negative": (setting(f"{WORDS}_scale", first(-1)), f"'{WORDS}_scale' holds a negative number"),
    "-128": (setting(QUERY, first(-128)), f"'{QUERY}' holds -128; expected integers from -127 to 127"),
    "an integer norm": (
        setting("embeddings.LayerNorm.weight", lambda t: t.astype(np.int8)),
        "'embeddings.LayerNorm.weight' has dtype I8; supported: F64",
    ),
    "another tensor": (lambda t: t.update(more_scale=np.ones(3, np.float32)), "unknown: more_scale"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_tensor_is_named(int8: Path, tmp_path: Path, damage: str) -> None:
    folder = shutil.copytree(int8, tmp_path / "copy")
    change, message = DAMAGE[damage]
    tensors = load_file(folder / INT8_WEIGHTS)
    change(tensors)
    save_file(tensors, folder / INT8_WEIGHTS)
    with pytest.raises(minisbert.CheckpointError, match=rf"copy.{INT8_WEIGHTS}: .*{message}"):
        minisbert.load(folder)


@pytest.mark.parametrize(
    "marker",
    [{**MARKER, "version": 2}, {**MARKER, "block": 64}, {**MARKER, "more": 1}, {}, "int8", True, [1]],
)
def test_another_version_is_refused(int8: Path, tmp_path: Path, marker: Any) -> None:
    folder = shutil.copytree(int8, tmp_path / "copy")
    edit_json(folder / "config.json", **{QUANTIZATION: marker})
    message = f"config.json: {QUANTIZATION} is .*; this version of minisbert reads .*'version': 1"
    for call in (lambda: minisbert.load(folder), lambda: convert_checkpoint(folder, tmp_path / "out")):
        with pytest.raises(minisbert.UnsupportedCheckpointError, match=message):
            call()


def test_a_marker_or_weights_alone(int8: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(int8, tmp_path / "copy")
    edit_json(folder / "config.json", **{QUANTIZATION: ...})
    with pytest.raises(minisbert.CheckpointNotFoundError, match=r"model\.safetensors: there is no such file"):
        minisbert.load(folder)
    shutil.copyfile(DATA / "tiny-bert" / WEIGHTS, folder / WEIGHTS)
    assert minisbert.load(folder).dtype == "float32"
    (folder / INT8_WEIGHTS).unlink()
    edit_json(folder / "config.json", **{QUANTIZATION: MARKER})
    with pytest.raises(minisbert.CheckpointNotFoundError, match=rf"{INT8_WEIGHTS}: there is no such file"):
        minisbert.load(folder)


def test_a_file_that_is_cut(int8: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(int8, tmp_path / "copy")
    content = (folder / INT8_WEIGHTS).read_bytes()
    for size in (0, 7, 100, len(content) - 1):
        (folder / INT8_WEIGHTS).write_bytes(content[:size])
        with pytest.raises(
            minisbert.CheckpointError, match=f"{INT8_WEIGHTS}: is not a sound safetensors file"
        ):
            minisbert.load(folder)


@pytest.mark.skipif(os.name != "posix", reason="elsewhere a file that is mapped can't be written to")
def test_a_file_that_is_overwritten_is_noticed(int8: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(int8, tmp_path / "copy")
    encoder = minisbert.load(folder)
    with (folder / INT8_WEIGHTS).open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"!")
    os.utime(folder / INT8_WEIGHTS, (1, 1))
    with pytest.raises(minisbert.CheckpointError, match=f"{INT8_WEIGHTS}: was written to since"):
        encoder.encode(FEW)


def test_what_overflows_names_the_file(int8: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(int8, tmp_path / "copy")
    tensors = load_file(folder / INT8_WEIGHTS)
    tensors["encoder.layer.0.output.LayerNorm.bias"][:] = 3e38
    save_file(tensors, folder / INT8_WEIGHTS)
    with pytest.raises(
        minisbert.CheckpointError, match=f"{INT8_WEIGHTS}: gives NaN or infinity for sentence 0"
    ):
        minisbert.load(folder).encode(FEW)
