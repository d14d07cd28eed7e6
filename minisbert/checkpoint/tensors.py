"""The weights of a checkpoint: from safetensors files to arrays named by role, every shape checked.

The arrays lie in maps of the files, and are no copies: pages come in as they are used, several processes share them,
and of a large vocabulary's table only the rows that are looked up are ever read into a computation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from math import prod
from mmap import mmap
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from minisbert.arrays import Floats
from minisbert.checkpoint.access import open_file
from minisbert.checkpoint.config import TransformerConfig
from minisbert.checkpoint.conversion import pickle_refusal
from minisbert.checkpoint.families import BUCKETS, Family
from minisbert.checkpoint.files import give_back, map_file
from minisbert.checkpoint.jsonfile import is_there, read_json
from minisbert.checkpoint.modules import Module, shapes_of
from minisbert.errors import CheckpointError, CheckpointNotFoundError, UnsupportedCheckpointError, shown

__all__ = [
    "Rows",
    "TensorUse",
    "head_tensors",
    "load_module_tensors",
    "load_tensors",
    "tensor_uses",
]

# What a checkpoint's names begin with where a model was saved inside of others: a parallel or compiled one, the first
# module of sentence-transformers before 5.4 and since, and whatever calls its encoder a model.
WRAPPERS = ("module.", "_orig_mod.", "0.", "auto_model.", "model.")

# BF16 has no NumPy type: its bits are the upper half of a float32's.
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}

SHARD = re.compile(r"[^/\\\0:]+\.safetensors")  # a plain name, which leads to no other folder
PIECE = 1 << 18  # bytes, or numbers, that are looked at at once
_LARGE = 1 << 22  # numbers in a table of which no more than a piece is kept in memory


# Rows of a table: role, name in the file, and shape, as letters or as numbers.
Rows = Iterable[tuple[str, str, str | tuple[int, ...]]]


def head_tensors(config: TransformerConfig, num_labels: int) -> Rows:
    """Return the rows of a classifier's head, for `load_tensors`."""
    head = config.family.head
    yield "head.dense.weight", f"{head.dense}.weight", "DD"
    yield "head.dense.bias", f"{head.dense}.bias", "D"
    yield "head.output.weight", f"{head.output}.weight", (num_labels, config.hidden_size)
    yield "head.output.bias", f"{head.output}.bias", (num_labels,)


def load_tensors(folder: Path, config: TransformerConfig, head: Rows = ()) -> Tensors:
    """Map the weights of a checkpoint, checked against its configuration.

    Parameters
    ----------
    folder : pathlib.Path
        The folder with ``model.safetensors``, or with ``model.safetensors.index.json`` and the files that it
        names.
    config : TransformerConfig
        What the shapes have to agree with.
    head : iterable of (str, str, str or tuple of int)
        Role, name and shape of tensors that are wanted beside the encoder's, and would be ignored otherwise:
        a pooler's or a classifier's. The shape is in letters, such as ``"DD"``, or in numbers.

    Returns
    -------
    Tensors
        The arrays by role, such as ``"layers.0.attention.query.weight"``: float64, float32 or float16 as in
        the file, and float32 where the file has bfloat16. They are read-only, and keep their file mapped.

    Raises
    ------
    CheckpointNotFoundError
        If there is no ``model.safetensors``, or a file that the index names is missing.
    CheckpointError
        If a file is damaged, if tensors are not where the index says, if they are missing, unknown or of the
        wrong shape (all are named at once), or if there are two different ones for one role. And, when it is asked
        for, if a tensor has a weight that is not finite in float32.
    """
    path, shards = _weights_files(folder)
    expected = {name: (role, shape) for role, name, shape in _expected(config, head)}
    entries = _by_plain_name(path, chain.from_iterable(map(_read_header, shards)), config, expected)
    _compare(path, expected, {name: entry.shape for name, entry in entries.items()})
    return Tensors({role: entries[name] for name, (role, _) in expected.items()})


class TensorUse(NamedTuple):
    """What a tensor is used for: its role, or else why it is ignored, and for which beginning of its name."""

    path: Path
    name: str
    dtype: str
    role: str | None = None
    start: str = ""
    ignored: str | None = None


def tensor_uses(folder: Path, config: TransformerConfig, head: Rows = ()) -> Iterator[TensorUse]:
    """Yield what each tensor of a checkpoint is used for; those with neither role nor reason are refused.

    Raises
    ------
    CheckpointNotFoundError, CheckpointError
        If a file is missing or damaged, as `load_tensors` does.
    """
    roles = {name: role for role, name, _ in _expected(config, head)}
    seen: dict[str, str] = {}
    for entry in chain.from_iterable(map(_read_header, _weights_files(folder)[1])):
        name, dtype = _plain_name(entry.name, config.family), entry.dtype
        start = config.family.ignored_by(name)
        use = partial(TensorUse, entry.path, entry.name, dtype.replace("BF", "bfloat").replace("F", "float"))
        if name not in roles and start is not None:
            yield use(start=start, ignored=config.family.ignored[start])
        elif name in seen:
            yield use(start=entry.name, ignored=f"a copy of {seen[name]}")
        else:
            yield use(roles.get(name))
        seen.setdefault(name, entry.name)


def load_module_tensors(module: Module) -> Tensors:
    """Map the weights that a module after the transformer has in a folder of its own, by their names in the file.

    Raises
    ------
    CheckpointNotFoundError, UnsupportedCheckpointError, CheckpointError
        As `load_tensors` does.
    """
    if not shapes_of(module):
        return Tensors({})
    path, pickled = (module.folder / name for name in ("model.safetensors", "pytorch_model.bin"))
    if not is_there(path) and pickled.exists():
        raise pickle_refusal(pickled)
    if not is_there(path):
        raise CheckpointNotFoundError(f"{path}: there is no such file; expected the module's weights")
    entries = {entry.name: entry for entry in _read_header(path)}
    expected = {name: (name, shape) for name, shape in shapes_of(module).items()}
    _compare(path, expected, {name: entry.shape for name, entry in entries.items()})
    return Tensors(entries)


class Tensors(Mapping[str, Floats]):
    """Tensors of mapped files, by role or name: each is looked through when it is asked for.

    What is packed next is then in the processor's cache, and pages that were looked at before can be given back.
    """

    def __init__(self, entries: dict[str, Entry]) -> None:
        self._entries = entries
        self._maps = {
            path: map_file(path) for path in dict.fromkeys(entry.path for entry in entries.values())
        }

    def __getitem__(self, name: str) -> Floats:
        entry = self._entries[name]
        return _tensor(self._maps[entry.path], entry)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    @property
    def size(self) -> int:
        """How many numbers there are in all tensors."""
        return sum(prod(entry.shape) for entry in self._entries.values())


def _weights_files(folder: Path) -> tuple[Path, list[Path]]:
    """Return the file that says which tensors there are, and those that they are in."""
    path = folder / "model.safetensors"
    if is_there(path):
        return path, [path]
    index = folder / "model.safetensors.index.json"
    if is_there(index):
        return index, _read_index(index)
    for pickle in (folder / "pytorch_model.bin", folder / "pytorch_model.bin.index.json"):
        if pickle.exists():
            raise pickle_refusal(pickle)
    raise CheckpointNotFoundError(f"{path}: there is no such file; expected the checkpoint's weights")


def _read_index(path: Path) -> list[Path]:
    """Return the files of a checkpoint in several, each checked to hold the tensors that the index puts there."""
    listed = read_json(path).get("weight_map", dict)
    for name, shard in listed.items():
        if not isinstance(shard, str) or not SHARD.fullmatch(shard):
            raise CheckpointError(
                f"{path}: the tensor {shown(name)} is in {shown(shard)}; expected the name of a safetensors "
                "file beside the index"
            )
    shards = [path.parent / shard for shard in sorted(set(listed.values()))]
    for shard in shards:
        if not is_there(shard):
            raise CheckpointNotFoundError(f"{shard}: there is no such file, and {path.name} names it")
    found = {(entry.name, entry.path.name) for shard in shards for entry in _read_header(shard)}
    for name, shard in sorted(found ^ set(listed.items()))[:1]:
        raise CheckpointError(
            f"{path}: the tensor {shown(name)} is in {shard} according to either this index or that file, and not "
            "to both; copy all files of the checkpoint again"
        )
    return shards


class Entry(NamedTuple):
    """A tensor as the header of its file describes it; `start` counts from the start of the file."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def _read_header(path: Path) -> Iterator[Entry]:
    """Yield what a safetensors file says of each tensor in it."""
    with open_file(path) as file:
        _check_sound(path)
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    for name, entry in header.items():
        if name != "__metadata__":
            start, stop = (8 + size + offset for offset in entry["data_offsets"])
            yield Entry(path, name, entry["dtype"], tuple(entry["shape"]), start, stop)


def _check_sound(path: Path) -> None:
    try:
        with safe_open(path, framework="numpy"):  # the library proves header, offsets and length sound
            pass
    except (SafetensorError, FileNotFoundError) as error:
        if isinstance(
            error, OSError
        ):  # "no such file", whatever the reason: a map of ours meets it too, and says it
            map_file(path).close()
        raise CheckpointError(
            f"{path}: is not a sound safetensors file ({error}); copy the checkpoint again"
        ) from error


def _by_plain_name(
    path: Path, entries: Iterable[Entry], config: TransformerConfig, expected: Container[str]
) -> dict[str, Entry]:
    """Sort tensors by their names without the model's prefix, and with today's names of the layer norms.

    Those that are neither expected nor of any use are left out, as are copies.
    """
    found: dict[str, Entry] = {}
    for entry in entries:
        name = _plain_name(entry.name, config.family)
        if name not in expected and config.family.ignored_by(name) is not None:
            continue
        if name not in found:
            found[name] = entry
        elif not _same(found[name], entry):
            raise CheckpointError(
                f"{path}: {found[name].name!r} and {entry.name!r} are two tensors for one role; expected one "
                "of them, and nothing says which"
            )
    return found


def _plain_name(name: str, family: Family) -> str:
    for prefix in (*WRAPPERS, family.prefix):
        name = name.removeprefix(prefix)
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def _same(one: Entry, other: Entry) -> bool:
    """Whether two tensors are one and the same, saved twice."""
    return (one.dtype, one.shape) == (other.dtype, other.shape) and all(
        a == b for a, b in zip(_pieces(one), _pieces(other), strict=True)
    )


def _pieces(entry: Entry) -> Iterator[bytes]:
    with entry.path.open("rb") as file:
        file.seek(entry.start)
        for start in range(entry.start, entry.stop, PIECE):
            yield file.read(min(PIECE, entry.stop - start))


def _expected(config: TransformerConfig, head: Rows) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Yield role, name and shape of every tensor that a checkpoint of this configuration has."""
    family = config.family
    sizes = {
        "V": config.vocab_size,
        "P": config.max_position_embeddings,
        "Y": config.type_vocab_size,
        "E": config.embedding_size,
        "D": config.hidden_size,
        "F": config.intermediate_size,
        "H": config.num_attention_heads,
        "B": BUCKETS,
    }
    projection = family.projection if config.embedding_size != config.hidden_size else ()
    for role, name, dimensions in (*family.embedding_tensors, *projection, *head):
        yield role, name, tuple(sizes[d] if isinstance(d, str) else d for d in dimensions)
    for i in range(config.num_hidden_layers):
        for role, name, dimensions in family.layer_tensors:
            shape = tuple(sizes[d] for d in dimensions)
            yield f"layers.{i}.{role}", f"{family.layer_prefix}{i}.{name}", shape


def _compare(
    path: Path, expected: Mapping[str, tuple[str, tuple[int, ...]]], found: Mapping[str, tuple[int, ...]]
) -> None:
    """Report every tensor that is missing, unknown or of the wrong shape, in one message."""
    missing = [name for name in expected if name not in found]
    unknown = [name for name in found if name not in expected]
    misshapen = [
        f"{name} has shape {found[name]}, expected {shape}"
        for name, (_, shape) in expected.items()
        if found.get(name, shape) != shape
    ]
    kinds = (("missing", missing), ("unknown", unknown), ("misshapen", misshapen))
    problems = [f"{kind}: {_shorten(names)}" for kind, names in kinds if names]
    if problems:
        raise CheckpointError(
            f"{path}: the tensors do not fit the config.json beside it. {'. '.join(problems)}. "
            "Check that both files belong to one checkpoint"
        )


def _shorten(names: list[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more


def _tensor(content: mmap, entry: Entry) -> Floats:
    """Return a tensor as it lies in its file, which is mapped for as long as anybody refers to one of its tensors."""
    if entry.dtype not in DTYPES:
        raise UnsupportedCheckpointError(
            f"{entry.path}: the tensor {entry.name!r} has dtype {entry.dtype}; supported: {', '.join(DTYPES)}"
        )
    tensor: Floats = np.ndarray(entry.shape, DTYPES[entry.dtype], content, entry.start)
    _check_finite(entry.path, entry.name, tensor)
    return _widen(tensor)


def _check_finite(path: Path, name: str, array: Floats) -> None:
    """Refuse what is not finite in float32; in pieces, so that the check of a large table takes no memory."""
    rows = max(1, PIECE // max(1, array[:1].size))
    with np.errstate(over="ignore"):  # a float64 out of range becomes infinity, and is found by that
        for start in range(0, len(array), rows):
            piece = _widen(array[start : start + rows])
            numbers = piece.astype(np.float32, copy=False)
            if not (
                np.isfinite(numbers.max(initial=0)) and np.isfinite(numbers.min(initial=0))
            ):  # NaN is both
                raise CheckpointError(
                    f"{path}: the tensor {name!r} holds NaN, infinity or a number beyond float32; copy the "
                    "checkpoint again, or ask whoever trained it"
                )
            if array.size > _LARGE:
                give_back()


def _widen(array: Floats) -> Floats:
    """Turn bfloat16 bits into float32; other arrays pass as they are."""
    if array.dtype != np.uint16:
        return array
    return (array.astype(np.uint32) << 16).view(np.float32)
