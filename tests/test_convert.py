"""Checkpoints in fewer bits: what is written, what it gives, and what is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

import minisbert
from minisbert import convert
from minisbert.arrays import Int8Rows
from minisbert.checkpoint.config import read_config
from minisbert.checkpoint.int8 import MARKER
from minisbert.checkpoint.repository import INT8_WEIGHTS, QUANTIZATION
from minisbert.convert import convert_checkpoint
from minisbert.kernels.reference import narrow
from tests.conftest import DATA, FEW, edit_json
from tests.support import pipelines, texts
from tests.support.backends import NAME
from tests.support.fetching import files_of
from tests.support.weights import QUERY, first, rewrite, setting

WEIGHTS = "model.safetensors"
# 1 - cosine, in the mean and at worst: 1.4e-7 and 1.0e-6, 8.9e-6 and 3.2e-5, 4.0e-4 and 1.4e-3 were measured.
COST = {"float16": (3e-7, 2e-6), "bfloat16": (1.6e-5, 1e-4), "int8": (4.5e-4, 3e-3)}


def converted(folder: Path, tmp_path: Path, dtype: str = "int8") -> Path:
    return convert_checkpoint(folder, tmp_path / dtype, dtype=dtype)


def settings(folder: Path) -> dict[str, Any]:
    """All files but the weights and their index."""
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("model")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def costs(found: Any, exact: Any) -> Any:
    found, exact = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (found.astype(float), exact))
    return np.square(found - exact).sum(axis=1) / 2


# --- float16 and bfloat16 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_matrices_are_narrow_and_all_else_is_as_it_was(tiny: Path, tmp_path: Path, dtype: str) -> None:
    folder = converted(tiny, tmp_path, dtype)
    assert os.listdir(tmp_path) == [dtype]
    before, after = settings(tiny), settings(folder)
    inside = read_config(tiny).transformer_folder.relative_to(tiny)
    config = json.loads(before.pop((inside / "config.json").as_posix()))
    keys = {"dtype", "torch_dtype"} & config.keys() or {"torch_dtype"}
    assert json.loads(after.pop((inside / "config.json").as_posix())) == config | dict.fromkeys(keys, dtype)
    assert before == after
    names = [{path.name for path in (place / inside).glob("model*")} for place in (tiny, folder)]
    assert names[0] == names[1]
    rounded = {"float16": narrow.to_float16, "bfloat16": narrow.to_bfloat16}[dtype]
    for path in (tiny / inside).glob("*.safetensors"):
        with safe_open(path, "numpy") as old, safe_open(folder / inside / path.name, "numpy") as new:
            assert new.metadata() == {"format": "pt"}
            assert set(old.keys()) == set(new.keys())
            shapes = {name: old.get_slice(name).get_shape() for name in old.keys()}  # noqa: SIM118
            for name, shape in shapes.items():
                is_matrix = len(shape) > 1 and old.get_slice(name).get_dtype() != "I64"
                kind = {"float16": "F16", "bfloat16": "BF16"}[dtype]
                expected = kind if is_matrix else old.get_slice(name).get_dtype()
                assert (new.get_slice(name).get_dtype(), new.get_slice(name).get_shape()) == (expected, shape)
    tensors, wide = (minisbert.load(place)._weights for place in (folder, tiny))
    np.testing.assert_array_equal(
        tensors.embeddings.position, rounded(np.asarray(wide.embeddings.position, np.float32))
    )
    np.testing.assert_array_equal(tensors.embeddings.norm.bias, wide.embeddings.norm.bias)


def test_shards_stay_shards(tmp_path: Path) -> None:
    source = DATA / "tiny-xlm-roberta"
    folder = converted(source, tmp_path, "float16")
    old, new = (json.loads((place / f"{WEIGHTS}.index.json").read_text()) for place in (source, folder))
    assert new["weight_map"] == old["weight_map"]
    assert len(set(new["weight_map"].values())) > 1
    found = [tensor for path in folder.glob("*.safetensors") for tensor in load_file(path).values()]
    assert new["metadata"]["total_size"] == sum(tensor.nbytes for tensor in found)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_an_encoder_in_that_dtype_computes_as_on_the_original(tmp_path: Path, dtype: str) -> None:
    """The matrices are the same, and only the tables of embeddings were wider."""
    exact = minisbert.load(DATA / "tiny-bert", dtype=dtype)
    encoder = minisbert.load(converted(DATA / "tiny-bert", tmp_path, dtype), dtype=dtype)
    for layer, expected in zip(encoder._weights.layers, exact._weights.layers, strict=True):
        for dense in ("query_key_value", "output"):
            panels = [getattr(weights.attention, dense).panels for weights in (layer, expected)]
            np.testing.assert_array_equal(*panels)
    assert minisbert.load(encoder.path).dtype == "float32"


@pytest.mark.parametrize("dtype", COST)
def test_what_it_costs_on_a_real_checkpoint(minilm: Path, tmp_path: Path, dtype: str) -> None:
    some = [text[:200] for text in texts.all_texts()[::6]]
    exact = minisbert.load(minilm, backend=NAME).encode(some, truncation="silent").astype(float)
    folder = converted(minilm, tmp_path, dtype)
    found = minisbert.load(folder, backend=NAME).encode(some, truncation="silent")
    cost, (mean, worst) = costs(found, exact), COST[dtype]
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    print(f"\n{dtype}: {size:,} bytes; 1 - cos {cost.mean():.2e} in the mean, {cost.max():.2e} at worst")
    assert cost.mean() <= mean
    assert cost.max() <= worst
    assert size <= {"float16": 46e6, "bfloat16": 46e6, "int8": 24e6}[dtype]


# --- int8 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", [NAME, "reference"])
def test_int8_is_that_of_the_original_bit_for_bit_but_for_the_words(
    tiny: Path, tmp_path: Path, backend: str
) -> None:
    original = minisbert.load(tiny, backend=backend, dtype="int8")
    encoder = minisbert.load(converted(tiny, tmp_path), backend=backend)
    assert (encoder.dtype, encoder.num_parameters) == ("int8", original.num_parameters)
    table = encoder._weights.embeddings.word
    exact = np.asarray(original._weights.embeddings.word, np.float32)
    assert table.scales.shape == (len(exact), 1)
    steps = np.abs(table[np.arange(len(exact))] - exact) / np.maximum(table.scales, 1e-30)
    assert steps.max() <= 0.5 + 1e-4
    embeddings = encoder._weights.embeddings._replace(word=exact)
    encoder._weights, encoder._plans = encoder._weights._replace(embeddings=embeddings), {}
    some = texts.all_texts()[::40]
    np.testing.assert_array_equal(*(e.encode(some, truncation="silent") for e in (encoder, original)))


def test_the_layout_is_what_is_documented(tmp_path: Path) -> None:
    folder = converted(DATA / "tiny-electra", tmp_path)  # which has a projection
    config = json.loads((DATA / "tiny-electra" / "config.json").read_text())
    assert json.loads((folder / "config.json").read_text()) == config | {QUANTIZATION: MARKER}
    assert not (folder / WEIGHTS).exists()
    stored, new = load_file(DATA / "tiny-electra" / WEIGHTS), load_file(folder / INT8_WEIGHTS)
    modern = ("electra.", ""), ("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")
    old = {reduce(lambda n, pair: n.replace(*pair), modern, name): stored[name] for name in stored}
    for name, tensor in new.items():
        if f"{name}_scale" in new:
            scales = new[f"{name}_scale"]
            is_table = "word_embeddings" in name
            shape = (len(tensor), 1) if is_table else (len(tensor),)
            assert (tensor.dtype, scales.dtype, scales.shape) == (np.int8, np.float32, shape)
            again = tensor * scales.reshape(-1, 1)
            again = again if is_table else narrow.rotate(again)[0]
            error = np.abs(again - old[name]).max()
            assert error <= 0.5 * scales.max() * (1 if is_table else 32)
        elif not name.endswith("_scale"):
            assert tensor.dtype == np.float32
            np.testing.assert_array_equal(tensor, old[name].astype(np.float32))
    assert {"embeddings_project.weight_scale", "embeddings.word_embeddings.weight_scale"} <= new.keys()


def test_a_table_has_a_scale_for_each_128_numbers_of_a_row() -> None:
    table = np.random.default_rng(0).standard_normal((9, 300)).astype(np.float32)
    table[:, 5] *= 100  # whose block alone has large steps
    table[3, 128:256] = 0
    numbers, scales = convert._rows_of_table(table)
    assert (numbers.shape, scales.shape) == ((9, 300), (9, 3))
    ids = np.array([8, 3, 3, 0])
    found = Int8Rows(numbers, scales)[ids]
    assert found.dtype == np.float32
    steps = np.stack([np.abs(table[:, i : i + 128]).max(axis=1) / 127 for i in (0, 128, 256)], axis=1)
    np.testing.assert_allclose(scales, steps, rtol=1e-6)
    wide = np.repeat(steps, 128, axis=1)[:, :300]
    assert (np.abs(found - table[ids]) <= 0.5001 * wide[ids]).all()


def test_tables_are_rounded_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = converted(DATA / "tiny-bert", tmp_path)
    monkeypatch.setattr(convert, "ROWS", 7)
    pieces = convert_checkpoint(DATA / "tiny-bert", tmp_path / "pieces", dtype="int8")
    assert files_of(whole) == files_of(pieces)


@pytest.mark.parametrize("dtype", ["float16", "int8"])
@pytest.mark.parametrize("name", ["cross-bert", "cross-labels", "cross-roberta", "cross-mpnet"])
def test_cross_encoders(cross_folder: Callable[[str], Path], tmp_path: Path, name: str, dtype: str) -> None:
    folder = cross_folder(name)
    exact = minisbert.load_cross_encoder(folder)
    model = minisbert.load_cross_encoder(converted(folder, tmp_path, dtype))
    assert model.dtype == ("int8" if dtype == "int8" else "float32")
    assert model.num_parameters == exact.num_parameters
    some = texts.pairs()[::20]
    options: dict[str, Any] = {"truncation": "silent", "activation_fn": "Identity"}
    found, expected = model.predict(some, **options), exact.predict(some, **options)
    spread = max(expected.std(), 0.1)
    assert np.abs(found - expected).max() <= {"float16": 0.01, "int8": 0.5}[dtype] * spread


def test_modules_stay_as_they_are_and_a_transformer_in_a_folder_stays_there(tmp_path: Path) -> None:
    modules = (pipelines.pooling("mean", width=75), pipelines.dense(width=75), pipelines.NORMALIZE)
    source = pipelines.build(tmp_path / "source", DATA / "tiny-bert", modules)
    lines = json.loads((source / "modules.json").read_text())
    lines[0]["path"] = "0_Transformer"
    (source / "modules.json").write_text(json.dumps(lines))
    inside = source / "0_Transformer"
    inside.mkdir()
    for path in [path for path in source.iterdir() if path.is_file() and path.name != "modules.json"]:
        path.rename(inside / path.name)
    expected = minisbert.load(source, dtype="int8").encode(FEW)
    folder = converted(source, tmp_path)
    assert sorted(path.name for path in folder.rglob("*.safetensors")) == [INT8_WEIGHTS, WEIGHTS]
    assert (folder / "2_Dense" / WEIGHTS).read_bytes() == (source / "2_Dense" / WEIGHTS).read_bytes()
    assert costs(minisbert.load(folder).encode(FEW), expected.astype(float)).max() <= 1e-2


def test_links_are_followed_and_other_programs_weights_left_behind(
    copy_of: Callable[[str], Path], tmp_path: Path
) -> None:
    source = copy_of("tiny-bert")
    (source / "onnx").mkdir()
    for name in ("pytorch_model.bin", "onnx/model.onnx", "rust_model.ot", "run.py", ".gitattributes"):
        (source / name).write_bytes(b"not to be copied")
    (source / "real.txt").write_text("linked")
    (source / "LICENSE.txt").symlink_to(source / "real.txt")
    folder = converted(source, tmp_path)
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    here = {path.relative_to(DATA / "tiny-bert").as_posix() for path in (DATA / "tiny-bert").rglob("*.json")}
    assert names == {*here, INT8_WEIGHTS, "LICENSE.txt", "real.txt"}
    assert not (folder / "LICENSE.txt").is_symlink()


# --- what is refused --------------------------------------------------------------------------------------------


def test_a_folder_that_is_there_is_left_alone(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    source = copy_of("tiny-bert")
    before = files_of(source)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").symlink_to(tmp_path / "nothing")
    for target in (source, tmp_path / "empty", tmp_path / "broken", source / WEIGHTS):
        with pytest.raises(minisbert.EncodeValueError, match=f"{target}: there is such a file or folder"):
            convert_checkpoint(source, target)
    with pytest.raises(minisbert.EncodeValueError, match=r"there is no folder .*missing; make it first"):
        convert_checkpoint(source, tmp_path / "missing" / "out")
    assert files_of(source) == before
    assert convert_checkpoint(source, source / "inside", dtype="int8") == source / "inside"


@pytest.mark.parametrize("dtype", ["float32", "int4", "", None, ["int8"]])
def test_other_dtypes(tmp_path: Path, dtype: Any) -> None:
    with pytest.raises(
        minisbert.EncodeValueError, match=r"dtype is .*; expected one of float16, bfloat16, int8"
    ):
        convert_checkpoint(DATA / "tiny-bert", tmp_path / "out", dtype=dtype)


@pytest.mark.parametrize(("first", "second"), [("int8", "int8"), ("int8", "float16"), ("float16", "float16")])
def test_what_is_converted_already(tmp_path: Path, first: str, second: str) -> None:
    once = converted(DATA / "tiny-bert", tmp_path, first)
    with pytest.raises(minisbert.CheckpointError, match=f"the weights are {first} already; convert the orig"):
        convert_checkpoint(once, tmp_path / "twice", dtype=second)
    assert os.listdir(tmp_path) == [first]


def test_float16_becomes_int8(tmp_path: Path) -> None:
    once = converted(DATA / "tiny-bert", tmp_path, "float16")
    twice = converted(once, tmp_path)
    assert json.loads((twice / "config.json").read_text())["dtype"] == "float16"  # what it came from
    expected = minisbert.load(once, dtype="int8").encode(FEW).astype(float)
    assert costs(minisbert.load(twice).encode(FEW), expected).max() <= 1e-2


@pytest.mark.parametrize("name", [QUERY, "pooler.dense.weight"])
def test_a_weight_that_float16_does_not_reach(
    copy_of: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    source = copy_of("tiny-bert")
    for value, is_reached in ((65519, True), (65520, False), (-7e4, False)):
        rewrite(source, setting(name, first(value)))
        if is_reached:
            convert_checkpoint(source, tmp_path / "reached")
            continue
        message = (
            rf"{WEIGHTS}: the tensor '{name}' has a weight of \S+, which float16 does not reach; convert to"
        )
        with pytest.raises(minisbert.CheckpointError, match=message):
            convert_checkpoint(source, tmp_path / "out")
        assert not (tmp_path / "out").exists()
    convert_checkpoint(source, tmp_path / "wide", dtype="bfloat16")


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_what_load_refuses(copy_of: Callable[[str], Path], tmp_path: Path, dtype: str) -> None:
    source = copy_of("tiny-bert")
    rewrite(source, setting(QUERY, first(np.nan)))
    with pytest.raises(minisbert.CheckpointError, match=f"the tensor '{QUERY}' holds NaN"):
        converted(source, tmp_path, dtype)
    rewrite(source, lambda tensors: {name: tensors[name] for name in tensors if name != QUERY})
    with pytest.raises(minisbert.CheckpointError, match=f"missing: {QUERY}"):
        converted(source, tmp_path, dtype)
    edit_json(source / "config.json", model_type="gpt2")
    with pytest.raises(minisbert.UnsupportedCheckpointError, match="model_type"):
        converted(source, tmp_path, dtype)
    with pytest.raises(minisbert.CheckpointNotFoundError):
        converted(tmp_path / "nothing", tmp_path, dtype)
    assert os.listdir(tmp_path) == ["tiny-bert"]


def test_an_interruption_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(tensors: int) -> None:
        assert len(os.listdir(tmp_path)) == 1  # the unfinished one
        raise KeyboardInterrupt

    for dtype in ("float16", "int8"):
        with pytest.raises(KeyboardInterrupt):
            convert_checkpoint(DATA / "tiny-bert", tmp_path / "out", dtype=dtype, progress=interrupt)
        assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="the limits of POSIX")
@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_a_full_disk_is_an_error(tmp_path: Path, dtype: str) -> None:
    """A limit on the size of files stands for it; it strikes in the middle, or only at the end."""
    import resource

    size = max(path.stat().st_size for path in converted(DATA / "tiny-bert", tmp_path, dtype).iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for most in (100, size - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
        try:
            with pytest.raises(OSError, match="File too large") as info:
                convert_checkpoint(DATA / "tiny-bert", tmp_path / "out", dtype=dtype)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert info.value.filename == str(tmp_path / "out")
        assert os.listdir(tmp_path) == [dtype]


def test_progress_counts_tensors(tmp_path: Path) -> None:
    for dtype in ("float16", "int8"):
        done: list[int] = []
        folder = convert_checkpoint(DATA / "tiny-bert", tmp_path / dtype, dtype=dtype, progress=done.append)
        [path] = folder.glob("*.safetensors")
        assert sum(done) == len(load_file(path))
