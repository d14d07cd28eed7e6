"""Convert a checkpoint to fewer bits, so that it is smaller on disk too.

In float16 and bfloat16 it is laid out as before, and sentence-transformers loads it, too. Only matrices are rounded:
biases and norms are a thousandth of the bytes, and rounding them would triple the error. Layout and meaning of int8 are
in `minisbert.checkpoint.int8`. Modules after the transformer stay as they are, as `minisbert.load` with a dtype leaves
them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from minisbert.arrays import SCALED, Floats
from minisbert.checkpoint import hub, int8
from minisbert.checkpoint.config import TransformerConfig, check_folder, is_cross_encoder, read_config
from minisbert.checkpoint.cross_config import read_cross_config
from minisbert.checkpoint.files import map_file
from minisbert.checkpoint.jsonfile import is_there, parse_json, write_json
from minisbert.checkpoint.repository import INDEX, INT8_WEIGHTS, QUANTIZATION, module_folders
from minisbert.checkpoint.stored import DTYPES, Entry, read_header, tensor, weights_files, write_tensors
from minisbert.checkpoint.tensors import Rows, expected_tensors, head_tensors, load_tensors
from minisbert.errors import CheckpointError, EncodeValueError, shown
from minisbert.kernels.reference import narrow
from minisbert.unfinished import temporary_beside

__all__ = ["CONVERTED", "convert_checkpoint", "write_config"]

# What a folder can be converted to, and what safetensors files call it.
CONVERTED = {"float16": "F16", "bfloat16": "BF16", "int8": "I8"}
# What else is copied: settings, tokenizers, documentation; and the weights of other modules.
COPIED = ("*.json", "*.txt", "*.model", "*.md", "LICENSE*", "NOTICE*", "*.safetensors")
ROWS = 4096  # of the word table, which are rounded at a time

Part = tuple[str, NDArray[Any]]  # the name of a tensor, and its numbers
Progress = Callable[[int], object]


class _Checkpoint(NamedTuple):
    """What is converted: the folder, the transformer's folder inside, its settings, and its head, if it has one."""

    folder: Path
    transformer_folder: Path
    transformer: TransformerConfig
    head: Rows


def convert_checkpoint(
    name_or_path: str | os.PathLike[str],
    folder: str | os.PathLike[str],
    *,
    dtype: str = "float16",
    revision: str | None = None,
    token: str | bool | None = None,
    cache_folder: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    progress: Progress = lambda tensors: None,
) -> Path:
    """Write a checkpoint, of an encoder or a cross-encoder, in fewer bits.

    Parameters
    ----------
    name_or_path : str or os.PathLike
        A checkpoint folder, or the name of one on the Hugging Face hub.
    folder : str or os.PathLike
        The new folder, which appears once it is complete. There must be nothing of that name.
    dtype : {"float16", "bfloat16", "int8"}
        What the transformer's weights become. The first two can be read by sentence-transformers, too; int8, which
        also has the word table in int8, by minisbert alone.
    revision, token, cache_folder, local_files_only
        As in `minisbert.load`.
    progress : callable, optional
        It is called, as tensors are written, with how many these are.

    Returns
    -------
    pathlib.Path
        The new folder.

    Raises
    ------
    EncodeValueError
        If there is something in the place of the new folder, or no folder to put it in; or if `dtype` is another one.
    CheckpointError, CheckpointNotFoundError, UnsupportedCheckpointError
        As `minisbert.load` does; if the checkpoint is of that dtype already, or int8; or if a weight is beyond float16.
    OSError
        If the new folder can't be written, for want of space, say: then nothing is left of it.
    """
    target = Path(folder)
    _check_target(target, dtype)
    source = hub.resolve(
        name_or_path,
        revision=revision,
        token=token,
        cache_folder=cache_folder,
        local_files_only=local_files_only,
    )
    checkpoint = _read(source, dtype)
    try:
        with temporary_beside(target) as temporary:
            _copy_files(source, temporary, checkpoint.transformer_folder)
            place = temporary / checkpoint.transformer_folder.relative_to(source)
            (_write_int8 if dtype == "int8" else _write_floats)(checkpoint, place, dtype, progress)
            write_config(place / "config.json", dtype)
            os.rename(temporary, target)
    except OSError as error:
        if error.errno is not None:  # what can't be read of the checkpoint is an error of ours
            error.filename, error.filename2 = str(target), None
        raise
    return target


def _check_target(target: Path, dtype: str) -> None:
    if not isinstance(dtype, str) or dtype not in CONVERTED:
        raise EncodeValueError(f"dtype is {shown(dtype)}; expected one of {', '.join(CONVERTED)}")
    if os.path.lexists(target):
        raise EncodeValueError(f"{target}: there is such a file or folder; name one that is not there")
    if not target.absolute().parent.is_dir():
        raise EncodeValueError(f"{target}: there is no folder {target.parent}; make it first")


def _read(folder: Path, dtype: str) -> _Checkpoint:
    """Read the settings of a checkpoint, and check that its weights fit them and are not converted yet."""
    check_folder(folder)
    head: Rows = ()
    if is_cross_encoder(folder):
        cross = read_cross_config(folder)
        place, transformer = cross.transformer_folder, cross.transformer
        head = tuple(head_tensors(transformer, cross.num_labels))
    else:
        config = read_config(folder)
        place, transformer = config.transformer_folder, config.transformer
    path, shards = weights_files(place, transformer.is_int8)
    dtypes = {entry.dtype for shard in shards for entry in read_header(shard) if _is_matrix(entry)}
    if transformer.is_int8 or dtypes == {CONVERTED[dtype]}:
        found = "int8" if transformer.is_int8 else dtype
        raise CheckpointError(f"{path}: the weights are {found} already; convert the original checkpoint")
    load_tensors(place, transformer, head)
    return _Checkpoint(folder, place, transformer, head)


# --- settings ---------------------------------------------------------------------------------------------------


def _copy_files(source: Path, target: Path, transformer_folder: Path) -> None:
    """Copy all that belongs to a checkpoint but the transformer's weights; where it has links, what they lead to."""
    for prefix in dict.fromkeys(["", *(prefix for _, prefix in module_folders(source / "modules.json"))]):
        place = source / prefix
        (target / prefix).mkdir(parents=True, exist_ok=True)
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            is_weights = path.name.endswith((".safetensors", ".index.json")) and place == transformer_folder
            is_copied = any(fnmatchcase(path.name, pattern) for pattern in COPIED) and not is_weights
            if is_copied and path.is_file() and is_there(path):
                shutil.copyfile(path, target / prefix / path.name)


def write_config(path: Path, dtype: str) -> None:
    """Say in a transformer's ``config.json`` what its weights are."""
    values = parse_json(path)
    if dtype == "int8":
        values[QUANTIZATION] = int8.MARKER
    else:
        # Its name was torch_dtype before transformers 4.56, and is read as such by all versions.
        values |= dict.fromkeys(values.keys() & {"dtype", "torch_dtype"} or {"torch_dtype"}, dtype)
    write_json(path, values)


# --- weights ----------------------------------------------------------------------------------------------------


def _write_floats(checkpoint: _Checkpoint, place: Path, dtype: str, progress: Progress) -> None:
    """Write each file of the weights with its floats in another dtype: names, shapes and all else stay."""
    path, shards = weights_files(checkpoint.transformer_folder)
    size = 0
    for shard in shards:
        entries = list(read_header(shard))
        kinds = {
            entry.name: (CONVERTED[dtype] if _is_matrix(entry) else entry.dtype, entry.shape)
            for entry in entries
        }
        parts = _counted(((entry.name, _narrowed(entry, dtype)) for entry in entries), progress)
        size += write_tensors(place / shard.name, kinds, parts, "pt")
    if path.name == INDEX:
        index = parse_json(path)
        metadata = index["metadata"] if isinstance(index.get("metadata"), dict) else {}
        write_json(place / INDEX, index | {"metadata": metadata | {"total_size": size}})


def _narrowed(entry: Entry, dtype: str) -> NDArray[Any]:
    """Return a matrix of a file in a dtype of 16 bits; of another tensor its bytes."""
    content = map_file(entry.path)
    if not _is_matrix(entry):
        return np.frombuffer(content, np.uint8, entry.stop - entry.start, entry.start)
    numbers = tensor(content, entry)
    with np.errstate(over="ignore"):
        rounded = (
            numbers.astype("<f2") if dtype == "float16" else narrow.to_bfloat16(numbers.astype(np.float32))
        )
    if not np.isfinite(rounded).all():
        raise CheckpointError(
            f"{entry.path}: the tensor {entry.name!r} has a weight of {np.abs(numbers).max():.5g}, which {dtype} does "
            "not reach; convert to int8, or to bfloat16, whose range is that of float32"
        )
    return rounded if dtype == "float16" else (rounded.view(np.uint32) >> 16).astype("<u2")


def _is_matrix(entry: Entry) -> bool:
    return entry.dtype in DTYPES and len(entry.shape) > 1


def _write_int8(checkpoint: _Checkpoint, place: Path, dtype: str, progress: Progress) -> None:
    """Write one file of the tensors that are needed, as `minisbert.checkpoint.int8` says."""
    _, transformer_folder, transformer, head = checkpoint
    tensors = load_tensors(transformer_folder, transformer, head)
    rows = list(expected_tensors(transformer._replace(is_int8=True), head))
    kinds = {name: ("I8" if int8.is_int8(role, shape) else "F32", shape) for role, name, shape in rows}
    matrices = ((role, name) for role, name, _ in rows if not role.endswith(int8.SCALE))
    parts = (part for role, name in matrices for part in _rounded(role, name, tensors[role]))
    write_tensors(place / INT8_WEIGHTS, kinds, _counted(parts, progress), "minisbert-int8")


def _rounded(role: str, name: str, numbers: Floats) -> Iterator[Part]:
    """Yield a tensor in float32; or in int8, and its scales."""
    if not int8.is_int8(role, numbers.shape):
        yield name, numbers.astype("<f4")
        return
    is_table = role == "embeddings.word"
    integers, scales = _rows_of_table(numbers) if is_table else narrow.integers_of_weight(numbers)
    yield name, integers
    yield name + int8.SCALE, scales.astype("<f4", copy=False)


def _rows_of_table(table: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Round the rows of a table (V, E) to integers, and return their scales, (V, ceil(E / 128))."""
    (V, E), starts = table.shape, range(0, table.shape[1], SCALED)
    integers, scales = np.empty((V, E), np.int8), np.empty((V, len(starts)), np.float32)
    for first in range(0, V, ROWS):
        rows = slice(first, first + ROWS)
        for i, start in enumerate(starts):
            columns = slice(start, start + SCALED)
            integers[rows, columns], scales[rows, i] = narrow.quantise(
                table[rows, columns].astype(np.float32)
            )
    return integers, scales


def _counted(parts: Iterable[Part], progress: Progress) -> Iterator[Part]:
    for part in parts:
        yield part
        progress(1)
