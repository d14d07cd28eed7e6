"""What the reference's cross-encoders give: the part of `make.py` that is about pairs of texts.

``cross-bert/``, ``cross-roberta/``, ``cross-labels/``
    Small cross-encoders with seeded weights: see ``tests/support/cross_checkpoints.py``. The reference saved the
    first one.
``cross-bert.npz``, ``cross-roberta.npz``, ``cross-labels.npz``, and one for each of ``cross_checkpoints.FAMILIES``
    Each pair scored alone, so that nothing is padded. S pairs, N tokens of all of them end to end, C labels:

    - ``pairs`` (str): a JSON list of two strings each
    - ``ids``, ``types`` (N,) int32, ``offsets`` (S + 1,) int64: pair s has the tokens ``offsets[s]:offsets[s + 1]``
    - ``logits`` (S, C) float64; ``scores`` (S,) or (S, C) float64: what ``predict`` gives
    - ``prompted`` float64: the same with ``prompt=PROMPT``; ``softmax`` float64: with ``apply_softmax=True``
    - ``fp32_error`` () float64: the largest absolute error of torch float32's scores
    - ``versions`` (str): a JSON object
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import CrossEncoder

from tests.support import cross_checkpoints

PROMPT = "find this: "
LONG = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
PAIRS = [
    ("", ""),
    ("a question", ""),
    ("", "an answer"),
    ("How many people live in Berlin?", "Berlin had 3,520,031 people in 2019."),
    ("How many people live in Berlin?", "It is known for its museums."),
    (" spaces  before and after ", "  two  "),
    ("[PAD] one [SEP] two [MASK]", "three [CLS][SEP]"),
    ("<pad> shift <pad>", "</s> and <mask> <s>"),
    ("caf\u00e9s \u4e2d\u6587", "\U0001f600 \u65e5\u672c"),
    (LONG, LONG),
    (LONG, "short"),
    ("short", LONG),
    (LONG, LONG[:24]),
    (LONG[:24], LONG),
    (LONG[:53], LONG[4:99]),
]


def load(folder: Path) -> CrossEncoder:
    return CrossEncoder(str(folder), device="cpu", local_files_only=True)


def golden_families(data: Path) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """The name of each cross-encoder of another family, and what it gives."""
    for name in cross_checkpoints.FAMILIES:
        with tempfile.TemporaryDirectory() as parent:
            cross_checkpoints.build_family(name, Path(parent) / name, data)
            yield name, golden_pairs(Path(parent) / name)


def make_cross_encoder(name: str, data: Path) -> None:
    """Write a checkpoint: as transformers saves it, or as the reference itself does today."""
    if name != "cross-bert":
        cross_checkpoints.build_tiny(name, data / name, data)
        return
    with tempfile.TemporaryDirectory() as old:
        cross_checkpoints.build_tiny(name, Path(old), data)
        CrossEncoder(old, device="cpu", local_files_only=True, prompts={"query": PROMPT}).save_pretrained(
            str(data / name), create_model_card=False
        )


def tokens(model: CrossEncoder, pair: tuple[str, str]) -> tuple[np.ndarray, np.ndarray]:
    """The reference's ids and types of one pair, truncated, without padding."""
    features = model.preprocess([pair])
    assert bool(features["attention_mask"].all())
    ids = features["input_ids"][0].numpy()
    types = features["token_type_ids"][0].numpy() if "token_type_ids" in features else np.zeros_like(ids)
    return ids.astype(np.int32), types.astype(np.int32)


def scores(model: CrossEncoder, pairs: list[tuple[str, str]], **arguments: Any) -> np.ndarray:
    """Scores of pairs, each alone, in whatever dtype the model has."""
    rows = [model.predict([pair], convert_to_tensor=True, **arguments) for pair in pairs]
    return torch.cat(rows).numpy()


def golden_pairs(folder: Path) -> dict[str, np.ndarray]:
    """Token ids, logits and scores in float64, and how far torch float32 is from them."""
    double = load(folder).double()
    rows = [tokens(double, pair) for pair in PAIRS]
    logits = scores(double, PAIRS, activation_fn=torch.nn.Identity())
    expected = scores(double, PAIRS)
    assert logits.dtype == expected.dtype == np.float64
    print(f"{folder.name}: logits from {logits.min():.2f} to {logits.max():.2f}, {double.activation_fn}")
    return {
        "pairs": np.array(json.dumps(PAIRS)),
        "ids": np.concatenate([ids for ids, _ in rows]),
        "types": np.concatenate([types for _, types in rows]),
        "offsets": np.cumsum([0, *(len(ids) for ids, _ in rows)], dtype=np.int64),
        "logits": logits.reshape(len(PAIRS), -1),
        "scores": expected,
        "prompted": scores(double, PAIRS, prompt=PROMPT),
        "softmax": scores(double, PAIRS, apply_softmax=True),
        "fp32_error": np.abs(scores(load(folder), PAIRS) - expected).max(),
    }
