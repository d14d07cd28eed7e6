"""Modules beside Pooling: which stacks fit together, their settings and weights, every refusal by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import minisbert
from minisbert.checkpoint.config import read_config
from tests.checkpoint.test_config import refused
from tests.conftest import DATA, edit_json
from tests.support import pipelines
from tests.support.pipelines import DROPOUT, NORM, NORMALIZE, Spec, dense, on_tokens, pooling, weighted_layers


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Path]:
    """Write a checkpoint of the tiny BERT and the modules given."""
    return lambda *modules: pipelines.build(tmp_path / "model", DATA / "tiny-bert", modules)


def modules(folder: Path) -> str:
    """The modules after the transformer as `minisbert info` shows them."""
    return " -> ".join(map(str, read_config(folder).modules))


MEAN, NORM_OF_8 = pooling("mean"), ("LayerNorm", {"dimension": 8})


@pytest.mark.parametrize(
    ("stack", "expected", "width"),
    [
        ((pooling("mean", "cls"), dense(20, width=150)), "Dense (150 -> 20, tanh)", 20),
        ((on_tokens(dense(12, "ReLU")), pooling("max", width=12)), "Dense (75 -> 12, relu) of token_embeddings", 12),
        ((MEAN, dense(9, "Identity", use_residual=True)), "Dense (75 -> 9, identity, residual)", 9),
        ((MEAN, on_tokens(dense(9))), "Dense (75 -> 9, tanh) of token_embeddings", 75),
        ((MEAN, NORM, DROPOUT), "LayerNorm -> Dropout", 75),
        ((on_tokens(NORMALIZE), MEAN), "Normalize of token_embeddings", 75),
        ((weighted_layers(2), MEAN), "WeightedLayerPooling (layers 2 to 3)", 75),
        ((MEAN, pooling("cls", "max")), "Pooling (cls + max)", 150),
    ],
)  # fmt: skip
def test_the_width_follows_the_last_module_that_changes_it(
    build: Callable[..., Path], stack: tuple[Spec, ...], expected: str, width: int
) -> None:
    folder = build(*stack)
    assert expected in modules(folder)
    encoder = minisbert.load(folder, backend="reference")
    assert encoder.get_embedding_dimension() == encoder.encode("a").shape[0] == width
    cut = encoder.encode("a", truncate_dim=3, normalize_embeddings=True)
    assert cut.shape == (3,)


UNSUPPORTED, DAMAGED = minisbert.UnsupportedCheckpointError, minisbert.CheckpointError


@pytest.mark.parametrize(
    ("stack", "kind", "parts"),
    [
        ((dense(), MEAN), UNSUPPORTED, ("1_Dense", "needs sentence_embedding", "a Pooling before it")),
        ((NORM, MEAN), UNSUPPORTED, ("1_LayerNorm", "needs sentence_embedding")),
        ((DROPOUT, MEAN), UNSUPPORTED, ("1_Dropout", "needs sentence_embedding")),
        ((NORMALIZE,), UNSUPPORTED, ("Transformer -> Normalize, which make no sentence embedding", "a Pooling")),
        ((on_tokens(dense()),), UNSUPPORTED, ("Transformer -> Dense, which make no sentence embedding",)),
        ((MEAN, dense(width=76)), DAMAGED, ("2_Dense", "sentence_embedding of width 76", "have 75")),
        ((pooling("cls", "mean"), dense()), DAMAGED, ("2_Dense", "of width 75", "have 150")),
        ((pooling("cls", "mean"), NORM), DAMAGED, ("2_LayerNorm", "of width 75", "have 150")),
        ((on_tokens(dense(8)), MEAN), DAMAGED, ("2_Pooling", "token_embeddings of width 75", "have 8")),
        ((MEAN, ("Dense", {**dense()[1], "module_output_name": "token_embeddings"})), UNSUPPORTED,
         ("2_Dense", "module_output_name is 'token_embeddings'", "supported: 'sentence_embedding'")),
        ((MEAN, ("Dense", {**on_tokens(dense())[1], "module_output_name": "sentence_embedding"})), UNSUPPORTED,
         ("2_Dense", "module_output_name is 'sentence_embedding'", "supported: 'token_embeddings'")),
        ((MEAN, dense(module_input_name="cls_token_embeddings")), UNSUPPORTED,
         ("2_Dense", "module_input_name is 'cls_token_embeddings'")),
        ((MEAN, dense(activation="GLU")), UNSUPPORTED, ("2_Dense", "'torch.nn.modules.activation.GLU'", "Tanh")),
        ((MEAN, dense(activation="Softmax2d")), UNSUPPORTED, ("2_Dense", "activation.Softmax2d'")),
        ((MEAN, dense(package="transformers.activations", activation="GELUActivation")), UNSUPPORTED,
         ("2_Dense", "'transformers.activations.GELUActivation'")),
        ((MEAN, dense(package="my.torch.nn")), UNSUPPORTED, ("2_Dense", "'my.torch.nn.Tanh'")),
        ((MEAN, dense(scale=2.0)), UNSUPPORTED, ("2_Dense", "scale is 2.0")),
        ((MEAN, ("LayerNorm", {"dimension": 75, "eps": 0.1})), UNSUPPORTED, ("2_LayerNorm", "eps is 0.1")),
        ((weighted_layers(softmax=True), MEAN), UNSUPPORTED, ("1_WeightedLayerPooling", "softmax is True")),
        ((MEAN, dense(bias="yes")), DAMAGED, ("2_Dense", "bias is 'yes'; expected true or false")),
        ((MEAN, dense(0)), DAMAGED, ("2_Dense", "out_features is 0")),
        ((on_tokens(dense(8, "Softmax")), pooling("mean", width=8)), UNSUPPORTED,
         ("1_Dense", "softmax over token_embeddings", "depends on its company")),
        ((weighted_layers(num_hidden_layers=12), MEAN), DAMAGED,
         ("1_WeightedLayerPooling", "num_hidden_layers is 12", "has 3 layers")),
        ((weighted_layers(-1), MEAN), DAMAGED, ("1_WeightedLayerPooling", "layer_start is -1; expected 0 to 3")),
        ((weighted_layers(4), MEAN), DAMAGED, ("1_WeightedLayerPooling", "layer_start is 4")),
        ((weighted_layers(embedding_dimension=8), MEAN), DAMAGED, ("all_layer_embeddings of width 8", "have 75")),
    ],
)  # fmt: skip
def test_modules_that_do_not_fit_are_refused_by_name(
    build: Callable[..., Path], stack: tuple[Spec, ...], kind: type[Exception], parts: tuple[str, ...]
) -> None:
    refused(build(*stack), kind, *parts)


def test_dense_settings_that_are_missing(build: Callable[..., Path]) -> None:
    folder = build(MEAN, dense())
    for key, value in {"in_features": ..., "out_features": ..., "activation_function": None}.items():
        original = (folder / "2_Dense" / "config.json").read_text()
        edit_json(folder / "2_Dense" / "config.json", **{key: value})
        refused(folder, DAMAGED, "2_Dense", f"{key!r} is missing; expected")
        (folder / "2_Dense" / "config.json").write_text(original)
    edit_json(folder / "2_Dense" / "config.json", activation_function=..., bias=None)
    assert read_config(folder).modules[1].shapes == {"linear.weight": (8, 75)}  # null: no bias


def test_layers_that_the_reference_would_leave_out(build: Callable[..., Path]) -> None:
    folder = build(weighted_layers(), MEAN)
    edit_json(folder / "config.json", output_hidden_states=False)
    parts = (
        "1_WeightedLayerPooling",
        "all_layer_embeddings",
        "output_hidden_states",
        "leaves the module out",
    )
    refused(folder, UNSUPPORTED, *parts)


def test_settings_that_are_named_and_missing(build: Callable[..., Path]) -> None:
    folder = build(MEAN, NORMALIZE, DROPOUT, dense())
    (folder / "3_Dropout" / "config.json").unlink()  # inert, whatever its settings
    assert modules(folder).startswith("Pooling (mean) -> Normalize -> Dropout -> Dense")
    (folder / "4_Dense" / "config.json").unlink()
    refused(folder, minisbert.CheckpointNotFoundError, "4_Dense", "no such file, and modules.json names it")


def rewrite(path: Path, **changes: Any) -> None:
    """Change tensors of a file; None removes one."""
    tensors = load_file(path) | changes
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, path)


def refused_weights(folder: Path, kind: type[Exception], *parts: str) -> None:
    with pytest.raises(kind, match=".*".join(map(re.escape, parts))) as info:
        minisbert.load(folder, backend="reference")
    assert type(info.value) is kind


def test_every_wrong_tensor_of_a_dense_is_named_at_once(build: Callable[..., Path]) -> None:
    folder = build(MEAN, dense(8, "PReLU", use_residual=True))
    file = folder / "2_Dense" / "model.safetensors"
    changes = {"linear.bias": None, "residual.weight": np.zeros((75, 8), np.float32)}
    rewrite(file, **changes, extra=np.zeros(1, np.float32))
    parts = ("2_Dense", "missing: linear.bias. unknown: extra. misshapen: residual.weight", "(8, 75)")
    refused_weights(folder, DAMAGED, *parts)
    rewrite(file, extra=None, **{"linear.bias": np.full(8, np.nan, np.float32), "residual.weight": None})
    refused_weights(folder, DAMAGED, "2_Dense", "missing: residual.weight")


def test_weights_of_a_module_that_are_damaged_or_missing(build: Callable[..., Path]) -> None:
    folder = build(MEAN, NORM)
    file = folder / "2_LayerNorm" / "model.safetensors"
    rewrite(file, **{"norm.bias": np.full(75, np.inf, np.float32)})
    refused_weights(folder, DAMAGED, "2_LayerNorm", "'norm.bias' holds NaN, infinity")
    file.write_bytes(file.read_bytes()[:-1])
    refused_weights(folder, DAMAGED, "2_LayerNorm", "is not a sound safetensors file")
    file.unlink()
    refused_weights(folder, minisbert.CheckpointNotFoundError, "2_LayerNorm", "expected the module's weights")


def test_a_pickle_is_refused_with_the_command_that_converts_it(build: Callable[..., Path]) -> None:
    folder = build(MEAN, dense())
    (folder / "2_Dense" / "model.safetensors").rename(folder / "2_Dense" / "pytorch_model.bin")
    where = f"d = pathlib.Path(r'{folder / '2_Dense'}')"
    refused_weights(folder, UNSUPPORTED, "pickle format", "never opened", where, "map_location='cpu'")


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_other_float_widths(build: Callable[..., Path], dtype: str) -> None:
    folder = build(MEAN, dense())
    file = folder / "2_Dense" / "model.safetensors"
    narrow = {name: tensor.astype(dtype) for name, tensor in load_file(file).items()}
    save_file({name: tensor.astype("float32") for name, tensor in narrow.items()}, file)
    expected = minisbert.load(folder).encode("a")
    save_file(narrow, file)
    np.testing.assert_array_equal(minisbert.load(folder).encode("a"), expected)


def test_the_parameters_of_the_modules_count(build: Callable[..., Path]) -> None:
    bare = minisbert.load(build(MEAN)).num_parameters
    assert minisbert.load(build(MEAN, dense(8), NORM_OF_8)).num_parameters == bare + 75 * 8 + 8 + 16
