"""Reading the JSON files of a checkpoint: every layout that is understood, every refusal by name."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import minisbert
from minisbert.checkpoint.config import read_config
from tests.conftest import edit_json

Copy = Callable[[str], Path]


@pytest.fixture
def folder(copy_of: Copy) -> Path:
    """A copy of the tiny RoBERTa, in the layout of sentence-transformers 2."""
    return copy_of("tiny-roberta")


def refused(folder: Path, kind: type[Exception], *parts: str) -> None:
    """Check that reading fails with one exception of ours, whose message holds all these parts."""
    with pytest.raises(kind, match=".*".join(map(re.escape, parts))) as info:
        read_config(folder)
    assert type(info.value) is kind
    assert "\n" not in str(info.value)


def test_the_tiny_checkpoints(tiny: Path) -> None:
    config = read_config(tiny)
    family = tiny.name.removeprefix("tiny-")
    assert config.transformer.model_type == ("bert" if family == "multilingual" else family)
    assert config.transformer.hidden_size == {"bert": 75, "roberta": 69}.get(family, 24)
    limit = 128 if family == "mpnet" else 32
    assert list(map(str, config.modules)) == ["Pooling (mean)", "Normalize"]
    assert (config.embedding_dimension, config.max_seq_length) == (config.transformer.hidden_size, limit)
    assert config.similarity_fn_name == "cosine"
    assert set(config.prompts) >= {"query", "document"}


def test_a_missing_folder(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", minisbert.CheckpointNotFoundError, "nowhere", "no such folder")


def test_a_missing_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    refused(folder, minisbert.CheckpointNotFoundError, "config.json", "no such file")


@pytest.mark.parametrize(
    "name", ["config.json", "modules.json", "1_Pooling/config.json", "tokenizer_config.json"]
)
@pytest.mark.parametrize("content", [b"", b"{", b'"text"', b"\xff\xfe", b"[" * 100_000, b"1e400"])
def test_what_is_no_json_object(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    refused(folder, minisbert.CheckpointError, name)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("hidden_size", 0, "expected an integer from 1"),
        ("hidden_size", -69, "expected an integer from 1"),
        ("hidden_size", 69.0, "expected an integer"),
        ("hidden_size", "69", "expected an integer"),
        ("hidden_size", True, "expected an integer"),
        ("hidden_size", 10**30, "expected an integer from 1"),
        ("hidden_size", ..., "is missing"),
        ("hidden_size", None, "is missing"),
        ("hidden_size", 70, "num_attention_heads is 3"),
        ("num_hidden_layers", 10**9, "1 to 1024"),
        ("num_attention_heads", 5, "is 5"),
        ("layer_norm_eps", ..., "is missing"),
        ("layer_norm_eps", 0, "between 0 and 1"),
        ("layer_norm_eps", float("nan"), "between 0 and 1"),
        ("layer_norm_eps", float("inf"), "between 0 and 1"),
        ("layer_norm_eps", "1e-5", "expected a number"),
        ("layer_norm_eps", 10**400, "between 0 and 1"),
        ("layer_norm_eps", True, "expected a number"),
        ("pad_token_id", -1, "below vocab_size"),
        ("pad_token_id", 640, "below vocab_size"),
        ("max_position_embeddings", 2, "no position"),
        ("intermediate_size", [80], "expected an integer"),
    ],
)
def test_impossible_numbers(folder: Path, key: str, value: Any, message: str) -> None:
    edit_json(folder / "config.json", **{key: value})
    refused(folder, minisbert.CheckpointError, "config.json", key, message)


@pytest.mark.parametrize(("name", "default"), [("tiny-bert", 0), ("tiny-roberta", 1)])
def test_the_padding_that_is_meant_where_none_is_given(copy_of: Copy, name: str, default: int) -> None:
    folder = copy_of(name)
    edit_json(folder / "config.json", pad_token_id=...)
    assert read_config(folder).transformer.pad_token_id == default


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "gpt2"),
        ("model_type", "xlm-roberta-xl"),
        ("model_type", "roberta-prelayernorm"),
        ("model_type", "albert"),
        ("hidden_act", "mish"),
        ("position_embedding_type", "relative_key"),
        ("is_decoder", True),
        ("is_causal", True),
        ("per_layer_config", {"0": {"hidden_act": "relu"}}),
        ("attribute_map", {"hidden_size": "width"}),
        ("fusion_config", {"made_up": 1}),
        ("transformers_weights", "other.safetensors"),
        ("add_cross_attention", True),
        ("quantization_config", {"bits": 8}),
    ],
)
def test_what_is_not_computed_is_refused_by_name(folder: Path, key: str, value: Any) -> None:
    edit_json(folder / "config.json", **{key: value})
    shown = repr(value)
    refused(folder, minisbert.UnsupportedCheckpointError, "config.json", f"{key} is {shown}", "supported")


FILES = (
    "config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "tokenizer_config.json",
    "1_Pooling/config.json",
)


@pytest.mark.parametrize("name", FILES)
def test_what_is_there_and_no_file_is_not_absent(folder: Path, name: str) -> None:
    path = folder / name
    expected = read_config(folder)
    blob = path.rename(path.with_name("blob"))
    try:
        path.symlink_to(blob)
    except OSError:
        pytest.skip("this system lets only an administrator make links")
    assert read_config(folder) == expected
    blob.unlink()
    refused(folder, minisbert.CheckpointError, name, "is not a regular file, nor a link to one")
    path.unlink()
    path.mkdir()
    refused(folder, minisbert.CheckpointError, name, "is not a regular file, nor a link to one")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_nothing_waits_for_a_pipe(folder: Path) -> None:
    (folder / "sentence_bert_config.json").unlink()
    os.mkfifo(folder / "sentence_bert_config.json")
    refused(folder, minisbert.CheckpointError, "sentence_bert_config.json", "is not a regular file")


@pytest.mark.parametrize(
    ("stated", "tokenizer", "expected"),
    [
        (16, 24, 16),  # the module's own limit goes first
        (None, 24, 24),
        (None, 1e30, 32),
        (None, int(1e30), 32),
        (None, ..., 32),
        (None, 10**400, 32),
        (None, float("inf"), 32),
        (512, 24, 32),  # more than there are positions for
        (10**400, 24, 32),
    ],
)
def test_where_the_limit_comes_from(folder: Path, stated: Any, tokenizer: Any, expected: int) -> None:
    edit_json(folder / "sentence_bert_config.json", max_seq_length=stated)
    edit_json(folder / "tokenizer_config.json", model_max_length=tokenizer)
    assert read_config(folder).max_seq_length == expected


@pytest.mark.parametrize("family", ["roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet"])
def test_a_limit_under_the_file_names_of_the_first_versions(folder: Path, family: str) -> None:
    (folder / "sentence_bert_config.json").write_text("{}")
    edit_json(folder / f"sentence_{family}_config.json", max_seq_length=16)
    assert read_config(folder).max_seq_length == 16
    edit_json(folder / "sentence_bert_config.json", max_seq_length=8)
    assert read_config(folder).max_seq_length == 8


@pytest.mark.parametrize("value", [0, -5, float("nan"), -float("inf"), -(10**400)])
def test_a_limit_that_makes_no_sense_is_named_with_its_file(folder: Path, value: float) -> None:
    edit_json(folder / "sentence_bert_config.json", max_seq_length=...)
    edit_json(folder / "tokenizer_config.json", model_max_length=value)
    refused(folder, minisbert.CheckpointError, "tokenizer_config.json", "model_max_length is", "at least 1")


def test_bert_has_a_position_for_every_token(copy_of: Copy) -> None:
    folder = copy_of("tiny-bert")
    edit_json(folder / "tokenizer_config.json", model_max_length=...)
    assert read_config(folder).max_seq_length == 64


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("sentence_bert_config.json", {"made_up": 1}),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}),
        ("sentence_bert_config.json", {"modality_config": {"image": {}}}),
        ("sentence_bert_config.json", {"processing_kwargs": {"text": {"max_length": 3}}}),
        ("sentence_bert_config.json", {"model_args": {"torch_dtype": "bfloat16"}}),
        ("sentence_bert_config.json", {"query_length": 8}),
        ("tokenizer_config.json", {"truncation_side": "left"}),
        ("config_sentence_transformers.json", {"model_type": "CrossEncoder"}),
        ("config_sentence_transformers.json", {"similarity_fn_name": "maxsim"}),
    ],
)
def test_settings_that_change_the_result_are_refused(
    folder: Path, name: str, changes: dict[str, Any]
) -> None:
    edit_json(folder / name, **changes)
    refused(folder, minisbert.UnsupportedCheckpointError, name, *changes)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("sentence_bert_config.json", {"max_seq_length": 0}, "max_seq_length is 0"),
        ("sentence_bert_config.json", {"do_lower_case": "yes"}, "expected true or false"),
        ("config_sentence_transformers.json", {"prompts": {"query": 3}}, "'query' is 3"),
        ("config_sentence_transformers.json", {"prompts": ["query"]}, "expected an object"),
        ("config_sentence_transformers.json", {"default_prompt_name": "no"}, "default_prompt_name is 'no'"),
        ("config_sentence_transformers.json", {"truncate_dim": 70}, "truncate_dim is 70"),
        ("config_sentence_transformers.json", {"truncate_dim": 0}, "truncate_dim is 0"),
    ],
)
def test_settings_that_make_no_sense(folder: Path, name: str, changes: dict[str, Any], message: str) -> None:
    edit_json(folder / name, **changes)
    refused(folder, minisbert.CheckpointError, name, message)


def test_sentence_settings_are_read(folder: Path) -> None:
    edit_json(
        folder / "config_sentence_transformers.json",
        prompts={"query": "q: ", "passage": None},
        default_prompt_name="query",
        similarity_fn_name="dot",
        truncate_dim=12,
    )
    config = read_config(folder)
    assert config.prompts == {"query": "q: ", "document": "", "passage": ""}
    assert (config.default_prompt_name, config.similarity_fn_name, config.truncate_dim) == (
        "query",
        "dot",
        12,
    )
