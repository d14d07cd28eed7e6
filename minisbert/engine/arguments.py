"""Checks of arguments that users get wrong: each names the argument, what was found and what was expected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, get_type_hints

import numpy as np
from numpy.typing import DTypeLike

from minisbert.errors import EncodeTypeError, EncodeValueError, shown

__all__ = [
    "check_choice",
    "check_collection",
    "check_dtype",
    "check_flag",
    "check_integer",
    "check_unused",
    "plain",
]


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


def check_flag(name: str, value: object) -> bool:
    """Return True or False, Python's or NumPy's; None counts as False, as it does in sentence-transformers."""
    if value is None or isinstance(value, bool | np.bool_):
        return bool(value)
    raise EncodeTypeError(f"{name} is {shown(value)}; expected True or False")


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
