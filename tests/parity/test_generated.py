"""Checkpoints that Hypothesis makes up: any sizes, head counts, dtypes and settings, not the few that are stored.

The oracle is the plain NumPy definition in float64, which the golden files tie to the reference implementation;
where that is installed, it is asked about the generated checkpoints too.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import minisbert
from minisbert.checkpoint.config import HIDDEN_ACTS
from minisbert.checkpoint.families import BUCKETS, FAMILIES
from tests.conftest import DATA, VECTOR_TOLERANCE, largest
from tests.support import checkpoints, pipelines

# How far float32 may be from float64. Small widths and odd weights make some checkpoints ill-conditioned: there, no
# float32 result is closer, so a backend may be this many times as far off as the float32 of plain NumPy.
TOLERANCE, TIMES = VECTOR_TOLERANCE["float32"], 4
BATCH = 4
WORDS = (
    "the",
    "weather",
    " is",
    "lovely",
    "[MASK]",
    "<mask>",
    "<pad>",
    "\u4e2d\u6587",
    "\U0001f600",
    ".",
    "\n",
    "A1",
)
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}

# Examples are chosen by the test's code alone, so that a run is like the next. A longer search: set the variable.
EVERY_RUN = settings(
    max_examples=int(os.environ.get("MINISBERT_EXAMPLES", "40")),
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)

texts = st.lists(
    st.lists(st.sampled_from(WORDS) | st.text(max_size=6), max_size=30).map(" ".join), max_size=9
)


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    """Settings under BERT's names, with sizes of which none has to fit a vector register."""
    family = draw(st.sampled_from(sorted(FAMILIES)))
    heads, head_width = draw(st.integers(1, 7)), draw(st.integers(3, 40))
    pad = FAMILIES[family].pad_token_id
    return {
        "model_type": family,
        "hidden_size": heads * head_width,
        "num_attention_heads": heads,
        "intermediate_size": draw(st.integers(1, 130)),
        "num_hidden_layers": draw(st.integers(1, 3)),
        "hidden_act": draw(st.sampled_from(HIDDEN_ACTS)),
        "layer_norm_eps": FAMILIES[family].layer_norm_eps or draw(st.sampled_from((1e-12, 1e-5, 1e-3))),
        "vocab_size": num_tokens(family) + draw(st.integers(0, 9)),
        "max_position_embeddings": draw(st.integers(8, 40)) + pad + 1,
        "type_vocab_size": draw(st.integers(1, 3)),
        "pad_token_id": pad,
    } | ({"embedding_size": draw(st.integers(3, 50))} if FAMILIES[family].projection else {})


@st.composite
def modules(draw: st.DrawFn) -> tuple[str, int, str]:
    """A module between the pooling and the end: its kind, and how wide a Dense is, with what activation."""
    kind = draw(st.sampled_from(("Dense", "Dense", "LayerNorm", "Dropout", "Normalize")))
    return kind, draw(st.integers(8, 60)), draw(st.sampled_from(("Identity", "Tanh", "GELU", "ReLU", "Mish")))


def stack(width: int, layout: dict[str, Any]) -> list[pipelines.Spec]:
    """The modules of a layout, after a transformer of this width."""
    specs = [pipelines.pooling(*layout["modes"], width=width)]
    width *= len(layout["modes"])
    for kind, out, activation in layout["then"]:
        if kind == "Dense":
            specs.append(pipelines.dense(out, activation, width))
            width = out
        else:
            specs.append(
                (kind, {"LayerNorm": {"dimension": width}, "Dropout": {"dropout": 0.1}}.get(kind, {}))
            )
    return [*specs, *([("Normalize", {})] if layout["normalize"] else [])]


@st.composite
def layouts(draw: st.DrawFn) -> dict[str, Any]:
    """How a checkpoint is written: none of this may change a vector but by the dtype's rounding."""
    return {
        "dtype": draw(st.sampled_from(sorted(DTYPES))),
        "prefix": draw(st.booleans()),
        "old_names": draw(st.booleans()),
        "shards": draw(st.integers(1, 4)),
        "modes": draw(st.lists(st.sampled_from(pipelines.MODES), min_size=1, max_size=3, unique=True)),
        "then": draw(st.lists(modules(), max_size=3)),
        "normalize": draw(st.booleans()),
        "seed": draw(st.integers(0, 2**20)),
    }


def tokenizer_folder(family: str) -> Path:
    folder = DATA / f"tiny-{family}"
    return folder if (folder / "tokenizer.json").exists() else folder / "0_Transformer"


def num_tokens(family: str) -> int:
    tokenizer = json.loads((tokenizer_folder(family) / "tokenizer.json").read_text(encoding="utf-8"))
    return len(tokenizer["model"]["vocab"])


@contextmanager
def written(config: dict[str, Any], layout: dict[str, Any]) -> Iterator[Path]:
    """Write a checkpoint, and remove it at the end."""
    family = config["model_type"]
    plain = weights_of(config, layout["seed"])
    folder = Path(tempfile.mkdtemp())
    try:
        limit = config["max_position_embeddings"] - config["pad_token_id"] - 1
        checkpoints.write_checkpoint(folder, {**config, "model_type": "bert"}, {}, {}, max_seq_length=limit)
        known = {FAMILIES[family].key(name): value for name, value in config.items()}
        checkpoints.write_json(folder / "config.json", known)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(tokenizer_folder(family) / name, folder)
        pipelines.write_modules(folder, stack(config["hidden_size"], layout))
        weights = {
            _file_name(name, family, layout): _cast(array, layout["dtype"]) for name, array in plain.items()
        }
        write_weights(folder, weights, layout)
        yield folder
    finally:
        shutil.rmtree(folder)


def weights_of(config: dict[str, Any], seed: int) -> dict[str, NDArray[np.float32]]:
    """The weights that `checkpoints` gives a BERT of these sizes, in the places that the family has for them."""
    bert, family = FAMILIES["bert"], FAMILIES[config["model_type"]]
    weights = checkpoints.tamed(checkpoints.seeded_weights(config, seed, checkpoints.TINY_BIAS), config)
    narrow, width = config.get("embedding_size", config["hidden_size"]), config["hidden_size"]
    bits = np.random.PCG64(seed)
    more = {
        "embeddings.projection.weight": checkpoints.uniform(bits, (width, narrow), math.sqrt(3 / narrow)),
        "embeddings.projection.bias": checkpoints.uniform(bits, (width,), checkpoints.TINY_BIAS),
        "position_bias": checkpoints.uniform(bits, (BUCKETS, config["num_attention_heads"]), 1.5),
    }
    sources = {role: weights[name] for role, name, _ in bert.embedding_tensors}
    cut = {role: np.resize(array, (*array.shape[:-1], narrow)) for role, array in sources.items()} | more
    tables = (*family.embedding_tensors, *(family.projection if narrow != width else ()))
    found = {name: cut[role] for role, name, _ in tables}
    for layer in range(config["num_hidden_layers"]):
        names = {role: f"{bert.layer_prefix}{layer}.{name}" for role, name, _ in bert.layer_tensors}
        for role, name, _ in family.layer_tensors:
            found[f"{family.layer_prefix}{layer}.{name}"] = weights[names[role]]
    return found


def _file_name(name: str, family: str, layout: dict[str, Any]) -> str:
    if layout["old_names"]:
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
    return FAMILIES[family].prefix + name if layout["prefix"] else name


def _cast(array: NDArray[np.float32], dtype: str) -> NDArray[Any]:
    if dtype == "BF16":
        return (array.view(np.uint32) >> 16).astype(np.uint16)
    if dtype == "F64":
        return array.astype("<f8") * (1 + 1e-9)  # more digits than a float32 has
    return array.astype(DTYPES[dtype])


def write_weights(folder: Path, weights: dict[str, NDArray[Any]], layout: dict[str, Any]) -> None:
    """Write one file, or several with an index."""
    (folder / "model.safetensors").unlink(missing_ok=True)
    count = layout["shards"]
    names = ["model.safetensors"]
    if count > 1:
        names = [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
        places = {tensor: names[i % count] for i, tensor in enumerate(weights)}
        checkpoints.write_json(
            folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": places}
        )
    for i, name in enumerate(names):
        some = {tensor: weights[tensor] for tensor in list(weights)[i::count]}
        (folder / name).write_bytes(safetensors(some, layout["dtype"]))


def safetensors(weights: Mapping[str, NDArray[Any]], dtype: str) -> bytes:
    """Write the format by hand, for the package has no bfloat16 without torch."""
    header, numbers = {}, b""
    for name, array in weights.items():
        end = len(numbers) + array.nbytes
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [len(numbers), end]}
        numbers += array.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + numbers


def encode(folder: Path, sentences: list[str], **options: Any) -> NDArray[np.floating]:
    encoder = minisbert.load(folder, num_threads=1, **options)
    vectors: NDArray[np.floating] = encoder.encode(sentences, truncation="silent", batch_size=BATCH)
    return vectors


SMALLEST = {
    **checkpoints.TINY_BERT_CONFIG,
    "hidden_size": 3,
    "num_attention_heads": 1,
    "intermediate_size": 1,
}
SMALLEST |= {
    "vocab_size": num_tokens("bert"),
    "num_hidden_layers": 1,
    "type_vocab_size": 1,
}
PLAIN = {"dtype": "F32", "prefix": False, "old_names": False, "shards": 1, "seed": 0}
PLAIN |= {"modes": ["mean"], "then": [], "normalize": True}


@EVERY_RUN
@example(config=SMALLEST, layout=PLAIN, sentences=["", "a", "a b c " * 50])
@given(config=configs(), layout=layouts(), sentences=texts)
def test_the_backends_agree_with_the_oracle(
    config: dict[str, Any], layout: dict[str, Any], sentences: list[str]
) -> None:
    with written(config, layout) as folder:
        oracle = encode(folder, sentences, backend="reference", dtype="float64")
        plain = encode(folder, sentences, backend="reference")
        fast = encode(folder, sentences, backend="auto")
    scale = max(1.0, largest(oracle))
    allowed = TOLERANCE * scale
    widths = [out for kind, out, _ in layout["then"] if kind == "Dense"]
    width = widths[-1] if widths else config["hidden_size"] * len(layout["modes"])
    assert plain.shape == fast.shape == oracle.shape == (len(sentences), width)
    assert largest(fast - oracle) <= max(allowed, TIMES * largest(plain - oracle))
    if layout["normalize"]:
        lengths = np.linalg.norm(oracle, axis=1)
        np.testing.assert_allclose(lengths[lengths > 0], 1, atol=1e-12)  # a ReLU may leave nothing


@EVERY_RUN
@given(config=configs(), layout=layouts(), sentences=texts, threads=st.integers(1, 3), data=st.data())
def test_a_vector_depends_on_its_sentence_alone(
    config: dict[str, Any], layout: dict[str, Any], sentences: list[str], threads: int, data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(sentences))))
    with written(config, layout) as folder:
        encoder = minisbert.load(folder, backend="native", num_threads=threads)
        together = encoder.encode([sentences[index] for index in order], truncation="silent")
        alone = [encoder.encode(sentence, truncation="silent") for sentence in sentences]
    for row, index in enumerate(order):
        np.testing.assert_array_equal(together[row], alone[index])


@EVERY_RUN
@given(config=configs(), layout=layouts())
def test_the_layout_of_the_weights_changes_nothing(config: dict[str, Any], layout: dict[str, Any]) -> None:
    sentences = ["the weather is lovely", "", "[MASK] <mask>"]
    with (
        written(config, layout) as folder,
        written(config, {**layout, "prefix": False, "old_names": False, "shards": 1}) as plain,
    ):
        np.testing.assert_array_equal(
            encode(folder, sentences, backend="reference"), encode(plain, sentences, backend="reference")
        )


@EVERY_RUN
@given(config=configs(), layout=layouts(), sentences=texts.filter(len))
def test_the_reference_implementation_agrees(
    config: dict[str, Any], layout: dict[str, Any], sentences: list[str]
) -> None:
    torch = pytest.importorskip(
        "torch", reason="torch is not installed: python tools/dev.py test --parity installs it"
    )
    sentence_transformers = pytest.importorskip(
        "sentence_transformers", reason="sentence-transformers is not installed: see test_parity.py"
    )
    with written(config, layout) as folder:
        single = sentence_transformers.SentenceTransformer(
            str(folder), device="cpu", local_files_only=True, model_kwargs={"torch_dtype": torch.float32}
        )
        theirs = single.encode(sentences, batch_size=1)
        if layout["dtype"] != "F64":  # which the reference rounds to float32 before it could widen it
            expected = single.double().encode(sentences, batch_size=1)
            oracle = encode(folder, sentences, backend="reference", dtype="float64")
            scale = max(1.0, largest(expected))
            assert largest(oracle - expected) <= 1e-12 * scale
        else:
            expected = encode(folder, sentences, backend="reference", dtype="float64")
            scale = max(1.0, largest(expected))
        fast = encode(folder, sentences)
    assert largest(fast - expected) <= max(TOLERANCE * scale, TIMES * largest(theirs - expected))
