"""The modules of a checkpoint: what comes after the transformer, as modules.json and the modules' folders say."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from minisbert.errors import CheckpointError, CheckpointNotFoundError, UnsupportedCheckpointError, shown
from minisbert.jsonfile import JsonFile, is_there, parse_json, read_json
from minisbert.links import refuse_link_out

__all__ = ["Module", "read_modules", "read_normalize", "read_pooling_mode"]


@dataclass(frozen=True)
class Module:
    """One step of the pipeline: the last part of its type's dotted name, and its folder."""

    kind: str
    folder: Path


def read_modules(folder: Path) -> tuple[Module, ...]:
    """Read the pipeline: Transformer, Pooling and perhaps Normalize; the first two where no file says."""
    path = folder / "modules.json"
    if not is_there(path):
        refuse_link_out(pooling := folder / "1_Pooling", folder)
        return (Module("Transformer", folder), Module("Pooling", pooling))
    entries = parse_json(path)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise CheckpointError(f"{path}: expected a list of objects, one a module")
    modules = tuple(_read_module(JsonFile(path, entry)) for entry in entries)
    kinds = tuple(module.kind for module in modules)
    if kinds not in {("Transformer", "Pooling"), ("Transformer", "Pooling", "Normalize")}:
        raise UnsupportedCheckpointError(
            f"{path}: the modules are {' -> '.join(kinds) or 'none'}; "
            "supported: Transformer -> Pooling, and that -> Normalize"
        )
    if not is_there(pooling := modules[1].folder / "config.json"):
        raise CheckpointNotFoundError(f"{pooling}: there is no such file, and {path.name} names it")
    return modules


def _read_module(entry: JsonFile) -> Module:
    kind = entry.get("type", str)
    if kind.split(".")[0] != "sentence_transformers":
        raise UnsupportedCheckpointError(
            f"{entry.path}: the module type {shown(kind)} is code of the checkpoint's own, which is never run"
        )
    name = entry.get("path", str, "")
    escapes = {PurePosixPath(name).is_absolute(), PureWindowsPath(name).anchor != "", "\0" in name}
    if True in escapes or ".." in PureWindowsPath(name).parts:
        raise CheckpointError(
            f"{entry.path}: path is {shown(name)}, which leads out of the checkpoint folder; "
            "expected a folder inside it, such as '1_Pooling'"
        )
    refuse_link_out(entry.path.parent / name, entry.path.parent)
    return Module(kind.split(".")[-1], entry.path.parent / name)


def read_pooling_mode(path: Path, hidden_size: int) -> str:
    """Check that the pooling is the mean, in either layout: ``pooling_mode_*`` booleans, or a name or list."""
    if not is_there(path):
        return "mean"
    file = read_json(path)
    width = file.get("embedding_dimension", int, file.optional("word_embedding_dimension", int))
    if width != hidden_size:
        raise CheckpointError(
            f"{path}: the pooling is for vectors of width {width}, and the transformer's have {hidden_size}"
        )
    others: dict[str, tuple[Any, ...]] = {key: (False,) for key in file.values if key not in _WIDTHS}
    mean = {"pooling_mode": ("mean", ["mean"]), "pooling_mode_mean_tokens": (True,)}
    file.refuse_unless(others | mean | {"include_prompt": (True,)})
    return "mean"


_WIDTHS = ("embedding_dimension", "word_embedding_dimension")


def read_normalize(path: Path) -> bool:
    """Check the settings of a Normalize module, which often has no file, and never needs one."""
    names = ("sentence_embedding",)
    read_json(path).refuse_unless({"module_input_name": names, "module_output_name": names})
    return True
