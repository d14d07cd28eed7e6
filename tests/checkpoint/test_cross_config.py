"""`minisbert.checkpoint.cross_config`: where a cross-encoder's settings are looked up, and what is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import minisbert
from minisbert.checkpoint.cross_config import read_cross_config
from tests.conftest import DATA, edit_json
from tests.support import cross_checkpoints

Copy = Callable[[str], Path]


def test_each_is_loaded_by_its_own_function(copy_of: Copy) -> None:
    for name in cross_checkpoints.TINY:
        with pytest.raises(
            minisbert.UnsupportedCheckpointError, match=r"json: .*minisbert\.load_cross_encoder"
        ):
            minisbert.load(DATA / name)
    for name in ("tiny-bert", "tiny-roberta"):
        with pytest.raises(
            minisbert.UnsupportedCheckpointError, match=r"model_type is .*with minisbert\.load$"
        ):
            minisbert.load_cross_encoder(DATA / name)
    plain = copy_of("tiny-bert")
    (plain / "modules.json").unlink()
    with pytest.raises(
        minisbert.UnsupportedCheckpointError, match=r"architectures is \['BertModel'\].*with minisbert\.load$"
    ):
        minisbert.load_cross_encoder(plain)


def test_a_missing_folder_or_config(tmp_path: Path) -> None:
    for folder, message in (
        (tmp_path / "no", "no such folder"),
        (tmp_path, r"config\.json: there is no such file"),
    ):
        with pytest.raises(minisbert.CheckpointNotFoundError, match=message):
            minisbert.load_cross_encoder(folder)


@pytest.mark.parametrize(
    ("name", "config", "saved", "expected"),
    [
        ("cross-bert", {}, {}, "Sigmoid"),
        ("cross-bert", {}, {"activation_fn": "torch.nn.modules.linear.Identity"}, "Identity"),
        ("cross-bert", {}, {"activation_fn": None}, "Sigmoid"),
        # The newest place goes before the others.
        (
            "cross-bert",
            {"sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh"}},
            {"activation_fn": "torch.nn.modules.linear.Identity"},
            "Identity",
        ),
        (
            "cross-bert",
            {"sentence_transformers": {"activation_fn": "torch.nn.Tanh"}},
            {"activation_fn": ...},
            "Tanh",
        ),
        ("cross-roberta", {}, None, "Identity"),
        ("cross-roberta", {"sbert_ce_default_activation_function": None}, None, "Sigmoid"),
        ("cross-roberta", {"sentence_transformers": {"version": "4.0"}}, None, "Identity"),
        ("cross-roberta", {"sentence_transformers": {"activation_fn": None}}, None, "Sigmoid"),
        ("cross-roberta", {"sentence_transformers": {"activation_fn": "torch.nn.ReLU"}}, None, "ReLU"),
        # Without modules these files are not read.
        ("cross-roberta", {}, {"activation_fn": "torch.nn.Tanh", "prompts": {"query": "q"}}, "Identity"),
        ("cross-labels", {"sentence_transformers": ...}, None, "Identity"),
    ],
)
def test_where_the_activation_is_looked_up(
    copy_of: Copy, name: str, config: dict[str, Any], saved: dict[str, Any] | None, expected: str
) -> None:
    folder = copy_of(name)
    edit_json(folder / "config.json", **config)
    if saved is not None:
        edit_json(folder / "config_sentence_transformers.json", **saved)
    found = read_cross_config(folder)
    assert found.activation_fn == expected
    assert found.prompts == ({"query": "find this: "} if name == "cross-bert" else {})


@pytest.mark.parametrize(
    ("name", "file", "changes", "message"),
    [
        (
            "cross-bert",
            "config_sentence_transformers.json",
            {"activation_fn": "my_code.Activation"},
            "activation_fn is 'my_code.Activation'",
        ),
        (
            "cross-bert",
            "config_sentence_transformers.json",
            {"activation_fn": "torch.nn.modules.activation.Softmax"},
            r"supported: torch\.nn\.Identity",
        ),
        (
            "cross-labels",
            "config.json",
            {"sentence_transformers": {"activation_fn": "evil"}},
            "activation_fn is",
        ),
        (
            "cross-roberta",
            "config.json",
            {"sbert_ce_default_activation_function": "os.system"},
            "sbert_ce_default_activation_function is 'os.system'",
        ),
        ("cross-bert", "config.json", {"model_type": "t5"}, "model_type is 't5'"),
        (
            "cross-bert",
            "sentence_bert_config.json",
            {"transformer_task": "text-generation"},
            "transformer_task",
        ),
        ("cross-bert", "sentence_bert_config.json", {"module_output_name": "x"}, "module_output_name is 'x'"),
        ("cross-bert", "sentence_bert_config.json", {"modality_config": {}}, "modality_config is"),
        ("cross-bert", "tokenizer_config.json", {"truncation_side": "left"}, "truncation_side is 'left'"),
    ],
)
def test_what_is_not_computed_is_refused_by_name(
    copy_of: Copy, name: str, file: str, changes: dict[str, Any], message: str
) -> None:
    folder = copy_of(name)
    edit_json(folder / file, **changes)
    with pytest.raises(minisbert.UnsupportedCheckpointError, match=f"{file}.*{message}"):
        minisbert.load_cross_encoder(folder)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"num_labels": 2}, "num_labels is 2, and id2label has 1 names"),
        ("config.json", {"id2label": ["a"]}, "id2label is"),
        ("config.json", {"id2label": {}}, "num_labels is 0"),
        ("config.json", {"id2label": ..., "num_labels": 10**9}, "num_labels is 1000000000"),
        (
            "config.json",
            {"id2label": ...},
            r"misshapen: classifier\.weight has shape \(1, 27\), expected \(2, 27\)",
        ),
        ("config.json", {"sentence_transformers": 3}, "sentence_transformers is 3"),
        ("sentence_bert_config.json", {"transformer_task": ...}, "'transformer_task' is missing"),
        ("config_sentence_transformers.json", {"activation_fn": 3}, "activation_fn is 3"),
        ("config_sentence_transformers.json", {"prompts": {"query": 3}}, "'query' is 3"),
    ],
)
def test_settings_that_make_no_sense(copy_of: Copy, file: str, changes: dict[str, Any], message: str) -> None:
    folder = copy_of("cross-bert")
    edit_json(folder / file, **changes)
    with pytest.raises(minisbert.CheckpointError, match=message):
        minisbert.load_cross_encoder(folder)


def test_two_labels_are_meant_where_no_number_is_given(copy_of: Copy) -> None:
    folder = copy_of("cross-bert")
    edit_json(folder / "config.json", id2label=...)
    path = folder / "model.safetensors"
    tensors = load_file(path)
    for kind in ("weight", "bias"):
        tensors[f"classifier.{kind}"] = np.repeat(tensors[f"classifier.{kind}"], 2, axis=0)
    save_file(tensors, path)
    assert minisbert.load_cross_encoder(folder).predict([("one", "two")]).shape == (1, 2)


def test_other_modules_are_refused(copy_of: Copy) -> None:
    folder = copy_of("cross-bert")
    modules = json.loads((folder / "modules.json").read_text())
    kind = "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"
    modules.append({"idx": 1, "name": "1", "path": "1_LogitScore", "type": kind})
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(minisbert.UnsupportedCheckpointError, match=r"Transformer -> LogitScore; supported"):
        minisbert.load_cross_encoder(folder)


def test_a_checkpoint_without_its_head(copy_of: Copy) -> None:
    folder = copy_of("cross-roberta")
    path = folder / "model.safetensors"
    save_file({name: tensor for name, tensor in load_file(path).items() if "out_proj" not in name}, path)
    with pytest.raises(minisbert.CheckpointError, match=r"missing: classifier\.out_proj\.weight"):
        minisbert.load_cross_encoder(folder)
