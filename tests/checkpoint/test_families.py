"""What sets the families apart: settings, names, positions, MPNet's bias; and what they all have to keep to."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import minisbert
from minisbert.checkpoint.config import HIDDEN_ACTS, read_config
from minisbert.checkpoint.families import FAMILIES
from minisbert.weights import position_bias
from tests.conftest import DATA, FEW, TINY, VECTOR_TOLERANCE, edit_json, largest, load_golden
from tests.support import texts

Copy = Callable[[str], Path]


def refused(folder: Path, kind: type[Exception], *parts: str) -> None:
    with pytest.raises(kind, match=".*".join(map(re.escape, parts))) as info:
        minisbert.load(folder)
    assert type(info.value) is kind


def test_every_family_has_a_tiny_checkpoint() -> None:
    assert {read_config(DATA / name).transformer.model_type for name in TINY} == set(FAMILIES)


def test_every_role_is_in_every_family() -> None:
    """But for what a family does without, as its golden stages show."""
    for family in FAMILIES.values():
        roles = [role for role, _, _ in family.layer_tensors]
        assert roles == [role for role, _, _ in FAMILIES["bert"].layer_tensors]
        names = [
            name for _, name, _ in (*family.embedding_tensors, *family.layer_tensors, *family.projection)
        ]
        assert len(set(names)) == len(names)
        assert not any(map(family.ignored_by, names))


def test_a_sentence_s_bits_do_not_depend_on_the_others(tiny: Path) -> None:
    sentences = texts.all_texts()[::9]
    encoder = minisbert.load(tiny, num_threads=2)
    alone = np.stack([encoder.encode(text, truncation="silent") for text in sentences])
    rng = np.random.default_rng(7)
    for _ in range(6):
        rows = rng.choice(len(sentences), rng.integers(1, len(sentences)))
        encoder.num_threads = int(rng.integers(1, 4))
        found = encoder.encode(
            [sentences[row] for row in rows], batch_size=int(rng.integers(1, 40)), truncation="silent"
        )
        np.testing.assert_array_equal(found, alone[rows])


def test_both_backends_agree(tiny: Path) -> None:
    sentences = texts.edge_texts()
    exact = minisbert.load(tiny, dtype="float64").encode(sentences, truncation="silent")
    for backend in ("auto", "reference"):
        found = minisbert.load(tiny, backend=backend).encode(sentences, truncation="silent")
        assert largest(found - exact) <= VECTOR_TOLERANCE["float32"]


def test_mpnet_s_bias_by_distance() -> None:
    """Against the definition: buckets of one up to 8, then equal steps of the logarithm up to 128."""

    def bucket(after: int) -> int:
        distance = abs(after)
        if (
            distance >= 8
        ):  # at powers of 2 the logarithms are exact; a little more keeps them from rounding down
            distance = min(8 + int(math.log2(distance / 8) * 2 + 1e-9), 15)
        return distance + 16 * (after > 0)

    table = np.random.default_rng(0).standard_normal((32, 3))
    found = position_bias(table, 514)
    assert found.shape == (3, 1027)
    assert found.flags.c_contiguous
    expected = np.stack([table[bucket(after)] for after in range(-513, 514)], axis=1)
    np.testing.assert_array_equal(found, expected)


def test_mpnet_s_golden_texts_reach_the_last_bucket() -> None:
    lengths = np.diff(load_golden("tiny-mpnet")["offsets"])
    assert lengths.max() > 91


def test_mpnet_s_longest_sentence_has_a_bias_for_every_distance() -> None:
    encoder = minisbert.load(DATA / "tiny-mpnet")
    bias = encoder._weights.position_bias
    assert bias is not None
    assert bias.shape == (3, 2 * encoder.config.transformer.max_tokens - 1)
    assert encoder.tokenize("word " * 500)["input_ids"][0].size == encoder.config.transformer.max_tokens


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("tiny-mpnet", "relative_attention_num_buckets", 64),
        ("tiny-mpnet", "pad_token_id", 0),
        ("tiny-distilbert", "activation", "gelu_10"),
        ("tiny-electra", "hidden_act", "mish"),
        ("tiny-electra", "position_embedding_type", "relative_key_query"),
        ("tiny-xlm-roberta", "add_cross_attention", True),
        ("tiny-camembert", "is_decoder", True),
        ("tiny-bert", "auto_map", {"AutoModel": "modeling_own.OwnModel"}),
    ],
)
def test_settings_that_change_the_result_are_refused(copy_of: Copy, name: str, key: str, value: Any) -> None:
    folder = copy_of(name)
    path = next(path for path in folder.rglob("config.json") if "Pooling" not in path.parent.name)
    edit_json(path, **{key: value})
    refused(
        folder, minisbert.UnsupportedCheckpointError, "config.json", f"{key} is {value!r}"[:40], "supported"
    )


@pytest.mark.parametrize("act", ["gelu_10", "mish", "relu2", "linear"])
def test_other_activations_are_refused_by_name(copy_of: Copy, act: str) -> None:
    folder = copy_of("tiny-bert")
    edit_json(folder / "config.json", hidden_act=act)
    refused(folder, minisbert.UnsupportedCheckpointError, f"hidden_act is {act!r}", "gelu_new")


@pytest.mark.parametrize(
    ("act", "same"), [("gelu_python", "gelu"), ("gelu_fast", "gelu_new"), ("swish", "silu")]
)
def test_activations_of_two_names(copy_of: Copy, act: str, same: str) -> None:
    folder, vectors = copy_of("tiny-electra"), []
    for name in (act, same):
        edit_json(folder / "config.json", hidden_act=name)
        vectors.append(minisbert.load(folder).encode(FEW))
    np.testing.assert_array_equal(*vectors)


@pytest.mark.parametrize("act", HIDDEN_ACTS)
def test_every_activation_of_a_layer(copy_of: Copy, act: str) -> None:
    """Compiled, as the definition; and no two functions give the same, whose names are not of one."""
    folder = copy_of("tiny-bert")
    gelu = minisbert.load(folder).encode(FEW)
    edit_json(folder / "config.json", hidden_act=act)
    compiled, exact = (minisbert.load(folder, dtype=dtype).encode(FEW) for dtype in ("float32", "float64"))
    assert largest(compiled - exact) <= VECTOR_TOLERANCE["float32"]
    assert (largest(compiled - gelu) < 1e-6) == (act in ("gelu", "gelu_python"))


def test_layers_that_are_computed_in_chunks(copy_of: Copy) -> None:
    """Which saves memory in the reference, and changes nothing."""
    folder = copy_of("tiny-distilbert")
    edit_json(folder / "config.json", chunk_size_feed_forward=2)
    found, expected = (minisbert.load(path).encode(FEW) for path in (folder, DATA / "tiny-distilbert"))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("tiny-distilbert", "dim"),
        ("tiny-distilbert", "n_heads"),
        ("tiny-distilbert", "activation"),
        ("tiny-electra", "embedding_size"),
        ("tiny-electra", "layer_norm_eps"),
        ("tiny-mpnet", "max_position_embeddings"),
    ],
)
def test_missing_settings_are_called_by_the_family_s_names(copy_of: Copy, name: str, key: str) -> None:
    folder = copy_of(name)
    edit_json(folder / "config.json", **{key: ...})
    refused(folder, minisbert.CheckpointError, "config.json", f"the key {key!r} is missing")


def test_heads_that_the_width_can_t_be_shared_by(copy_of: Copy) -> None:
    folder = copy_of("tiny-distilbert")
    edit_json(folder / "config.json", n_heads=5)
    refused(folder, minisbert.CheckpointError, "dim is 24 and n_heads is 5")


def test_an_adapter_beside_the_weights_is_refused(copy_of: Copy) -> None:
    folder = copy_of("tiny-bert")
    (folder / "adapter_config.json").write_text("{}")
    refused(folder, minisbert.UnsupportedCheckpointError, "adapter_config.json", "merge_and_unload")


def test_electra_of_one_width_has_no_projection(copy_of: Copy) -> None:
    """Its layers are BERT's, and so are its vectors."""
    folder, bert = copy_of("tiny-bert"), minisbert.load(DATA / "tiny-bert")
    edit_json(folder / "config.json", model_type="electra", embedding_size=75)
    np.testing.assert_array_equal(minisbert.load(folder).encode("text"), bert.encode("text"))
    edit_json(folder / "config.json", embedding_size=40)
    refused(folder, minisbert.CheckpointError, "missing: embeddings_project.weight")


@pytest.mark.parametrize("name", TINY)
def test_a_tensor_less_is_named(copy_of: Copy, name: str) -> None:
    folder = copy_of(name)
    if name == "tiny-xlm-roberta":
        pytest.skip("it is in two files: see test_checkpoint.py")
    path = next(folder.rglob("model.safetensors"))
    tensors = load_file(path)
    lost = [key for key in tensors if ".1." in key and key.endswith("bias")][2]
    save_file({key: tensor for key, tensor in tensors.items() if key != lost}, path)
    prefix = read_config(folder).transformer.family.prefix
    plain = lost.removeprefix(prefix).replace("LayerNorm.beta", "LayerNorm.bias")
    refused(folder, minisbert.CheckpointError, f"missing: {plain}")
