"""Checks of arguments that users get wrong: each names the argument, what was found and what was expected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
from numpy.typing import DTypeLike

from minisbert.checkpoint.int8 import holds_int8
from minisbert.engine.signatures import EncodeOptions
from minisbert.errors import EncodeTypeError, EncodeValueError, shown
from minisbert.kernels import DTYPES
from minisbert.vectors import PRECISIONS

__all__ = [
    "check_choice",
    "check_computation",
    "check_dimension",
    "check_dtype",
    "check_encode",
    "check_flag",
    "check_integer",
    "check_unused",
    "resolve_dtype",
]


def resolve_dtype(dtype: DTypeLike | None, folder: Path) -> str:
    """Return what a checkpoint is computed in: by default float32, or int8 where its weights are."""
    is_int8 = holds_int8(folder)
    found = check_dtype(dtype) if dtype is not None else "int8" if is_int8 else "float32"
    if is_int8 and found != "int8":
        raise EncodeValueError(
            f"dtype is {found}, and the weights in {folder} are int8; expected int8, or the path of the checkpoint "
            "that was converted"
        )
    return found


def check_dtype(dtype: DTypeLike) -> str:
    """Return the name of a dtype that is computed in: one of NumPy's, or bfloat16."""
    expected = f"expected one of {', '.join(DTYPES)}"
    try:
        found = "bfloat16" if isinstance(dtype, str) and dtype == "bfloat16" else np.dtype(dtype).name
    # What NumPy raises for what it can't read; a time limit's exception is another one.
    except (AttributeError, KeyError, OverflowError, SyntaxError, TypeError, ValueError) as error:
        raise EncodeTypeError(f"dtype is {shown(dtype)}; {expected}") from error
    if found not in DTYPES:
        raise EncodeValueError(f"dtype is {found}; {expected}")
    return found


def check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Refuse a value that is none of the choices."""
    if not isinstance(value, str) or value not in choices:
        raise EncodeValueError(f"{name} is {shown(value)}; expected one of {', '.join(choices)}")


def check_integer(name: str, value: object) -> int:
    """Return an integer, Python's or NumPy's; True and 1.0 are not among them."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return int(value)
    raise EncodeTypeError(f"{name} is {shown(value)}; expected an integer")


def check_flag(name: str, value: object) -> bool:
    """Return True or False, Python's or NumPy's; None counts as False, as it does in sentence-transformers."""
    if value is None or isinstance(value, bool | np.bool_):
        return bool(value)
    raise EncodeTypeError(f"{name} is {shown(value)}; expected True or False")


def check_dimension(dimension: int | None, most: int) -> int:
    """Return how many components vectors are cut to: at most all of them, which None stands for."""
    if dimension is None:
        return most
    if not 1 <= check_integer("truncate_dim", dimension) <= most:
        raise EncodeValueError(
            f"truncate_dim is {shown(dimension)}; expected 1 to {most} for this checkpoint"
        )
    return int(dimension)


def check_encode(
    batch_size: int,
    output_value: str,
    precision: str | None,
    normalize: object,
    truncation: str,
    arrays: Sequence[object],
    unused: Mapping[str, object],
) -> tuple[str, bool]:
    """Check what `encode` is told; return the precision, and whether to normalise."""
    check_unused("encode", unused, EncodeOptions)
    precision = "float32" if precision is None else precision
    normalizes = check_flag("normalize_embeddings", normalize)
    check_choice("output_value", output_value, ("sentence_embedding", "token_embeddings"))
    check_choice("precision", precision, tuple(PRECISIONS))
    check_computation(batch_size, truncation)
    is_for_vectors = precision != "float32" or any(array is not None for array in arrays)
    if output_value == "token_embeddings" and is_for_vectors:
        raise EncodeValueError("token_embeddings go without precision, ranges and out: they are ragged")
    return precision, normalizes


def check_computation(batch_size: int, truncation: str) -> None:
    """Check what every computation is told."""
    check_choice("truncation", truncation, ("warn", "silent", "error"))
    if check_integer("batch_size", batch_size) < 1:
        raise EncodeValueError(f"batch_size is {shown(batch_size)}; expected at least 1")


def check_unused(function: str, arguments: Mapping[str, object], options: type) -> None:
    """Refuse arguments for which a function has no use, unless they change nothing, as `options` says."""
    for name, value in arguments.items():
        if name not in _hints(options):
            raise EncodeTypeError(f"{function}() got an unexpected keyword argument {name!r}")
        if not hasattr(hint := _hints(options)[name], "__metadata__"):
            continue  # no value of it changes anything
        accepted, instead = hint.__metadata__
        if type(value).__module__ == "torch":  # a device, which equals no string
            value = str(value)
        if not any(type(value) is type(other) and value == other for other in accepted):
            known = " or ".join(map(repr, accepted))
            raise EncodeValueError(f"{name} is {shown(value)}; expected {known}: {instead}")


@cache
def _hints(options: type) -> dict[str, Any]:
    return get_type_hints(options, include_extras=True)
