"""Running the reference, stage by stage: the part of `make.py` that is about the tiny encoders.

`make.py` says what is in the files.
"""

from __future__ import annotations

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

Arrays = dict[str, np.ndarray]


def load(folder: Path) -> SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu", local_files_only=True).eval()


def token_ids(model: SentenceTransformer, text: str) -> np.ndarray:
    """The reference's ids of one text, truncated, without padding."""
    features = model.preprocess([text])
    if not bool(features["attention_mask"].all()):
        sys.exit(f"tools.golden.make: the reference padded a text that was alone: {text[:60]!r}")
    return np.asarray(features["input_ids"][0].numpy(), dtype=np.int32)


def ragged(rows: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Rows end to end, and where each begins."""
    offsets = np.cumsum([0, *(len(row) for row in rows)], dtype=np.int64)
    return np.concatenate(rows), offsets


def stages(model: SentenceTransformer, texts: list[str]) -> Arrays:
    """Every stage of every text, each text alone, tokens end to end."""
    recorded: dict[str, list[np.ndarray]] = {}
    hooks = [attach(module, name, recorded) for module, name in hook_points(model)]
    with torch.inference_mode():
        for text in texts:
            model(model.preprocess([text]))
    for hook in hooks:
        hook.remove()
    return {name: np.concatenate(rows) for name, rows in recorded.items()}


# Where the stages of a layer are found, in order: as BERT and most others name its modules, DistilBERT, MPNet.
STAGES = ("query", "key", "value", "context", "attention", "intermediate", "output")
LAYER_MODULES = {
    "distilbert": "attention.q_lin attention.k_lin attention.v_lin attention.out_lin sa_layer_norm "
    "ffn.activation output_layer_norm",
    "mpnet": "attention.attn.q attention.attn.k attention.attn.v attention.attn.o attention.LayerNorm "
    "intermediate output",
}
BERT_MODULES = (
    "attention.self.query attention.self.key attention.self.value attention.output.dense attention.output "
    "intermediate output"
)


def hook_points(model: SentenceTransformer) -> list[tuple[torch.nn.Module, str]]:
    """The genuine modules whose outputs are the stages; a name that ends in ``context`` means the input."""
    encoder = model[0].auto_model
    points = [(encoder.embeddings, "embeddings")]
    if hasattr(encoder, "embeddings_project"):
        points.append((encoder.embeddings_project, "projected"))
    modules = LAYER_MODULES.get(encoder.config.model_type, BERT_MODULES).split()
    stack = encoder.transformer if encoder.config.model_type == "distilbert" else encoder.encoder
    for index, layer in enumerate(stack.layer):
        points += [
            (layer.get_submodule(module), f"layer{index}.{stage}")
            for module, stage in zip(modules, STAGES, strict=True)
        ]
    return [*points, (model[1], "pooled"), (model[2], "normalised")]


def attach(module: torch.nn.Module, name: str, recorded: dict[str, list[np.ndarray]]) -> Any:
    """Record what the module returns (or is given) under a name, one sentence's rows at a time."""

    def record(_module: torch.nn.Module, inputs: tuple[Any, ...], output: Any = None) -> None:
        value = inputs[0] if name.endswith("context") else output
        if not isinstance(value, torch.Tensor):  # sentence-transformers' modules pass one mapping along
            value = value["sentence_embedding"]
        rows = value.reshape(-1, value.shape[-1]).numpy().copy()
        recorded.setdefault(name, []).append(rows)

    return module.register_forward_hook(record)


# --- A golden file ------------------------------------------------------------------------------------


def golden_tiny(folder: Path, texts: list[str]) -> Arrays:
    """Every stage in float64, and how far torch float32 is from it."""
    single, double = load(folder), load(folder).double()
    golden = stages(double, texts)
    assert all(array.dtype == np.float64 for array in golden.values())
    errors = {name: largest_error(array, golden[name]) for name, array in stages(single, texts).items()}
    width = golden["pooled"].shape[1]
    relative = max(error / np.abs(golden[name]).max() for name, error in errors.items())
    golden["encode_query"] = double.encode_query(texts)
    golden["encode_document"] = double.encode_document(texts)
    golden["truncated"] = double.encode(texts, truncate_dim=width // 2, normalize_embeddings=True)
    ids, offsets = ragged([token_ids(double, text) for text in texts])
    report_entropy(folder.name, golden, offsets, double[0].auto_model.config.num_attention_heads)
    print(f"{folder.name}: torch float32's largest errors:", {name: f"{e:.1e}" for name, e in errors.items()})
    print(f"{folder.name}: ... at most {relative:.1e} of the largest value of the same stage")
    return {
        "texts": np.array(json.dumps(texts)),
        "ids": ids,
        "offsets": offsets,
        **golden,
        "fp32_errors": np.array(json.dumps(errors)),
    }


def largest_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max())


def report_entropy(name: str, golden: Arrays, offsets: np.ndarray, heads: int) -> None:
    """Print how far attention is from uniform: the mean over rows of entropy / log(T); 1 is uniform."""
    for index in range(sum(key.endswith(".query") for key in golden)):
        ratios: list[float] = []
        for first, last in pairwise(offsets):
            q, k = (
                split_heads(golden[f"layer{index}.{role}"][first:last], heads) for role in ("query", "key")
            )
            scores = torch.from_numpy(q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[2]))  # (H, T, T)
            weights = torch.softmax(scores, dim=-1)
            ratios += (torch.special.entr(weights).sum(-1) / np.log(last - first)).flatten().tolist()
        print(
            f"{name}: layer {index}: attention entropy {np.mean(ratios):.2f} of uniform, least {min(ratios):.2f}"
        )


def split_heads(rows: np.ndarray, heads: int) -> np.ndarray:
    return rows.reshape(len(rows), heads, -1).transpose(1, 0, 2)  # (H, T, K)
