"""``minisbert info``: what a model is, and how it is run."""

from __future__ import annotations

import argparse
import platform
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import minisbert
from minisbert.cli.models import load_model
from minisbert.cli.report import print_json, print_lines
from minisbert.kernels.levels import CHOSEN

__all__ = ["info"]


def info(arguments: argparse.Namespace) -> None:
    """Print what the model is and how it is run."""
    facts = {"model": arguments.model} | _facts(load_model(arguments))
    if arguments.json:
        print_json([facts], indent=2)
        return
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        heading = f"{name.replace('_', ' '):<{width}}"
        print_lines([heading + f"\n{'':<{width}}".join(_shown(value) or ["none"])])


def _facts(encoder: minisbert.SentenceEncoder) -> dict[str, Any]:
    config, transformer = encoder.config, encoder.config.transformer
    return {
        "folder": str(encoder.path.absolute()),
        "architecture": transformer.model_type,
        "layers": transformer.num_hidden_layers,
        "width": transformer.hidden_size,
        "heads": transformer.num_attention_heads,
        "feed_forward": transformer.intermediate_size,
        "activation": transformer.hidden_act,
        "parameters": encoder.num_parameters,
        "vocabulary": transformer.vocab_size,
        "modules": ["Transformer", *map(str, config.modules)],
        "dimension": encoder.get_embedding_dimension(),
        "max_seq_length": encoder.max_seq_length,
        "max_positions": transformer.max_tokens,
        "similarity": encoder.similarity_fn_name,
        "prompts": encoder.prompts,
        "default_prompt": encoder.default_prompt_name,
        "backend": encoder.backend,
        "threads": encoder.num_threads,
        "dtype": encoder.dtype,
        "arithmetic": encoder.arithmetic,
        "cache": _cache(),
        "kernels": CHOSEN if encoder.backend in ("native", "jit") else None,  # the level of the processor
        "versions": _versions(),
    }


def _cache() -> str | None:
    """Return where checkpoints that are fetched by name are kept; None where they can't be fetched."""
    if find_spec("huggingface_hub") is None:
        return None
    from huggingface_hub.constants import HF_HUB_CACHE  # not needed by every command

    return HF_HUB_CACHE


def _versions() -> dict[str, str]:
    names = ["numpy", "tokenizers", "safetensors", "numba"]
    installed = {name: _version(name) for name in names if find_spec(name)}
    return {"minisbert": minisbert.__version__, "python": platform.python_version()} | installed


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:  # as where an image was made small by deleting what pip wrote down
        return "unknown"


def _shown(value: Any) -> list[str]:
    """Write a fact for people, in one line or more."""
    if isinstance(value, dict):
        return [f"{key}: {item}" for key, item in value.items() if item]
    if isinstance(value, list):
        return [" -> ".join(value)]
    return [f"{value:,}" if isinstance(value, int) else str(value or "none")]
