"""Cross-encoders for the tests: seeded weights as `checkpoints` makes them, with a classifier on top.

Each layout that sentence-transformers has written is there: ``config.json`` with the oldest key of the activation, or
with a section of its own, and, as `tools/golden/pairs.py` has the reference save it, with modules.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from tests.support import checkpoints

TINY_SIZES = {"hidden_size": 27, "intermediate_size": 28, "num_attention_heads": 3, "num_hidden_layers": 2}
HEAD_GAIN = 3.0  # logits of some size, so that scores differ
# With the seed of the others, two scores are so close here (3.4e-8) that no float32 can tell which comes first.
SEEDS = {"cross-xlm-roberta": 55, "cross-multilingual": 64}
FULL_SIZE: dict[str, Any] = {
    "hidden_size": 384,
    "intermediate_size": 1536,
    "max_position_embeddings": 512,
    "num_attention_heads": 12,
    "num_hidden_layers": 6,
    "vocab_size": 30522,
}
# The settings beside the sizes: what each cross-encoder is to show.
TINY: dict[str, dict[str, Any]] = {
    "cross-bert": {},  # a sigmoid, as nothing else is said
    "cross-roberta": {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
    "cross-labels": {
        "sentence_transformers": {"activation_fn": "torch.nn.modules.activation.Tanh", "version": "4.1.0"}
    },
}
# Of the tiny encoders of other families: class, prefix, and the two matrices of the head.
FAMILIES = {
    "cross-xlm-roberta": (
        "XLMRobertaForSequenceClassification",
        "roberta.",
        "classifier.dense",
        "classifier.out_proj",
    ),
    "cross-multilingual": ("BertForSequenceClassification", "bert.", "bert.pooler.dense", "classifier"),
    "cross-distilbert": (
        "DistilBertForSequenceClassification",
        "distilbert.",
        "pre_classifier",
        "classifier",
    ),
    "cross-electra": (
        "ElectraForSequenceClassification",
        "electra.",
        "classifier.dense",
        "classifier.out_proj",
    ),
    "cross-mpnet": ("MPNetForSequenceClassification", "mpnet.", "classifier.dense", "classifier.out_proj"),
}
ENCODER = ("embeddings", "encoder.", "transformer.")  # what its names begin with
LABELS = {"cross-bert": 1, "cross-roberta": 1, "cross-labels": 3}


def build_tiny(name: str, folder: Path, data: Path) -> None:
    """Write a small cross-encoder with the tokenizer of the tiny BERT or RoBERTa of `data`."""
    family = "roberta" if name == "cross-roberta" else "bert"
    base = {"bert": checkpoints.TINY_BERT_CONFIG, "roberta": checkpoints.TINY_ROBERTA_CONFIG}[family]
    tokenizer = json.loads((data / f"tiny-{family}" / "tokenizer.json").read_text(encoding="utf-8"))
    config = base | TINY_SIZES | TINY[name] | {"vocab_size": len(tokenizer["model"]["vocab"])}
    weights = checkpoints.seeded_weights(config, seed=len(name), bias=checkpoints.TINY_BIAS)
    write(folder, config, checkpoints.tamed(weights, config), tokenizer, LABELS[name], checkpoints.TINY_LIMIT)


def build_family(name: str, folder: Path, data: Path) -> None:
    """Write a cross-encoder made of the tiny encoder of another family and a seeded classifier."""
    source = data / f"tiny-{name.removeprefix('cross-')}"
    class_name, prefix, dense, output = FAMILIES[name]
    folder.mkdir(parents=True, exist_ok=True)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    checkpoints.write_json(
        folder / "config.json", config | {"architectures": [class_name], "id2label": {"0": "LABEL_0"}}
    )
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).write_bytes((source / file).read_bytes())
    tensors = [item for file in sorted(source.glob("*.safetensors")) for item in load_file(file).items()]
    plain = {name.removeprefix(prefix): tensor for name, tensor in tensors}
    weights = {prefix + name: tensor for name, tensor in plain.items() if name.startswith(ENCODER)}
    width, bits = config.get("hidden_size") or config["dim"], np.random.PCG64(SEEDS.get(name, 50))
    for head, shape, gain in ((dense, (width, width), 1.0), (output, (1, width), HEAD_GAIN)):
        weights[f"{head}.weight"] = checkpoints.uniform(bits, shape, gain * math.sqrt(3 / width))
        weights[f"{head}.bias"] = checkpoints.uniform(bits, shape[:1], 0.5)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def build_full_size(folder: Path, minilm: Path) -> None:
    """Write a cross-encoder of MiniLM-L6's shape, with seeded weights and the genuine tokenizer."""
    tokenizer = json.loads((minilm / "tokenizer.json").read_text(encoding="utf-8"))
    config = checkpoints.TINY_BERT_CONFIG | FULL_SIZE
    weights = checkpoints.seeded_weights(config, seed=30, bias=checkpoints.FULL_SIZE_BIAS)
    write(folder, config, weights, tokenizer, 1, 128)


def write(
    folder: Path,
    config: dict[str, Any],
    weights: dict[str, NDArray[np.float32]],
    tokenizer: dict[str, Any],
    labels: int,
    limit: int,
) -> None:
    """Write a folder as transformers saves a classifier."""
    folder.mkdir(parents=True, exist_ok=True)
    family = config["model_type"]
    names = {str(index): f"LABEL_{index}" for index in range(labels)}
    class_name = {"bert": "BertForSequenceClassification", "roberta": "RobertaForSequenceClassification"}[
        family
    ]
    settings = {"architectures": [class_name], "id2label": names}
    checkpoints.write_json(folder / "config.json", config | settings)
    checkpoints.write_json(folder / "tokenizer.json", tokenizer)
    class_name = {"bert": "BertTokenizer", "roberta": "RobertaTokenizer"}[family]
    checkpoints.write_json(
        folder / "tokenizer_config.json", {"tokenizer_class": class_name, "model_max_length": limit}
    )
    save_file(
        with_head(family, weights, labels, config["hidden_size"]),
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )


def with_head(
    family: str, weights: dict[str, NDArray[np.float32]], labels: int, width: int
) -> dict[str, NDArray[np.float32]]:
    """Name the encoder's tensors as a part, and add a classifier: BERT's stands on its pooler."""
    bits = np.random.PCG64(40 + labels)
    named = {f"{family}.{name}": tensor for name, tensor in weights.items()}
    output = "classifier"
    if family == "roberta":
        for kind in ("weight", "bias"):
            named[f"classifier.dense.{kind}"] = named.pop(f"roberta.pooler.dense.{kind}")
        output = "classifier.out_proj"
    named[f"{output}.weight"] = checkpoints.uniform(bits, (labels, width), HEAD_GAIN * math.sqrt(3 / width))
    named[f"{output}.bias"] = checkpoints.uniform(bits, (labels,), 0.5)
    return named
