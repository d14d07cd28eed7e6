"""The settings of a cross-encoder: how many labels it gives, and what turns its logits into scores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from minisbert.checkpoint.config import (
    TextConfig,
    check_folder,
    is_cross_encoder,
    kind_key,
    read_prompts,
    read_sentence_config,
    read_text_settings,
    read_transformer,
)
from minisbert.checkpoint.jsonfile import JsonFile, is_there, read_json
from minisbert.checkpoint.modules_json import entry_files, read_entry
from minisbert.errors import CheckpointError, UnsupportedCheckpointError, shown

__all__ = ["SCORE_ACTIVATIONS", "CrossEncoderConfig", "read_cross_config"]

# Classes of torch.nn, by the last part of their dotted names; `minisbert.engine.scores` computes them.
SCORE_ACTIVATIONS = ("Identity", "Sigmoid", "Tanh", "ReLU", "SiLU")
MAX_LABELS = 2**16  # far more than anybody has: a bound, so that a damaged number can't keep us busy


@dataclass(frozen=True, kw_only=True)
class CrossEncoderConfig(TextConfig):
    """Everything that the JSON files of a checkpoint folder say about how to score a pair of texts."""

    num_labels: int
    activation_fn: str


def read_cross_config(folder: Path) -> CrossEncoderConfig:
    """Read the JSON files of a cross-encoder's folder.

    There are two layouts. Newer ones have a ``modules.json`` with the one module Transformer, and settings in
    ``config_sentence_transformers.json`` and ``sentence_bert_config.json``. Without that file it is a checkpoint
    of transformers, and the other two are not read: sentence-transformers doesn't either.

    Raises
    ------
    CheckpointNotFoundError
        If the folder or its ``config.json`` is not there.
    CheckpointError
        If a file is damaged or a value impossible.
    UnsupportedCheckpointError
        If it is no cross-encoder, or a setting asks for something that is not computed here.
    """
    check_folder(folder)
    _check_kind(folder)
    saved, settings = _read_module_files(folder)
    path = settings.path.parent / "config.json"
    transformer = read_transformer(path)
    max_seq_length, do_lower_case = read_text_settings(settings, transformer, "sequence-classification")
    prompts, default_prompt_name = read_prompts(saved)
    labels = _read_num_labels(read_json(path))
    return CrossEncoderConfig(
        folder=folder,
        transformer_folder=path.parent,
        transformer=transformer,
        max_seq_length=max_seq_length,
        do_lower_case=do_lower_case,
        prompts=prompts,
        default_prompt_name=default_prompt_name,
        num_labels=labels,
        activation_fn=_read_activation(saved, read_json(path)) or ("Sigmoid" if labels == 1 else "Identity"),
    )


def _check_kind(folder: Path) -> None:
    if is_cross_encoder(folder):
        return
    file, key = kind_key(folder)
    if key == "architectures":
        read_transformer(file.path)  # it may be missing, or of another family altogether
    expected = {"architectures": "one ForSequenceClassification", "model_type": "CrossEncoder"}[key]
    raise UnsupportedCheckpointError(
        f"{file.path}: {key} is {shown(file.values.get(key))}, and that of a cross-encoder is {expected}; for "
        "vectors of sentences, load it with minisbert.load"
    )


def _read_module_files(folder: Path) -> tuple[JsonFile, JsonFile]:
    """Return the settings of the model and those of its one module; without modules there are none."""
    path = folder / "modules.json"
    if not is_there(path):
        return JsonFile(path, {}), JsonFile(folder / "sentence_bert_config.json", {})
    entries = [read_entry(file) for file in entry_files(path)]
    kinds = [entry.kind for entry in entries]
    if kinds != ["Transformer"]:
        raise UnsupportedCheckpointError(
            f"{path}: the modules of the cross-encoder are {' -> '.join(kinds) or 'none'}; supported: Transformer"
        )
    settings = read_sentence_config(entries[0].folder)
    settings.get("transformer_task", str)  # where it is missing, features are meant, and nothing gives scores
    return read_json(folder / "config_sentence_transformers.json"), settings


def _read_num_labels(file: JsonFile) -> int:
    """Count the labels: `id2label` has their names, and is left out where there are two."""
    names = file.optional("id2label", dict)
    count = file.size("num_labels", MAX_LABELS, 2 if names is None else len(names))
    if names is not None and len(names) != count:
        raise CheckpointError(
            f"{file.path}: num_labels is {count}, and id2label has {len(names)} names; expected as many"
        )
    return count


def _read_activation(saved: JsonFile, file: JsonFile) -> str | None:
    """Return the name of the activation; three generations of sentence-transformers wrote it in three places."""
    section = JsonFile(file.path, file.get("sentence_transformers", dict, {}))
    places = [(saved, "activation_fn"), (section, "activation_fn")]
    if "activation_fn" not in section.values:  # a null there hides the oldest key
        places.append((file, "sbert_ce_default_activation_function"))
    for place, key in places:
        name = place.optional(key, str)
        if name is not None:
            return _activation_name(place.path, key, name)
    return None


def _activation_name(path: Path, key: str, dotted: str) -> str:
    name = dotted.split(".")[-1]
    if not dotted.startswith("torch.nn.") or name not in SCORE_ACTIVATIONS:
        raise UnsupportedCheckpointError(
            f"{path}: {key} is {shown(dotted)}, which minisbert does not compute; supported: "
            f"{', '.join(f'torch.nn.{name}' for name in SCORE_ACTIVATIONS)}"
        )
    return name
