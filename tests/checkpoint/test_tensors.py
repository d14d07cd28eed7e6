"""Reading weights: every name that is understood, every damaged file refused."""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

import minisbert
from minisbert.checkpoint.config import read_config
from minisbert.checkpoint.tensors import load_tensors
from tests.conftest import DATA, TINY, edit_json, largest, load_golden
from tests.support.weights import SENTENCE, Copy, Tensors, refused, rewrite, vector


@pytest.fixture
def folder(copy_of: Copy) -> Path:
    return copy_of("tiny-bert")


def map_of(array: Any) -> Any:
    """The map that an array looks at, or None."""
    while isinstance(array, np.ndarray):
        array = array.base
    return array


def test_all_tensors_lie_in_one_map_and_are_read_only(folder: Path) -> None:
    """A map keeps a file descriptor, and a process has few of them."""
    tensors = load_tensors(folder, read_config(folder).transformer)
    assert len(tensors) == 5 + 16 * 3
    [content] = {map_of(tensor) for tensor in tensors.values()}
    assert isinstance(content, mmap.mmap)
    assert not any(tensor.flags.writeable for tensor in tensors.values())


def test_the_word_table_is_not_copied(folder: Path) -> None:
    assert isinstance(map_of(minisbert.load(folder)._weights.embeddings.word), mmap.mmap)


def test_missing_file(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    refused(folder, minisbert.CheckpointNotFoundError, "no such file")


def test_a_pickle_is_refused_with_the_command_that_converts_it(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"never opened")
    refused(folder, minisbert.UnsupportedCheckpointError, "pytorch_model.bin", "pickle", str(folder), "cpu")


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 100, 5000, -1])
def test_truncated_file(folder: Path, size: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    refused(folder, minisbert.CheckpointError, "not a sound safetensors file")


@pytest.mark.parametrize("size", [2**63, 2**40, 10**8 + 1, 0])
def test_header_larger_than_the_file(folder: Path, size: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(size.to_bytes(8, "little") + path.read_bytes()[8:])
    refused(folder, minisbert.CheckpointError, "not a sound safetensors file")


def damaged_headers() -> dict[str, Callable[[dict[str, Any]], Any]]:
    name = "embeddings.LayerNorm.bias"

    def entry(**changes: Any) -> Callable[[dict[str, Any]], Any]:
        return lambda header: {**header, name: {**header[name], **changes}}

    return {
        "beyond the end": entry(data_offsets=[0, 10**9]),
        "backwards": entry(data_offsets=[100, 0]),
        "negative": entry(data_offsets=[-8, 0]),
        "overlapping": entry(data_offsets=[0, 4]),
        "another size": entry(shape=[10**9]),
        "overflowing": entry(shape=[2**62, 2**62]),
        "no dtype": entry(dtype="FLOAT"),
        "no offsets": lambda header: {**header, name: {"dtype": "F32", "shape": [75]}},
        "a list": lambda header: list(header),
        "nested": lambda header: {**header, name: [[[[]]]]},
    }


@pytest.mark.parametrize("damage", damaged_headers())
def test_damaged_header(folder: Path, damage: str) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(damaged_headers()[damage](json.loads(content[8 : 8 + size]))).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + size :])
    refused(folder, minisbert.CheckpointError, "not a sound safetensors file")


def test_every_missing_unknown_and_misshapen_tensor_is_named_at_once(folder: Path) -> None:
    def change(tensors: Tensors) -> None:
        del tensors["encoder.layer.1.output.dense.bias"]
        tensors["encoder.layer.1.adapter.weight"] = np.zeros(3, np.float32)
        tensors["encoder.layer.0.intermediate.dense.weight"] = np.zeros((75, 76), np.float32)

    rewrite(folder, change)
    refused(
        folder,
        minisbert.CheckpointError,
        "missing: encoder.layer.1.output.dense.bias",
        "unknown: encoder.layer.1.adapter.weight",
        "misshapen: encoder.layer.0.intermediate.dense.weight has shape (75, 76), expected (76, 75)",
    )


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num_hidden_layers", 2, "unknown: encoder.layer.2."),
        ("num_hidden_layers", 4, "missing: encoder.layer.3."),
        ("hidden_size", 78, "expected (78, 78)"),
        ("intermediate_size", 77, "expected (77, 75)"),
        ("vocab_size", 10_000, "embeddings.word_embeddings.weight has shape"),
        ("max_position_embeddings", 512, "expected (512, 75)"),
        ("type_vocab_size", 1, "expected (1, 75)"),
    ],
)
def test_a_config_that_contradicts_the_weights(folder: Path, key: str, value: int, message: str) -> None:
    edit_json(folder / "config.json", **{key: value})
    if key == "hidden_size":
        edit_json(folder / "1_Pooling" / "config.json", embedding_dimension=value)
    refused(folder, minisbert.CheckpointError, "do not fit the config.json", message)


def test_a_long_list_of_problems_is_cut(folder: Path) -> None:
    edit_json(folder / "config.json", num_hidden_layers=1000)
    refused(folder, minisbert.CheckpointError, " and ", " more")


def test_weights_of_another_family(folder: Path) -> None:
    edit_json(folder / "config.json", model_type="roberta")
    rewrite(folder, lambda tensors: {f"bert.{name}": tensor for name, tensor in tensors.items()})
    refused(folder, minisbert.CheckpointError, "missing: embeddings", "unknown: bert.embeddings")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "name", ["embeddings.word_embeddings.weight", "encoder.layer.2.output.LayerNorm.bias"]
)
def test_weights_that_are_not_finite(folder: Path, name: str, value: float) -> None:
    def change(tensors: Tensors) -> None:
        tensors[name].flat[-1] = value

    rewrite(folder, change)
    refused(folder, minisbert.CheckpointError, repr(name), "NaN, infinity")


@pytest.mark.parametrize("value", [1e300, -3.5e38])
def test_weights_that_are_beyond_float32(folder: Path, value: float) -> None:
    name = "encoder.layer.1.attention.self.query.weight"

    def change(tensors: Tensors) -> None:
        tensors[name] = tensors[name].astype(np.float64)
        tensors[name][3, 4] = value

    rewrite(folder, change)
    refused(folder, minisbert.CheckpointError, repr(name), "beyond float32")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("embeddings.LayerNorm.weight", "embeddings.LayerNorm.gamma"),
        ("embeddings.LayerNorm.bias", "bert.embeddings.LayerNorm.beta"),
        ("embeddings.word_embeddings.weight", "bert.embeddings.word_embeddings.weight"),
    ],
)
def test_two_tensors_for_one_role(folder: Path, one: str, other: str) -> None:
    def change(tensors: Tensors) -> None:
        tensors[other] = tensors[one] * 0

    rewrite(folder, change)
    for name in (one, other):
        refused(folder, minisbert.CheckpointError, repr(name), "two tensors for one role")


@pytest.mark.parametrize("family", TINY)
@pytest.mark.parametrize(
    "wrapper", ["", "0.auto_model.", "0.model.", "auto_model.", "model.", "module.0.model."]
)
def test_wrappers_and_copies(copy_of: Copy, family: str, wrapper: str) -> None:
    """The same vectors from names with a wrapper, the family's own prefix, or both at once if they agree."""
    folder = copy_of(family)
    expected = vector(folder)
    inner = read_config(folder).transformer_folder
    tensors = {
        name: tensor for path in inner.glob("*.safetensors") for name, tensor in load_file(path).items()
    }
    (inner / "model.safetensors.index.json").unlink(missing_ok=True)
    prefix = read_config(folder).transformer.family.prefix
    wrapped = {wrapper + name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    save_file(wrapped, inner / "model.safetensors")
    np.testing.assert_array_equal(vector(folder), expected)
    copies = {f"{wrapper}{prefix}{name.removeprefix(prefix)}": tensor for name, tensor in tensors.items()}
    save_file(wrapped | copies, inner / "model.safetensors")
    np.testing.assert_array_equal(vector(folder), expected)


@pytest.mark.parametrize("change", ["values", "dtype", "shape"])
def test_copies_that_differ(folder: Path, change: str) -> None:
    name = "embeddings.word_embeddings.weight"

    def copy(tensors: Tensors) -> None:
        other = tensors[name].copy()
        if change == "values":
            other[-1, -1] += 1
        tensors[f"bert.{name}"] = {"dtype": other.astype(np.float64), "shape": other[1:]}.get(change, other)

    rewrite(folder, copy)
    refused(folder, minisbert.CheckpointError, repr(name), "two tensors for one role")


@pytest.mark.parametrize("dtype", [np.int32, np.int8, np.bool_, np.complex64])
def test_weights_that_are_no_floats(folder: Path, dtype: Any) -> None:
    def change(tensors: Tensors) -> None:
        tensors["embeddings.LayerNorm.bias"] = tensors["embeddings.LayerNorm.bias"].astype(dtype)

    try:
        rewrite(folder, change)
    except (KeyError, SafetensorError):
        pytest.skip(f"this version of safetensors can't write {np.dtype(dtype)}")
    refused(folder, minisbert.UnsupportedCheckpointError, "'embeddings.LayerNorm.bias' has dtype")


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_float_widths(folder: Path, dtype: Any) -> None:
    expected = vector(folder)
    rewrite(folder, lambda tensors: {name: tensor.astype(dtype) for name, tensor in tensors.items()})
    assert largest(vector(folder) - expected) <= (2e-2 if dtype == np.float16 else 0)


def test_bfloat16_is_widened(folder: Path) -> None:
    """The same bits once as bfloat16 and once as the float32 they stand for give the same vectors."""
    path = rewrite(folder, lambda tensors: {name: upper_half(tensor) for name, tensor in tensors.items()})
    expected = vector(folder)
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    data, entries = b"", {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, stop = (8 + size + offset for offset in entry["data_offsets"])
            bits = np.frombuffer(content[start:stop], "<u2")[1::2].tobytes()
            entries[name] = {**entry, "dtype": "BF16", "data_offsets": [len(data), len(data) + len(bits)]}
            data += bits
    text = json.dumps(entries).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    np.testing.assert_array_equal(vector(folder), expected)


def upper_half(tensor: Any) -> Any:
    return (tensor.view(np.uint32) & 0xFFFF0000).view(np.float32)


def test_prefixes_old_names_and_ignored_tensors(folder: Path) -> None:
    expected = vector(folder)

    def change(tensors: Tensors) -> Tensors:
        old = {
            f"bert.{name}".replace("LayerNorm.weight", "LayerNorm.gamma").replace(
                "LayerNorm.bias", "LayerNorm.beta"
            ): t
            for name, t in tensors.items()
        }
        old["bert.embeddings.position_ids"] = np.arange(64)[None]
        old["bert.pooler.dense.weight"] = np.zeros((75, 75), np.float32)
        old["cls.predictions.bias"] = np.full(3, np.nan, np.float32)
        return old

    rewrite(folder, change)
    np.testing.assert_array_equal(vector(folder), expected)


def test_a_head_s_tensors_are_read_where_they_are_asked_for(folder: Path) -> None:
    classifier = np.arange(225, dtype=np.float32).reshape(3, 75)
    rewrite(folder, lambda tensors: {**tensors, "classifier.weight": classifier})
    config = read_config(folder).transformer
    head = (("pooler.weight", "pooler.dense.weight", "DD"), ("classifier", "classifier.weight", (3, 75)))
    found = load_tensors(folder, config, head)
    assert found["pooler.weight"].shape == (75, 75)
    np.testing.assert_array_equal(found["classifier"], classifier)
    assert "classifier" not in load_tensors(folder, config)
    with pytest.raises(minisbert.CheckpointError, match=r"missing: classifier\.bias"):
        load_tensors(folder, config, [("bias", "classifier.bias", (3,))])


def test_nothing_is_left_open(folder: Path) -> None:
    """A checkpoint can be replaced while an encoder is in use: the old weights stay."""
    encoder = minisbert.load(folder)
    expected = encoder.encode(SENTENCE)
    (folder / "model.safetensors").unlink()
    rewritten = load_file(DATA / "tiny-bert" / "model.safetensors")
    save_file({name: tensor * 0 for name, tensor in rewritten.items()}, folder / "model.safetensors")
    np.testing.assert_array_equal(encoder.encode(SENTENCE), expected)
    assert load_golden("tiny-bert")["normalised"].shape[1] == len(expected)
