"""The weights of a checkpoint: from safetensors files to arrays named by role, every shape checked."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from minisbert.checkpoint.config import TransformerConfig
from minisbert.checkpoint.conversion import pickle_refusal
from minisbert.checkpoint.families import BUCKETS, Family
from minisbert.checkpoint.files import map_file
from minisbert.checkpoint.int8 import SCALE, int8_rows, is_int8, shape_of_scales
from minisbert.checkpoint.jsonfile import is_there
from minisbert.checkpoint.modules import Module, shapes_of
from minisbert.checkpoint.stored import Entry, read_header, same, tensor, weights_files
from minisbert.errors import CheckpointError, CheckpointNotFoundError

__all__ = [
    "Rows",
    "TensorUse",
    "expected_tensors",
    "head_tensors",
    "load_module_tensors",
    "load_tensors",
    "tensor_uses",
]

# What a checkpoint's names begin with where a model was saved inside of others: a parallel or compiled one, the first
# module of sentence-transformers before 5.4 and since, and whatever calls its encoder a model.
WRAPPERS = ("module.", "_orig_mod.", "0.", "auto_model.", "model.")

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
        the file, float32 where the file has bfloat16, and `Int8Rows` where it is what `checkpoint.int8` describes.
        They are read-only, and keep their file mapped.

    Raises
    ------
    CheckpointNotFoundError
        If there is no ``model.safetensors``, or a file that the index names is missing.
    CheckpointError
        If a file is damaged, if tensors are not where the index says, if they are missing, unknown or of the
        wrong shape (all are named at once), or if there are two different ones for one role. And, when it is asked
        for, if a tensor has a weight that is not finite in float32.
    """
    path, shards = weights_files(folder, config.is_int8)
    expected = {name: (role, shape) for role, name, shape in expected_tensors(config, head)}
    entries = _by_plain_name(path, chain.from_iterable(map(read_header, shards)), config, expected)
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
    roles = {name: role for role, name, _ in expected_tensors(config, head)}
    seen: dict[str, str] = {}
    for entry in chain.from_iterable(map(read_header, weights_files(folder, config.is_int8)[1])):
        name, dtype = _plain_name(entry.name, config.family), entry.dtype
        start = config.family.ignored_by(name)
        use = partial(TensorUse, entry.path, entry.name, _in_full(dtype))
        if name not in roles and start is not None:
            yield use(start=start, ignored=config.family.ignored[start])
        elif name in seen:
            yield use(start=entry.name, ignored=f"a copy of {seen[name]}")
        else:
            yield use(roles.get(name))
        seen.setdefault(name, entry.name)


def _in_full(dtype: str) -> str:
    return dtype.replace("BF", "bfloat").replace("F", "float").replace("I", "int")


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
    entries = {entry.name: entry for entry in read_header(path)}
    expected = {name: (name, shape) for name, shape in shapes_of(module).items()}
    _compare(path, expected, {name: entry.shape for name, entry in entries.items()})
    return Tensors(entries)


class Tensors(Mapping[str, Any]):
    """Tensors of mapped files, arrays or `Int8Rows`, by role or name: each is looked through when it is asked for.

    What is packed next is then in the processor's cache, and pages that were looked at before can be given back.
    """

    def __init__(self, entries: dict[str, Entry]) -> None:
        self._entries = entries
        self._maps = {
            path: map_file(path) for path in dict.fromkeys(entry.path for entry in entries.values())
        }

    def __getitem__(self, name: str) -> Any:
        entry, scales = self._entries[name], self._entries.get(name + SCALE)
        content = self._maps[entry.path]
        return tensor(content, entry) if scales is None else int8_rows(content, entry, scales)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    @property
    def size(self) -> int:
        """How many numbers there are in all tensors, scales aside."""
        return sum(prod(entry.shape) for name, entry in self._entries.items() if not name.endswith(SCALE))


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
        elif not same(found[name], entry):
            raise CheckpointError(
                f"{path}: {found[name].name!r} and {entry.name!r} are two tensors for one role; expected one "
                "of them, and nothing says which"
            )
    return found


def _plain_name(name: str, family: Family) -> str:
    for prefix in (*WRAPPERS, family.prefix):
        name = name.removeprefix(prefix)
    return name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")


def expected_tensors(
    config: TransformerConfig, head: Rows = ()
) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Yield role, name and shape of every tensor that a checkpoint of this configuration has."""
    for role, name, shape in _matrices_and_vectors(config, head):
        yield role, name, shape
        if config.is_int8 and is_int8(role, shape):
            yield role + SCALE, name + SCALE, shape_of_scales(role, shape)


def _matrices_and_vectors(
    config: TransformerConfig, head: Rows
) -> Iterator[tuple[str, str, tuple[int, ...]]]:
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
