"""Reading the list of modules and their settings: every layout that is understood, every refusal by name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import minisbert
import pipelines
from conftest import DATA, edit_json
from minisbert.config import read_config
from pipelines import DROPOUT, NORM, NORMALIZE, Spec, dense, on_tokens, pooling, weighted_layers
from test_config import Copy, refused


@pytest.fixture
def folder(copy_of: Copy) -> Path:
    """A copy of the tiny RoBERTa, in the layout of sentence-transformers 2."""
    return copy_of("tiny-roberta")


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Path]:
    """Write a checkpoint of the tiny BERT and the modules given."""
    return lambda *modules: pipelines.build(tmp_path / "model", DATA / "tiny-bert", modules)


def modules(folder: Path) -> str:
    """The modules after the transformer as `minisbert info` shows them."""
    return " -> ".join(map(str, read_config(folder).modules))


@pytest.mark.parametrize(
    "path", ["/etc", "..", "../other", "a/../../b", "..\\b", "C:\\b", "\\\\host\\b", "a\0b"]
)
def test_paths_that_lead_out_of_the_folder(folder: Path, path: str) -> None:
    values = json.loads((folder / "modules.json").read_text())
    values[1]["path"] = path
    (folder / "modules.json").write_text(json.dumps(values))
    refused(
        folder, minisbert.CheckpointError, "modules.json", "path is", "leads out of the checkpoint folder"
    )


def test_nothing_outside_is_read_for_such_a_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = json.loads((folder / "modules.json").read_text())
    values[1]["path"] = "../outside"
    (folder / "modules.json").write_text(json.dumps(values))
    read: list[Path] = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path) or read_bytes(path))  # type: ignore[func-returns-value]
    refused(folder, minisbert.CheckpointError, "../outside")
    assert read[-1] == folder / "modules.json"
    assert {path.parent for path in read} == {folder}


def modules_of(*kinds: str) -> str:
    paths = {"Transformer": "", "Pooling": "1_Pooling"}
    return json.dumps([{"type": kind, "path": paths.get(kind.split(".")[-1], "2_Other")} for kind in kinds])


@pytest.mark.parametrize(
    "prefix",
    [
        "sentence_transformers.models.",
        "sentence_transformers.base.modules.x.",
        "sentence_transformers.a.b.c.d.",
    ],
)
def test_module_types_match_on_their_last_part(folder: Path, prefix: str) -> None:
    (folder / "modules.json").write_text(modules_of(f"{prefix}Transformer", f"{prefix}Pooling"))
    assert modules(folder) == "Pooling (mean)"
    (folder / "modules.json").write_text(
        modules_of(*(prefix + k for k in ("Transformer", "Pooling", "Normalize")))
    )
    assert modules(folder) == "Pooling (mean) -> Normalize"


UNKNOWN = (
    "WordWeights",
    "WordEmbeddings",
    "CNN",
    "LSTM",
    "BoW",
    "CLIPModel",
    "StaticEmbedding",
    "Router",
    "Asym",
    "Module",
    "InputModule",
    "SpladePooling",
    "SparseAutoEncoder",
    "MLMTransformer",
    "LogitScore",
    "MultiVectorMask",
)


@pytest.mark.parametrize(
    "kinds",
    [
        (),
        ("Transformer",),
        ("Pooling", "Transformer"),
        ("Transformer", "Transformer", "Pooling"),
        *(("Transformer", kind, "Pooling") for kind in UNKNOWN),
        *((kind, "Pooling") for kind in UNKNOWN),
    ],
)
def test_other_pipelines_are_refused(folder: Path, kinds: tuple[str, ...]) -> None:
    (folder / "modules.json").write_text(
        modules_of(*(f"sentence_transformers.models.{kind}" for kind in kinds))
    )
    shown = " -> ".join(kinds) or "none"
    refused(folder, minisbert.UnsupportedCheckpointError, "modules.json", f"the modules are {shown};")


def test_two_modules_of_one_name(folder: Path) -> None:
    values = json.loads((folder / "modules.json").read_text())
    values[2]["name"] = values[1]["name"]
    (folder / "modules.json").write_text(json.dumps(values))
    refused(folder, minisbert.CheckpointError, "modules.json: two modules have the name '1'")


def test_code_of_the_checkpoint_s_own_is_never_run(folder: Path) -> None:
    (folder / "modules.json").write_text(
        modules_of("custom_st.Transformer", "sentence_transformers.models.Pooling")
    )
    refused(
        folder, minisbert.UnsupportedCheckpointError, "modules.json", "custom_st.Transformer", "never run"
    )


@pytest.mark.parametrize("content", ['{"0": {}}', '["Transformer"]', '[{"path": ""}]', '[{"type": 3}]'])
def test_modules_that_make_no_sense(folder: Path, content: str) -> None:
    (folder / "modules.json").write_text(content)
    refused(folder, minisbert.CheckpointError, "modules.json")


def test_without_modules_it_is_mean_pooling_and_no_normalize(folder: Path) -> None:
    (folder / "modules.json").unlink()
    edit_json(folder / "1_Pooling" / "config.json", pooling_mode="cls")  # nothing refers to it
    config = read_config(folder)
    assert (list(map(str, config.modules)), config.embedding_dimension) == (["Pooling (mean)"], 69)


def write_pooling(folder: Path, values: dict[str, Any], width: str = "word_embedding_dimension") -> None:
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({width: 69, **values}))


@pytest.mark.parametrize("width", ["embedding_dimension", "word_embedding_dimension"])
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, "mean"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": ["mean"]}, "mean"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": ["mean", "cls"]}, "mean + cls"),
        ({"pooling_mode": ["mean", "mean"]}, "mean + mean"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_mean_tokens": False}, "mean"),
        ({"pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, "max + mean"),
        ({"pooling_mode_weightedmean_tokens": True}, "weightedmean"),
        ({"pooling_mode_lasttoken": True, "pooling_mode_mean_sqrt_len_tokens": True},
         "mean_sqrt_len_tokens + lasttoken"),
        ({"pooling_mode": "mean", "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode": "mean", "include_prompt": True}, "mean"),
        ({"pooling_mode": "mean", "include_prompt": False}, "mean without the prompt"),
        ({"pooling_mode": "mean", "include_prompt": None}, "mean without the prompt"),
        ({"pooling_mode": "mean", "pooling_mode_new_tokens": False}, "mean"),
    ],
)  # fmt: skip
def test_both_layouts_of_the_pooling(folder: Path, values: dict[str, Any], width: str, expected: str) -> None:
    write_pooling(folder, values, width)
    config = read_config(folder)
    assert str(config.modules[0]) == f"Pooling ({expected})"
    assert config.embedding_dimension == 69 * len(expected.split(" + "))


def test_a_pooling_that_is_named_and_missing_is_no_mean(folder: Path) -> None:
    (folder / "1_Pooling" / "config.json").write_text("{}")
    refused(folder, minisbert.CheckpointError, "1_Pooling", "'embedding_dimension' is missing")
    (folder / "1_Pooling" / "config.json").unlink()
    refused(folder, minisbert.CheckpointNotFoundError, "1_Pooling", "no such file, and modules.json names it")
    (folder / "modules.json").unlink()
    assert modules(folder) == "Pooling (mean)"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_new_tokens": True}, "pooling_mode_new_tokens"),
        ({"layer_start": 3}, "layer_start"),
        ({"pooling_mode": "median"}, "pooling_mode is 'median'"),
        ({"pooling_mode": ["mean", "median"]}, "pooling_mode is ['mean', 'median']"),
        ({"pooling_mode": ["mean"] * 65}, "pooling_mode is ['mean', "),
        ({"pooling_mode": [["mean"]]}, "pooling_mode is [['mean']]"),
        ({"pooling_mode": 3}, "pooling_mode is 3"),
        ({"pooling_mode": ""}, "pooling_mode is ''"),
        ({"pooling_mode": []}, "pooling_mode is []"),
        ({"pooling_mode": 0}, "pooling_mode is 0"),
        ({"pooling_mode": None}, "pooling_mode is None"),
    ],
)
def test_other_poolings_are_refused(folder: Path, values: dict[str, Any], message: str) -> None:
    write_pooling(folder, values)
    refused(folder, minisbert.UnsupportedCheckpointError, "1_Pooling", message)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"pooling_mode": "mean", "pooling_mode_cls_token": True}, "pooling_mode_cls_token is True"),
        ({"pooling_mode": "mean", "pooling_mode_mean_tokens": False}, "pooling_mode_mean_tokens is False"),
        ({"pooling_mode_cls_token": "yes"}, "pooling_mode_cls_token is 'yes'; expected true or false"),
        ({"include_prompt": "no"}, "include_prompt is 'no'; expected true or false"),
    ],
)
def test_poolings_that_make_no_sense(folder: Path, values: dict[str, Any], message: str) -> None:
    write_pooling(folder, values)
    refused(folder, minisbert.CheckpointError, "1_Pooling", message)


@pytest.mark.parametrize("path", ["a" * 5000, "a/" * 3000, "\ud800"])
def test_a_module_path_that_no_file_can_have(folder: Path, path: str) -> None:
    values = json.loads((folder / "modules.json").read_text())
    values[1]["path"] = path
    (folder / "modules.json").write_text(json.dumps(values))
    refused(folder, minisbert.CheckpointNotFoundError, "modules.json names it")


@pytest.mark.parametrize("kind", ["a\nb", "x" * 100_000])
def test_a_message_is_one_line_of_bounded_length(folder: Path, kind: str) -> None:
    (folder / "modules.json").write_text(modules_of(f"sentence_transformers.{kind}"))
    with pytest.raises(minisbert.UnsupportedCheckpointError, match=r"modules\.json.*supported") as info:
        read_config(folder)
    assert str(info.value).isprintable()
    assert len(str(info.value)) <= 1500


def test_pooling_for_another_width(folder: Path) -> None:
    edit_json(folder / "1_Pooling" / "config.json", word_embedding_dimension=384)
    refused(folder, minisbert.CheckpointError, "1_Pooling", "width 384", "have 69")


@pytest.mark.parametrize("names", [("tokens", None), ("token_embeddings", "sentence_embedding"), (None, "x")])
def test_a_normalize_of_something_else_is_refused(folder: Path, names: tuple[str | None, ...]) -> None:
    values = dict(zip(("module_input_name", "module_output_name"), names, strict=True))
    (folder / "2_Normalize").mkdir()
    edit_json(folder / "2_Normalize" / "config.json", **values)
    wrong = next(f"{key} is '{name}'" for key, name in reversed(values.items()) if name)
    refused(folder, minisbert.UnsupportedCheckpointError, "2_Normalize", wrong, "supported")


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
    bin, safe = (str(folder / "2_Dense" / name) for name in ("pytorch_model.bin", "model.safetensors"))
    command = f"save_file(torch.load(r'{bin}', weights_only=True), r'{safe}')"
    refused_weights(folder, UNSUPPORTED, bin, "pickle format", "never opened", command)


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
