"""The other columns of a file of texts: which of them ``encode`` keeps, and of which types they are.

CSV has strings only. In JSONL a column has the type of its values, if that is the same for all: truth values, whole
numbers of 64 bits, floating-point numbers, or strings. Anything else is a string: what is none itself, as JSON.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from typing import Any

from minisbert.cli.report import to_json
from minisbert.cli.streams import foreign_byte
from minisbert.cli.textio import Record, Source
from minisbert.cli.where import no_column

__all__ = ["EMBEDDING", "TEXT", "Columns", "to_arrow"]

TEXT, EMBEDDING = "text", "embedding"  # the columns that ``encode`` writes itself
EXACT = 1 << 53  # up to here, floating-point numbers hold whole ones
TYPES = {  # those of Arrow, by the kinds of the values of a column
    frozenset({"bool"}): "bool",
    frozenset({"small"}): "int64",
    frozenset({"large"}): "int64",
    frozenset({"small", "large"}): "int64",
    frozenset({"double"}): "double",
    frozenset({"small", "double"}): "double",
}


class Columns:
    """Those of a file that are kept: the ones of these names, or for None all, but for that of the text."""

    def __init__(self, source: Source, names: Sequence[str] | None) -> None:
        self.source = source
        self._names = names
        self._field = source.asked.field or TEXT
        self._kinds: dict[str, set[str]] = {}
        self.there: dict[str, None] = {}  # the names of all columns, in order
        self._seen = False  # whether there was a row at all

    def look(self, record: Record) -> None:
        """Note the columns of a row, and of which kinds their values are."""
        for name, value in self.of(record).items():
            self._kinds.setdefault(name, set()).update([] if value is None else [_kind_of(value)])

    def of(self, record: Record) -> dict[str, Any]:
        """Return what is kept of a row, by the names of its columns."""
        self._seen = self._seen or record.text is not None
        self.there.update(dict.fromkeys(record.fields))
        names = record.fields if self._names is None else self._names
        kept = {name: record.fields[name] for name in names if name in record.fields and self._is_other(name)}
        for name in kept.keys() & {TEXT, EMBEDDING}:
            taken = f"a column {name!r} can't be kept, as the output has one of its own"
            raise self.source.error(record.line, f"{taken}; rename it, or name those to keep: --keep a,b")
        for name in kept.keys() & self.source.doubled:
            raise self.source.error(1, f"more than one column {name!r}, which is to be kept; rename one")
        if kept and foreign_byte(json.dumps(kept, ensure_ascii=False)):
            odd = "a column to keep holds half of a surrogate pair, which is no character"
            raise self.source.error(record.line, odd)
        return kept

    def types(self) -> dict[str, str]:
        """Return the type of each column that is kept, once all rows were looked at.

        Raises
        ------
        TextFileError
            If a column is to be kept that no row has.
        """
        names = list(self._kinds if self._names is None else filter(self._is_other, self._names))
        for name in names:
            if self._seen and name not in self.there:
                raise no_column(self.source.name, name, self.there)
        return {name: TYPES.get(frozenset(self._kinds.get(name, ())), "string") for name in names}

    def _is_other(self, name: str) -> bool:
        """Whether a column is one besides the output's text: that has whatever is encoded, and none other its name."""
        return name != self._field or (self._names is not None and name != TEXT)


def _kind_of(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int) and -(1 << 63) <= value < 1 << 63:
        return "small" if abs(value) <= EXACT else "large"
    return "double" if isinstance(value, float) else "string"


def to_arrow(source: Source, name: str, type: Any, lines: Sequence[int], values: Sequence[Any]) -> Any:
    """Return the values of a column, each of a line, as an array of Arrow of that type.

    Raises
    ------
    TextFileError
        If a value is not of that type, which is then the one that the column has in a file that is appended to.
    """
    pa: Any = importlib.import_module("pyarrow")
    if pa.types.is_string(type):
        values = [_as_string(value) for value in values]
    try:
        found = pa.array(values, type)
        if (pa.types.is_integer(type) or pa.types.is_float64(type)) and found.to_pylist() != list(values):
            raise OverflowError  # Arrow makes 1 of 1.5
        return found
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        if len(values) == 1:
            raise source.error(
                lines[0], f"column {name!r} is {values[0]!r}; expected {type}, which it is in the output"
            ) from error
        pairs = zip(lines, values, strict=True)
        return pa.concat_arrays([to_arrow(source, name, type, [line], [value]) for line, value in pairs])


def _as_string(value: Any) -> str | None:
    """Return a string as it is, nothing for nothing, and anything else as JSON."""
    return value if value is None or isinstance(value, str) else to_json(value)
