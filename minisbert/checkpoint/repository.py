"""Which files of a repository make a checkpoint: in a folder that may lack some of them, or in the hub's list."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from itertools import chain
from pathlib import Path

from minisbert.checkpoint.conversion import PICKLED, PIECES
from minisbert.checkpoint.jsonfile import parse_json
from minisbert.errors import CheckpointError

__all__ = [
    "INDEX",
    "INT8_WEIGHTS",
    "QUANTIZATION",
    "SETTINGS",
    "TOKENIZER",
    "WEIGHTS",
    "WHOLE",
    "missing_file",
    "module_folders",
    "settings_files",
    "shards",
    "unreadable_files",
    "weights_name",
]

# What vectors depend on besides the weights, by name: never pickles or other formats of the weights.
SETTINGS = (
    "adapter_config.json",
    "added_tokens.json",
    "config.json",
    "modules.json",
    "sentence_*_config.json",
    "config_sentence_transformers.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
TOKENIZER = "tokenizer.json"
VOCABULARIES = (("vocab.txt",), ("vocab.json", "merges.txt"))  # the files of one stand in for tokenizer.json
SENTENCEPIECE = ("sentencepiece.bpe.model", "spiece.model")
WEIGHTS = "model.safetensors"
INT8_WEIGHTS = "model.int8.safetensors"
QUANTIZATION = "minisbert_quantization"  # the key in config.json of what has these: see `checkpoint.int8`
INDEX = "model.safetensors.index.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")

# The files that a module can't do without; what it is not checked for here is left to whoever reads it.
NEEDED = {
    "Transformer": ("config.json", TOKENIZER, WEIGHTS),
    "Pooling": ("config.json",),
    "Dense": ("config.json", WEIGHTS),
    "LayerNorm": ("config.json", WEIGHTS),
    "WeightedLayerPooling": ("config.json", WEIGHTS),
}

# One of these is in nearly every repository, and is fetched by those who fetch all of it.
WHOLE = ("README.md", ".gitattributes")


def missing_file(folder: Path, is_known: Callable[[str], bool]) -> str:
    """Return the name of a file that a snapshot lacks, or nothing if it is complete.

    `is_known` says whether it is known if the repository has a file.
    """

    def is_there(file: str) -> bool:
        return (folder / file).is_file()

    if not is_known("modules.json"):
        return "modules.json"
    for kind, prefix in module_folders(folder / "modules.json"):
        for name in NEEDED.get(kind, ()):
            if name == TOKENIZER and is_known(prefix + name) and _has_vocabulary(is_there, prefix):
                continue
            files = _weights(folder, prefix) if name == WEIGHTS else [prefix + name]
            if lost := next((file for file in files if not is_there(file)), None):
                return lost
    return ""


def _has_vocabulary(has: Callable[[str], bool], prefix: str) -> bool:
    """Whether there are files of which a tokenizer can be made without tokenizer.json."""
    return any(all(has(prefix + name) for name in vocabulary) for vocabulary in VOCABULARIES)


def _weights(folder: Path, prefix: str) -> list[str]:
    """Return the files of a module's weights: one, or all that an index names."""
    index, name = folder / (prefix + INDEX), prefix + weights_name(folder, prefix)
    if (folder / name).is_file() or not index.is_file():
        return [name]
    return [prefix + shard for shard in shards(index)]


def weights_name(folder: Path, prefix: str) -> str:
    """Return what the file of a module's weights is called, if it is one; a wrong config.json is refused later."""
    config = folder / f"{prefix}config.json"
    with suppress(CheckpointError):
        values = parse_json(config) if config.is_file() else None
        if isinstance(values, dict) and QUANTIZATION in values:
            return INT8_WEIGHTS
    return WEIGHTS


def shards(index: Path) -> list[str]:
    """Return the names in an index that are plain file names; a wrong index is refused when it is loaded."""
    values = parse_json(index)
    names = values.get("weight_map") if isinstance(values, dict) else None
    texts = {name for name in names.values() if isinstance(name, str)} if isinstance(names, dict) else set()
    return sorted(name for name in texts if fnmatchcase(name, "*.safetensors") and "/" not in name)


def module_folders(path: Path) -> Iterator[tuple[str, str]]:
    """Yield kind and folder of each module, as far as they can be read: they are checked when they are loaded.

    Of the folder, what stands before the names of its files: nothing, or its path and a slash.
    """
    if not path.is_file():
        yield "Transformer", ""
        return
    entries = parse_json(path)
    for entry in entries if isinstance(entries, list) else ():
        if isinstance(entry, dict):
            kind, folder = str(entry.get("type")).split(".")[-1], str(entry.get("path") or "")
            if ".." not in Path(folder).parts and not Path(folder).is_absolute() and "\0" not in folder:
                yield kind, f"{folder.strip('/')}/".lstrip("/")


def settings_files(files: Collection[str], prefix: str) -> list[str]:
    """Return the files of settings that a repository has in one of its folders, and of the tokenizer."""
    patterns = SETTINGS if prefix + TOKENIZER in files else (*SETTINGS, *chain(*VOCABULARIES))
    names = {file: file.removeprefix(prefix) for file in files if file.startswith(prefix)}
    return [
        file
        for file, name in names.items()
        if any(fnmatchcase(name, p) for p in patterns) and "/" not in name
    ]


def unreadable_files(files: Collection[str], modules: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Say of each file of a repository that is not opened here what it is, if what should be there is not."""
    for kind, prefix in modules:
        if not any(prefix + name in files for name in (WEIGHTS, INT8_WEIGHTS, INDEX)):
            yield from (f"{prefix}{name}: {PICKLED}" for name in PICKLES if prefix + name in files)
        tokenizer = prefix + TOKENIZER in files or _has_vocabulary(files.__contains__, prefix)
        if kind == "Transformer" and not tokenizer:
            yield from (f"{prefix}{name}: {PIECES}" for name in SENTENCEPIECE if prefix + name in files)
