"""Rows of which a column is to have some value: ``--where brand=Acme``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeAlias, TypeVar

from minisbert.cli.streams import TextFileError

__all__ = ["Where", "listed", "matches", "no_column", "select"]

Where: TypeAlias = Sequence[tuple[str, str]]  # columns, and what is to stand in each


class Row(Protocol):
    """What has values by the names of columns."""

    @property
    def fields(self) -> Mapping[str, Any]:
        """The values."""


R = TypeVar("R", bound=Row)


def select(rows: Iterable[R], where: Where, name: str) -> Iterator[R]:
    """Yield the rows that have the values that are asked for; none may have them, but some must have the columns."""
    seen: dict[str, None] = {}
    missing = {column for column, _ in where}
    for row in rows:
        if missing:
            seen.update(dict.fromkeys(row.fields))
            missing -= row.fields.keys()
        if matches(row.fields, where):
            yield row
    if missing and seen:
        raise no_column(name, min(missing), seen)


def matches(fields: Mapping[str, Any], where: Where) -> bool:
    """Whether each column has the value that is asked for."""
    return all(_is(fields.get(column), value) for column, value in where)


def _is(found: Any, asked: str) -> bool:
    """Whether a value is the one that is written so; nothing is no value, and a number can be written in any way."""
    if isinstance(found, int | float) and not isinstance(found, bool):
        with suppress(ValueError):
            return bool(found == float(asked)) or str(found) == asked
    if found is None or isinstance(found, str):
        return bool(found == asked)
    return json.dumps(found, ensure_ascii=False, default=str).strip('"') == asked


def no_column(name: str, column: str, columns: Iterable[str]) -> TextFileError:
    """Make the error that says which columns there are."""
    return TextFileError(f"{name}: there is no column {column!r}; found {listed(columns)}")


def listed(names: Iterable[str]) -> str:
    """Write names for a message."""
    listed = ", ".join(map(repr, names)) or "none"
    return listed if len(listed) <= 200 else listed[:200] + "…"
