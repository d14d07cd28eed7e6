"""The trained checkpoint: a folder in the layout of sentence-transformers 6, with a model card and a plot."""

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
from minisbert.checkpoint.files import map_file
from minisbert.checkpoint.jsonfile import read_json, write_json
from minisbert.checkpoint.modules import Module, Pooling, shapes_of
from minisbert.checkpoint.modules_json import WIDTHS
from minisbert.checkpoint.stored import read_header, weights_files, write_tensors
from minisbert.checkpoint.tensors import tensor_uses
from minisbert.convert import write_config
from minisbert.training.parameters import Parameters

__all__ = ["model_card", "plot_losses", "write_checkpoint"]

# Of the transformer's folder: what is written anew is not here.
COPIED = (
    "config.json", "tokenizer*.json", "added_tokens.json", "special_tokens_map.json", "vocab.*", "merges.txt", "*.model"
)  # fmt: skip
TYPES = {
    "Transformer": "base.modules.transformer",
    "Pooling": "sentence_transformer.modules.pooling",
    "Normalize": "base.modules.normalize",
    "Dense": "base.modules.dense",
    "LayerNorm": "sentence_transformer.modules.layer_norm",
    "Dropout": "sentence_transformer.modules.dropout",
    "WeightedLayerPooling": "sentence_transformer.modules.weighted_layer_pooling",
}
DTYPES = {"float32": "F32", "float64": "F64"}
_CARD = """\
---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
tags:
- sentence-transformers
- sentence-similarity
- feature-extraction
- loss:{loss}
---

# {title}

A Sentence-BERT model, fine-tuned from {base} by [minisbert](https://pypi.org/project/minisbert/) {version}. It gives
vectors of {dimension} components, and reads {max_seq_length} tokens of a text.

```python
import minisbert  # or: from sentence_transformers import SentenceTransformer

encoder = minisbert.load({title!r})  # or: SentenceTransformer({title!r})
vectors = encoder.encode(["A first sentence.", "A second one."])
```

## Training

{data}

{steps:,} steps with the loss `{loss}`; the mean loss of the first tenth of the steps was {first:.4f}, and of the last
tenth {last:.4f}. `train.jsonl` has the loss of each step.{evaluations}

The parameters of `minisbert.training.fit`:

```json
{parameters}
```
"""
# A tensor's dtype, as safetensors names it, its shape, and its numbers or bytes.
Tensor = tuple[str, tuple[int, ...], Any]


def write_checkpoint(folder: Path, parameters: Parameters, weights: Floats, card: str) -> None:
    """Write a checkpoint of the weights (size,) into an empty folder: settings and names are those of the base.

    Tensors that are not trained, such as a pooler's, are carried over.
    """
    config, places = parameters.config, [("Transformer", "")]
    source = config.transformer_folder
    for path in source.iterdir():
        if path.is_file() and any(fnmatchcase(path.name, pattern) for pattern in COPIED):
            copyfile(path, folder / path.name)
    write_config(folder / "config.json", weights.dtype.name)
    limits = {"max_seq_length": config.max_seq_length, "do_lower_case": config.do_lower_case}
    write_json(folder / "sentence_bert_config.json", {**read_sentence_config(source).values, **limits})
    write_json(folder / "config_sentence_transformers.json", _sentence_settings(config))
    _write_weights(folder, _transformer_tensors(parameters, weights))
    for i, module in enumerate(config.modules):
        kind = type(module).__name__
        places.append((kind, f"{i + 1}_{kind}"))
        (folder / places[-1][1]).mkdir()
        write_json(folder / places[-1][1] / "config.json", _module_settings(module, config))
        if names := list(shapes_of(module)):
            views = {name: parameters.view(weights, f"modules.{i}.{name}") for name in names}
            _write_weights(folder / places[-1][1], {name: _tensor(view) for name, view in views.items()})
    lines = [
        {"idx": i, "name": str(i), "path": place, "type": f"sentence_transformers.{TYPES[kind]}.{kind}"}
        for i, (kind, place) in enumerate(places)
    ]
    write_json(folder / "modules.json", lines)
    (folder / "README.md").write_text(card, encoding="utf-8")


def _sentence_settings(config: CheckpointConfig) -> dict[str, Any]:
    values = read_json(config.folder / "config_sentence_transformers.json").values
    versions = {**(values.get("__version__") or {}), "minisbert": minisbert.__version__}
    fixed = {"model_type": "SentenceTransformer", "similarity_fn_name": config.similarity_fn_name}
    prompts = {"prompts": dict(config.prompts), "default_prompt_name": config.default_prompt_name}
    return {**values, "__version__": versions, **prompts, **fixed}


def _module_settings(module: Module, config: CheckpointConfig) -> Mapping[str, Any]:
    """Return a module's settings; a base without modules.json has a mean pooling and no folder of it."""
    has_folder = module.folder != config.transformer_folder
    settings = read_json(module.folder / "config.json").values if has_folder else {}
    if not isinstance(module, Pooling):
        return settings
    width = next((settings[name] for name in WIDTHS if name in settings), config.transformer.hidden_size)
    mode = module.modes[0] if len(module.modes) == 1 else module.modes
    return {"embedding_dimension": width, "pooling_mode": mode, "include_prompt": module.include_prompt}


def _tensor(array: Floats) -> Tensor:
    return DTYPES[array.dtype.name], array.shape, array


def _transformer_tensors(parameters: Parameters, weights: Floats) -> dict[str, Tensor]:
    """Return the trained tensors by their names in the base, and what else there is in it, but for copies."""
    folder, found = parameters.config.transformer_folder, {}
    entries = {entry.name: entry for path in weights_files(folder)[1] for entry in read_header(path)}
    for use in tensor_uses(folder, parameters.config.transformer):
        if use.role is not None:
            found[use.name] = _tensor(parameters.view(weights, use.role))
        elif use.start != use.name:
            entry = entries[use.name]
            content = np.frombuffer(map_file(entry.path), np.uint8, entry.stop - entry.start, entry.start)
            found[use.name] = entry.dtype, entry.shape, content
    return found


def _write_weights(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    kinds = {name: (dtype, shape) for name, (dtype, shape, _) in tensors.items()}
    parts = ((name, content) for name, (_, _, content) in tensors.items())
    write_tensors(folder / "model.safetensors", kinds, parts, "pt")


def model_card(
    record: Any, base: str, arguments: dict[str, Any], data: Mapping[str, int], config: CheckpointConfig
) -> str:
    """Write the README of a checkpoint, of what `fit` has done; `data` has the number of rows of each data set."""
    losses, tenth = record.losses, max(1, len(record.losses) // 10)
    rows = [
        f"| {step} | {score:.4f}{', kept' * (step == record.best_step)} |"
        for step, score in record.evaluations
    ]
    table = ["", "", f"| step | {record.metric} |", "|---|---|", *rows] if rows else []
    return _CARD.format(
        title=record.output.name,
        base=Path(base).name if Path(base).exists() else base,
        version=minisbert.__version__,
        dimension=config.embedding_dimension,
        max_seq_length=config.max_seq_length,
        data="\n".join(f"- {Path(name).name}: {count:,} rows" for name, count in data.items()),
        steps=len(losses),
        loss=arguments["loss"],
        first=sum(losses[:tenth]) / tenth,
        last=sum(losses[-tenth:]) / tenth,
        evaluations="\n".join(table),
        parameters=json.dumps(arguments, indent=2),
    )


def plot_losses(
    path: Path, losses: Sequence[float], evaluations: Sequence[tuple[int, float]], metric: str
) -> None:
    """Draw the loss of each step, and what evaluations gave, where matplotlib is installed."""
    if find_spec("matplotlib") is None:
        return
    from matplotlib.figure import Figure  # no window, and no other figure of whoever calls
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="step")
    axes.plot(range(1, len(losses) + 1), losses, ".-", color="tab:blue", linewidth=0.8, markersize=3)
    axes.set_ylabel("loss", color="tab:blue")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if evaluations:
        other = axes.twinx()
        other.plot(*zip(*evaluations, strict=True), "o-", color="tab:orange")
        other.set_ylabel(metric, color="tab:orange")
    figure.savefig(path, dpi=120)
