"""Reading the list of modules and their settings: every layout that is understood, every refusal by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import minisbert
from minisbert.checkpoint.config import read_config
from tests.checkpoint.test_config import Copy, refused
from tests.conftest import edit_json


@pytest.fixture
def folder(copy_of: Copy) -> Path:
    """A copy of the tiny RoBERTa, in the layout of sentence-transformers 2."""
    return copy_of("tiny-roberta")


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
    open_ = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *how: read.append(path) or open_(path, *how))  # type: ignore[func-returns-value]
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
