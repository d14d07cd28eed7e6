"""The weights of a checkpoint: from a safetensors file to arrays named by role, every shape checked.

The arrays are maps of the file, not copies: pages come in as they are used, several processes share them,
and of a large vocabulary's table only the rows that are looked up are ever read into a computation.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open

from minisbert.config import TransformerConfig
from minisbert.errors import CheckpointError, CheckpointNotFoundError, UnsupportedCheckpointError
from minisbert.kernels import Floats
from minisbert.links import refuse_link_out

__all__ = ["load_tensors", "pickle_refusal"]

# Role, name in the file, and shape, in the order of the file. D, F, V, P as in `minisbert.model`; Y is the
# number of token types. Layers have a prefix: "layers.{i}." for the role, "encoder.layer.{i}." in the file.
EMBEDDING_TENSORS = (
    ("embeddings.word", "embeddings.word_embeddings.weight", "VD"),
    ("embeddings.position", "embeddings.position_embeddings.weight", "PD"),
    ("embeddings.token_type", "embeddings.token_type_embeddings.weight", "YD"),
    ("embeddings.norm.weight", "embeddings.LayerNorm.weight", "D"),
    ("embeddings.norm.bias", "embeddings.LayerNorm.bias", "D"),
)
LAYER_TENSORS = (
    ("attention.query.weight", "attention.self.query.weight", "DD"),
    ("attention.query.bias", "attention.self.query.bias", "D"),
    ("attention.key.weight", "attention.self.key.weight", "DD"),
    ("attention.key.bias", "attention.self.key.bias", "D"),
    ("attention.value.weight", "attention.self.value.weight", "DD"),
    ("attention.value.bias", "attention.self.value.bias", "D"),
    ("attention.output.weight", "attention.output.dense.weight", "DD"),
    ("attention.output.bias", "attention.output.dense.bias", "D"),
    ("attention.norm.weight", "attention.output.LayerNorm.weight", "D"),
    ("attention.norm.bias", "attention.output.LayerNorm.bias", "D"),
    ("feed_forward.intermediate.weight", "intermediate.dense.weight", "FD"),
    ("feed_forward.intermediate.bias", "intermediate.dense.bias", "F"),
    ("feed_forward.output.weight", "output.dense.weight", "DF"),
    ("feed_forward.output.bias", "output.dense.bias", "D"),
    ("feed_forward.norm.weight", "output.LayerNorm.weight", "D"),
    ("feed_forward.norm.bias", "output.LayerNorm.bias", "D"),
)

# Left alone: buffers that can be computed, and heads that sentence vectors do not pass through.
IGNORED = (
    "embeddings.position_ids",
    "embeddings.token_type_ids",
    "pooler.",
    "cls.",
    "lm_head.",
    "classifier.",
)

# BF16 has no NumPy type: its bits are the upper half of a float32's.
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


# Rows of a table: role, name in the file, and shape, as letters or as numbers.
Rows = Iterable[tuple[str, str, str | tuple[int, ...]]]


def load_tensors(folder: Path, config: TransformerConfig, head: Rows = ()) -> dict[str, Floats]:
    """Map the weights of a checkpoint, checked against its configuration.

    Parameters
    ----------
    folder : pathlib.Path
        The folder with ``model.safetensors``.
    config : TransformerConfig
        What the shapes have to agree with.
    head : iterable of (str, str, str or tuple of int)
        Role, name and shape of tensors that are wanted beside the encoder's, and would be ignored otherwise:
        a pooler's or a classifier's. The shape is in letters, such as ``"DD"``, or in numbers.

    Returns
    -------
    dict of str to numpy.ndarray
        The arrays by role, such as ``"layers.0.attention.query.weight"``: float64, float32 or float16 as in
        the file, and float32 where the file has bfloat16. Matrices are read-only.

    Raises
    ------
    CheckpointNotFoundError
        If there is no ``model.safetensors``.
    CheckpointError
        If the file is damaged, if tensors are missing, unknown or of the wrong shape (all are named at
        once), if there are two for one role, or if a weight is not finite in float32.
    """
    path = _weights_file(folder)
    expected = {name: (role, shape) for role, name, shape in _expected(config, head)}
    entries = _by_plain_name(path, _read_header(path), config, expected)
    _compare(path, expected, {name: entry.shape for name, entry in entries.items()})
    with path.open("rb") as file:
        return {role: _map(file, entries[name]) for name, (role, _) in expected.items()}


def _weights_file(folder: Path) -> Path:
    path = folder / "model.safetensors"
    refuse_link_out(path, folder)
    if path.is_file():
        return path
    if (pickle := folder / "pytorch_model.bin").exists():
        raise pickle_refusal(str(pickle), str(folder), str(folder))
    raise CheckpointNotFoundError(f"{path}: there is no such file; expected the checkpoint's weights")


def pickle_refusal(pickle: str, source: str, folder: str) -> UnsupportedCheckpointError:
    """Say that weights are pickles only, and how to convert `source`, a name or a folder, into `folder`."""
    return UnsupportedCheckpointError(
        f"{pickle}: the weights are in Python's pickle format, which can run code and is never opened; expected "
        'model.safetensors. Convert it where torch is installed: python -c "from transformers import AutoModel '
        f"as A; A.from_pretrained(r'{source}').save_pretrained(r'{folder}')\""
    )


@dataclass(frozen=True)
class Entry:
    """A tensor as the file's header describes it; `start` counts from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int


def _read_header(path: Path) -> Iterator[Entry]:
    """Yield what a safetensors file says of each tensor in it."""
    try:
        with safe_open(path, framework="numpy"):  # the library proves header, offsets and length sound
            pass
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: is not a sound safetensors file ({error}); copy the checkpoint again"
        ) from error
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    for name, entry in header.items():
        if name != "__metadata__":
            yield Entry(name, entry["dtype"], tuple(entry["shape"]), 8 + size + entry["data_offsets"][0])


def _by_plain_name(
    path: Path, entries: Iterable[Entry], config: TransformerConfig, expected: Container[str]
) -> dict[str, Entry]:
    """Sort tensors by their names without the model's prefix, and with today's names of the layer norms.

    Those that are neither expected nor of any use are left out.
    """
    found: dict[str, Entry] = {}
    for entry in entries:
        name = entry.name.removeprefix(f"{config.model_type}.")
        name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
        if name not in expected and name.startswith(IGNORED):
            continue
        if name in found:
            raise CheckpointError(
                f"{path}: {found[name].name!r} and {entry.name!r} are two tensors for one role; expected one "
                "of them, and nothing says which"
            )
        found[name] = entry
    return found


def _expected(config: TransformerConfig, head: Rows) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Yield role, name and shape of every tensor that a checkpoint of this configuration has."""
    sizes = {
        "V": config.vocab_size,
        "P": config.max_position_embeddings,
        "Y": config.type_vocab_size,
        "D": config.hidden_size,
        "F": config.intermediate_size,
    }
    for role, name, dimensions in (*EMBEDDING_TENSORS, *head):
        yield role, name, tuple(sizes[d] if isinstance(d, str) else d for d in dimensions)
    for i in range(config.num_hidden_layers):
        for role, name, dimensions in LAYER_TENSORS:
            yield f"layers.{i}.{role}", f"encoder.layer.{i}.{name}", tuple(sizes[d] for d in dimensions)


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


def _map(file: BinaryIO, entry: Entry) -> Floats:
    """Return a read-only map of one tensor, each with its own, so that it goes when nothing refers to it."""
    if entry.dtype not in DTYPES:
        raise UnsupportedCheckpointError(
            f"{file.name}: the tensor {entry.name!r} has dtype {entry.dtype}; supported: {', '.join(DTYPES)}"
        )
    tensor = np.asarray(np.memmap(file, DTYPES[entry.dtype], "r", entry.start, entry.shape))
    _check_finite(file.name, entry.name, tensor)
    # A map keeps a file descriptor, and a process has few of them: vectors, which are small, are copied.
    return _widen(np.array(tensor) if tensor.ndim == 1 else tensor)


def _check_finite(path: str, name: str, array: Floats) -> None:
    """Refuse what is not finite in float32; in pieces, so that the check of a large table takes no memory."""
    rows = max(1, (1 << 20) // max(1, array[:1].size))
    with np.errstate(over="ignore"):  # a float64 out of range becomes infinity, and is found by that
        pieces = (_widen(array[start : start + rows]) for start in range(0, len(array), rows))
        if not all(np.isfinite(piece.astype(np.float32, copy=False)).all() for piece in pieces):
            raise CheckpointError(
                f"{path}: the tensor {name!r} holds NaN, infinity or a number beyond float32; copy the "
                "checkpoint again, or ask whoever trained it"
            )


def _widen(array: Floats) -> Floats:
    """Turn bfloat16 bits into float32; other arrays pass as they are."""
    if array.dtype != np.uint16:
        return array
    return (array.astype(np.uint32) << 16).view(np.float32)
