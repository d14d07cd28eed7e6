"""Safetensors files: what is in them, their tensors as maps, and how they are written.

The arrays lie in maps of the files, and are no copies: pages come in as they are used, several processes share them,
and of a large vocabulary's table only the rows that are looked up are ever read into a computation.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from mmap import mmap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from minisbert.arrays import Floats
from minisbert.checkpoint.access import open_file
from minisbert.checkpoint.conversion import pickle_refusal
from minisbert.checkpoint.files import give_back, map_file
from minisbert.checkpoint.jsonfile import is_there, read_json
from minisbert.checkpoint.repository import INDEX, INT8_WEIGHTS, WEIGHTS
from minisbert.errors import CheckpointError, CheckpointNotFoundError, UnsupportedCheckpointError, shown

__all__ = ["DTYPES", "Entry", "read_header", "same", "tensor", "weights_files", "write_tensors"]

# BF16 has no NumPy type: its bits are the upper half of a float32's.
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}

SHARD = re.compile(r"[^/\\\0:]+\.safetensors")  # a plain name, which leads to no other folder
PIECE = 1 << 18  # bytes, or numbers, that are looked at at once
_LARGE = 1 << 22  # numbers in a table of which no more than a piece is kept in memory


def weights_files(folder: Path, is_int8: bool = False) -> tuple[Path, list[Path]]:
    """Return the file that says which tensors there are, and those that they are in."""
    path = folder / (INT8_WEIGHTS if is_int8 else WEIGHTS)
    if is_there(path):
        return path, [path]
    index = folder / INDEX
    if is_there(index) and not is_int8:
        return index, _read_index(index)
    for pickle in (folder / "pytorch_model.bin", folder / "pytorch_model.bin.index.json"):
        if pickle.exists() and not is_int8:
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
    found = {(entry.name, entry.path.name) for shard in shards for entry in read_header(shard)}
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


def read_header(path: Path) -> Iterator[Entry]:
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


def same(one: Entry, other: Entry) -> bool:
    """Whether two tensors are one and the same, saved twice."""
    return (one.dtype, one.shape) == (other.dtype, other.shape) and all(
        a == b for a, b in zip(_pieces(one), _pieces(other), strict=True)
    )


def _pieces(entry: Entry) -> Iterator[bytes]:
    with entry.path.open("rb") as file:
        file.seek(entry.start)
        for start in range(entry.start, entry.stop, PIECE):
            yield file.read(min(PIECE, entry.stop - start))


def tensor(content: mmap, entry: Entry) -> Floats:
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


def write_tensors(
    path: Path,
    kinds: Mapping[str, tuple[str, tuple[int, ...]]],
    parts: Iterable[tuple[str, NDArray[Any]]],
    format: str,
) -> int:
    """Write a safetensors file; return the bytes of all tensors.

    They are written as they are made, in whatever order, so that one at a time is in memory.

    Parameters
    ----------
    path : pathlib.Path
        A file that is not there.
    kinds : mapping of str to (str, tuple of int)
        The dtype, as safetensors names it, and the shape of each tensor.
    parts : iterable of (str, ndarray)
        Each tensor's name and bytes, as an array of any dtype.
    format : str
        What the tensors are laid out for: "pt" is PyTorch.
    """
    header: dict[str, Any] = {"__metadata__": {"format": format}}
    starts, end = {}, 0
    for name, (dtype, shape) in sorted(kinds.items(), key=lambda kind: -_bytes_each(kind[1][0])):  # aligned
        starts[name] = end
        end += prod(shape) * _bytes_each(dtype)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [starts[name], end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("xb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, array in parts:
            file.seek(8 + len(text) + starts[name])
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())
    return end


def _bytes_each(dtype: str) -> int:
    bits = re.search(r"\d+", dtype)
    return int(bits[0]) // 8 if bits else 1  # BOOL
