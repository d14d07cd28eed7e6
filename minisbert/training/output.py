"""The trained checkpoint: a folder in the layout of sentence-transformers 6, with a model card."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np

import minisbert
from minisbert.arrays import Floats
from minisbert.checkpoint.config import CheckpointConfig, read_sentence_config
from minisbert.checkpoint.jsonfile import read_json
from minisbert.checkpoint.modules import Module, Pooling, shapes_of
from minisbert.checkpoint.tensors import tensor_uses
from minisbert.training.parameters import Parameters

__all__ = ["plot_losses", "write_checkpoint"]

# Of the transformer's folder, what a tokenizer is made of; settings that are written anew are not here.
COPIED = (
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer*.json",
    "vocab.*",
    "merges.txt",
    "*.model",
)
TYPES = {
    "Pooling": "sentence_transformer.modules.pooling",
    "Normalize": "base.modules.normalize",
    "Dense": "base.modules.dense",
    "LayerNorm": "sentence_transformer.modules.layer_norm",
    "Dropout": "sentence_transformer.modules.dropout",
    "WeightedLayerPooling": "sentence_transformer.modules.weighted_layer_pooling",
}
DTYPES = {"float32": "F32", "float64": "F64"}


def write_checkpoint(folder: Path, parameters: Parameters, weights: Floats, card: str) -> None:
    """Write a checkpoint of the weights (size,) into an empty folder: settings and names are those of the base.

    Tensors that are not trained, such as a pooler's, are carried over.
    """
    config = parameters.config
    source, dtype = config.transformer_folder, weights.dtype.name
    for path in source.iterdir():
        if path.is_file() and any(fnmatchcase(path.name, pattern) for pattern in COPIED):
            copyfile(path, folder / path.name)
    settings = dict(read_json(source / "config.json").values)
    names = [name for name in ("dtype", "torch_dtype") if name in settings] or ["dtype"]
    _write_json(folder / "config.json", settings | dict.fromkeys(names, dtype))
    limits = {"max_seq_length": config.max_seq_length, "do_lower_case": config.do_lower_case}
    _write_json(folder / "sentence_bert_config.json", {**read_sentence_config(source).values, **limits})
    _write_json(folder / "config_sentence_transformers.json", _sentence_settings(config))
    write_tensors(folder / "model.safetensors", _transformer_tensors(parameters, weights))
    places = [
        _write_module(folder, i, module, parameters, weights) for i, module in enumerate(config.modules)
    ]
    kinds = ["base.modules.transformer.Transformer"]
    kinds += [f"{TYPES[type(module).__name__]}.{type(module).__name__}" for module in config.modules]
    lines = [
        {"idx": i, "name": str(i), "path": place, "type": f"sentence_transformers.{kind}"}
        for i, (place, kind) in enumerate(zip(["", *places], kinds, strict=True))
    ]
    _write_json(folder / "modules.json", lines)
    (folder / "README.md").write_text(card, encoding="utf-8")


def _sentence_settings(config: CheckpointConfig) -> dict[str, Any]:
    values = read_json(config.folder / "config_sentence_transformers.json").values
    versions = {**(values.get("__version__") or {}), "minisbert": minisbert.__version__}
    fixed = {"model_type": "SentenceTransformer", "similarity_fn_name": config.similarity_fn_name}
    prompts = {"prompts": dict(config.prompts), "default_prompt_name": config.default_prompt_name}
    return {**values, "__version__": versions, **prompts, **fixed}


def _write_module(folder: Path, index: int, module: Module, parameters: Parameters, weights: Floats) -> str:
    """Write a module's folder, and return its name; without modules.json a base has a mean pooling and no folder."""
    kind = type(module).__name__
    place = f"{index + 1}_{kind}"
    (folder / place).mkdir()
    has_folder = module.folder != parameters.config.transformer_folder
    settings = read_json(module.folder / "config.json").values if has_folder else {}
    if isinstance(module, Pooling) and not settings:
        settings = {"embedding_dimension": parameters.config.transformer.hidden_size, "pooling_mode": "mean"}
    _write_json(folder / place / "config.json", settings)
    if names := list(shapes_of(module)):
        views = {name: parameters.view(weights, f"modules.{index}.{name}") for name in names}
        write_tensors(folder / place / "model.safetensors", views)
    return place


def _transformer_tensors(parameters: Parameters, weights: Floats) -> dict[str, Any]:
    """Return the trained tensors by their names in the base, and what else there is in it, but for copies."""
    config = parameters.config
    found: dict[str, Any] = {}
    for use in tensor_uses(config.transformer_folder, config.transformer):
        if use.role is not None:
            found[use.name] = parameters.view(weights, use.role)
        elif use.start and use.start != use.name:
            found |= _stored(use.path, use.name)
    return found


def _stored(path: Path, name: str) -> dict[str, tuple[str, list[int], bytes]]:
    """Return a tensor of a file as it is stored."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(size))[name]
        start, stop = entry["data_offsets"]
        file.seek(8 + size + start)
        return {name: (entry["dtype"], entry["shape"], file.read(stop - start))}


def write_tensors(path: Path, tensors: Mapping[str, Any]) -> None:
    """Write a safetensors file, of arrays or of what `_stored` returns, without a copy of them all in memory."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start, contents = 0, []
    for name, tensor in tensors.items():
        if isinstance(tensor, np.ndarray):
            tensor = (DTYPES[tensor.dtype.name], list(tensor.shape), np.ascontiguousarray(tensor))
        dtype, shape, content = tensor
        stop = start + memoryview(content).nbytes
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}
        contents.append(content)
        start = stop
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        for part in (len(encoded).to_bytes(8, "little"), encoded, *contents):
            file.write(part)


def _write_json(path: Path, values: Any) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def plot_losses(
    path: Path, losses: Sequence[float], evaluations: Sequence[tuple[int, float]], metric: str
) -> None:
    """Draw the loss of each step, and what evaluations gave, where matplotlib is installed."""
    if find_spec("matplotlib") is None:
        return
    from matplotlib.figure import Figure  # no window, and no other figure of whoever calls

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="loss")
    axes.plot(range(1, len(losses) + 1), losses, linewidth=0.8)
    if evaluations:
        other = axes.twinx()
        other.plot(*zip(*evaluations, strict=True), "o-", color="tab:orange")
        other.set_ylabel(metric)
    figure.savefig(path, dpi=120)
