"""Checks of arguments that users get wrong: each names the argument, what was found and what was expected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from minisbert.errors import EncodeTypeError, EncodeValueError, shown

__all__ = ["check_choice", "check_collection", "check_dtype", "check_integer", "plain"]


def check_dtype(dtype: DTypeLike) -> np.dtype[Any]:
    """Return float32 or float64 as a dtype."""
    try:
        if dtype is None:  # float64 to NumPy
            raise TypeError
        found = np.dtype(dtype)
    except Exception as error:  # TypeError, ValueError, SyntaxError, KeyError, ...
        raise EncodeTypeError(f"dtype is {shown(dtype)}; expected 'float32' or 'float64'") from error
    if found not in (np.float32, np.float64):
        raise EncodeValueError(f"dtype is {found}; expected 'float32' or 'float64'")
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


def check_collection(name: str, value: object, expected: str) -> None:
    """Refuse what is no collection, and sets: their order, and so that of the rows, changes from run to run."""
    refused = isinstance(value, str | bytes | bytearray | memoryview | Mapping | set | frozenset)
    if refused or not isinstance(value, Iterable):
        hint = "; a set has no order: sort it" if isinstance(value, set | frozenset) else ""
        raise EncodeTypeError(f"{name} is {type(value).__name__} {shown(value)}; expected {expected}{hint}")


def plain(value: Any) -> Any:
    """Return what a scalar of Arrow stands for, and anything else as it is."""
    return value.as_py() if hasattr(type(value), "as_py") else value
