"""Checkpoints with every kind of module after the tiny BERT, whose weights they share: for tests and golden files.

The weights of the modules are seeded, as those of `checkpoints` are, so that only results have to be stored.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tests.support import checkpoints

WIDTH, LAYERS = 75, 3  # of the tiny BERT
MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
# All of torch.nn that a checkpoint can name and that keeps a vector's width.
ACTIVATIONS = (
    "CELU", "ELU", "GELU", "Hardshrink", "Hardsigmoid", "Hardswish", "Hardtanh", "Identity", "LeakyReLU",
    "LogSigmoid", "LogSoftmax", "Mish", "PReLU", "RReLU", "ReLU", "ReLU6", "SELU", "SiLU", "Sigmoid", "Softmax",
    "Softmin", "Softplus", "Softshrink", "Softsign", "Tanh", "Tanhshrink",
)  # fmt: skip
TEXTS = [
    "",
    "t",  # with a prompt that ends in "tha" it is one token, and shorter than the prompt alone
    "The cat can't see 3 caf\u00e9s \u4e2d\u6587 \U0001f600",
    "[PAD] one [PAD][SEP] two [MASK]",
    "This text is longer than the limit, so the reference cuts it: one two three four five six seven eight nine.",
]
PROMPT = "Represent this: "
LONG_PROMPT = (
    "a prompt that is all by itself longer than the limit of this model, so that nothing else is left " * 2
)

Spec = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """What follows the transformer, in order, and how it is asked."""

    modules: tuple[Spec, ...]
    prompt: str = ""
    output_value: str = "sentence_embedding"


def pooling(*modes: str, width: int = WIDTH, **more: Any) -> Spec:
    mode = modes[0] if len(modes) == 1 else list(modes)
    return "Pooling", {"embedding_dimension": width, "pooling_mode": mode, **more}


def old_pooling(*modes: str, **more: Any) -> Spec:
    """Pooling settings as 2.x to 5.3 write them."""
    names = {mode: f"pooling_mode_{mode}{'' if 'token' in mode else '_tokens'}" for mode in MODES}
    names["cls"] = "pooling_mode_cls_token"
    return "Pooling", {
        "word_embedding_dimension": WIDTH,
        **{names[mode]: mode in modes for mode in MODES},
        **more,
    }


def dense(
    out: int = 8, activation: str = "Tanh", width: int = WIDTH, package: str | None = None, **more: Any
) -> Spec:
    package = package or f"torch.nn.modules.{'linear' if activation == 'Identity' else 'activation'}"
    return "Dense", {
        "in_features": width,
        "out_features": out,
        "bias": True,
        "activation_function": f"{package}.{activation}",
        **more,
    }


def on_tokens(spec: Spec) -> Spec:
    names = dict.fromkeys(("module_input_name", "module_output_name"), "token_embeddings")
    return spec[0], {**spec[1], **names}


def weighted_layers(start: int = 1, **more: Any) -> Spec:
    settings = {"embedding_dimension": WIDTH, "layer_start": start, "num_hidden_layers": LAYERS, **more}
    return "WeightedLayerPooling", settings


NORMALIZE: Spec = ("Normalize", {})
NORM: Spec = ("LayerNorm", {"dimension": WIDTH})
DROPOUT: Spec = ("Dropout", {"dropout": 0.5})
NO_PROMPT = {"include_prompt": False}


def _cases() -> dict[str, Case]:
    mean = pooling("mean")
    stacks: dict[str, tuple[Spec, ...]] = {
        **{f"pooling {mode}": (pooling(mode),) for mode in MODES},
        "pooling all, old": (old_pooling(*MODES),),
        "pooling two, as listed": (pooling("mean", "cls"), NORMALIZE),
        "pooling two, old order": (old_pooling("mean", "cls"), NORMALIZE),
        "pooling one twice": (pooling("mean", "mean"),),
        "pooling none, old": (old_pooling(),),
        "pooling again": (pooling("mean", "cls"), pooling("max")),
        **{f"dense {name}": (mean, dense(activation=name)) for name in ACTIVATIONS},
        "dense without bias": (mean, dense(bias=False), NORMALIZE),
        "dense of defaults": (mean, ("Dense", {"in_features": WIDTH, "out_features": 8})),
        "dense by a short name": (mean, dense(package="torch.nn", activation="ReLU")),
        "dense residual": (mean, dense(WIDTH, "GELU", use_residual=True)),
        "dense residual, other width": (mean, dense(9, "Sigmoid", use_residual=True)),
        "dense after dense": (pooling("cls", "mean"), dense(20, width=150), dense(5, "Identity", width=20)),
        "dense of tokens": (on_tokens(dense(12)), pooling("mean", "max", width=12), NORMALIZE),
        "dense of tokens, mish": (on_tokens(dense(12, "Mish")), pooling("cls", width=12)),
        "normalize of tokens": (on_tokens(NORMALIZE), mean),
        "normalize before pooling": (NORMALIZE, mean),
        "layer norm": (mean, NORM),
        "dropout": (mean, DROPOUT, dense(7, bias=False), NORMALIZE),
        "layers": (weighted_layers(), mean),
        "layers from the embeddings": (weighted_layers(0), pooling("cls"), NORM, NORMALIZE),
        "layers over dense": (on_tokens(dense(12)), weighted_layers(3), pooling("mean")),
    }
    cases = {name: Case(modules) for name, modules in stacks.items()}
    for name, prompt in {"": PROMPT, ", long": LONG_PROMPT, ", half a word": "tha"}.items():
        for mode in MODES:
            if mode != "max" or prompt == PROMPT:
                cases[f"without the prompt{name}: {mode}"] = Case((pooling(mode, **NO_PROMPT),), prompt)
    cases["with the prompt"] = Case((old_pooling("mean", include_prompt=True),), PROMPT)
    cases["without the prompt, old"] = Case((old_pooling("mean", **NO_PROMPT), NORMALIZE), PROMPT)
    tokens = (on_tokens(dense(6)), on_tokens(NORMALIZE), pooling("mean", width=6))
    cases["tokens"] = Case(tokens, PROMPT, "token_embeddings")
    return cases


CASES = _cases()

STYLES = ("2", "5.4", "6")
FILES = {"LayerNorm": "layer_norm", "WeightedLayerPooling": "weighted_layer_pooling"}


def type_name(kind: str, style: str) -> str:
    """The dotted name of a module's class in a version of sentence-transformers."""
    if style == "2":
        return f"sentence_transformers.models.{kind}"
    is_base = kind in ("Transformer", "Dense") or (kind == "Normalize" and style == "6")
    package = "base" if is_base else "sentence_transformer"
    return f"sentence_transformers.{package}.modules.{FILES.get(kind, kind.lower())}.{kind}"


def build(folder: Path, tiny_bert: Path, modules: tuple[Spec, ...], style: str = "6") -> Path:
    """Write a checkpoint: the tiny BERT's files, and these modules with seeded weights."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in tiny_bert.iterdir():
        if file.is_file():
            shutil.copyfile(file, folder / file.name)
    config = json.loads((folder / "config.json").read_text())
    layers = any(kind == "WeightedLayerPooling" for kind, _ in modules)
    checkpoints.write_json(folder / "config.json", {**config, "output_hidden_states": layers})
    write_modules(folder, modules, style)
    return folder


def write_modules(folder: Path, modules: Sequence[Spec], style: str = "6") -> None:
    """Write modules.json and the folders of the modules, with seeded weights."""
    lines = [{"idx": 0, "name": "0", "path": "", "type": type_name("Transformer", style)}]
    for index, (kind, settings) in enumerate(modules, 1):
        place = f"{index}_{kind}"
        lines.append({"idx": index, "name": str(index), "path": place, "type": type_name(kind, style)})
        if settings:
            (folder / place).mkdir(exist_ok=True)
            checkpoints.write_json(folder / place / "config.json", settings)
        if tensors := seeded(kind, settings, seed=100 + index):
            save_file(tensors, folder / place / "model.safetensors")
    checkpoints.write_json(folder / "modules.json", lines)


def seeded(kind: str, settings: dict[str, Any], seed: int) -> dict[str, NDArray[np.float32]]:
    """The weights of a module: sums of order one, no zero bias."""
    bits = np.random.PCG64(seed)
    if kind == "LayerNorm":
        shape = (settings["dimension"],)
        return {
            "norm.weight": checkpoints.uniform(bits, shape, 0.5) + np.float32(1),
            "norm.bias": checkpoints.uniform(bits, shape, 0.5),
        }
    if kind == "WeightedLayerPooling":
        count = settings["num_hidden_layers"] + 1 - settings["layer_start"]
        return {"layer_weights": checkpoints.uniform(bits, (count,), 0.5) + np.float32(1)}
    if kind != "Dense":
        return {}
    shape = (settings["out_features"], settings["in_features"])
    bound = math.sqrt(3 / shape[1])
    tensors = {"linear.weight": checkpoints.uniform(bits, shape, bound)}
    if settings.get("bias", True):
        tensors["linear.bias"] = checkpoints.uniform(bits, shape[:1], 0.5)
    if settings.get("use_residual") and shape[0] != shape[1]:
        tensors["residual.weight"] = checkpoints.uniform(bits, shape, bound)
    if settings.get("activation_function", "").endswith("PReLU"):
        tensors["activation_function.weight"] = checkpoints.uniform(bits, (1,), 0.5)
    return tensors
