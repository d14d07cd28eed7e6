"""``minisbert encode --append``: the rows that are new, after those that a file of Parquet has."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from typing import Any

from minisbert.cli.columns import EMBEDDING, TEXT, Columns, to_arrow
from minisbert.cli.parquetfile import other_types, reading_parquet, row_groups
from minisbert.cli.settings import KEY, Settings
from minisbert.cli.streams import TextFileError
from minisbert.cli.textio import Record
from minisbert.cli.where import no_column
from minisbert.cli.writers import Layout, embedding_type

__all__ = ["after", "keys_of", "new_rows"]


def after(file: Any, path: str, layout: Layout, settings: Settings) -> Layout:
    """Return the layout of an output whose first rows are those of a file, with its columns.

    Raises
    ------
    TextFileError
        If that was written by another program, with other settings, or with other columns than the input has.
    """
    schema, columns = file.schema_arrow, layout.columns
    content = (schema.metadata or {}).get(KEY)
    if content is None:
        raise TextFileError(f"{path}: doesn't say how it was encoded; write another file")
    settings.refuse_others(path, Settings.from_json(path, content))
    types = other_types(schema)
    found = {field.name: field.type for field in schema}
    if found.get(EMBEDDING) != embedding_type(layout.empty) or TEXT not in found:
        raise TextFileError(f"{path}: its columns were changed since it was encoded; write another file")
    for name in layout.types.keys() - types.keys():
        raise no_column(path, name, types)
    for name in types.keys() - columns.there.keys() if columns.there else ():
        raise no_column(columns.source.name, name, columns.there)
    return layout._replace(
        columns=Columns(columns.source, list(types)), types=types, old=row_groups(file, path)
    )


def keys_of(file: Any, path: str, key: str) -> set[Any]:
    """Return the keys of all rows of a file, which are in memory together."""
    types = other_types(file.schema_arrow)
    if key not in (TEXT, *types):
        raise no_column(path, key, [TEXT, *types])
    with reading_parquet(path):
        batches = file.iter_batches(columns=[key])
        return {value for batch in batches for value in batch.column(0).to_pylist()}


def new_rows(records: Iterable[Record], key: str, layout: Layout, known: set[Any]) -> Iterator[Record]:
    """Yield the records whose key is not known, nor that of a record before.

    Raises
    ------
    TextFileError
        If a record has no key, or one that is of another type than those of the file.
    """
    pa: Any = importlib.import_module("pyarrow")
    source = layout.columns.source
    types = {TEXT: "string"} | dict(layout.types)
    for record in records:
        if key not in types:
            raise no_column(source.name, key, record.fields)
        value = record.text if key == TEXT else record.fields.get(key)
        if value is None or value == "":
            raise source.error(
                record.line, f"there is nothing in {key!r}, by which --append tells rows apart"
            )
        kind = pa.field(key, types[key]).type
        found = to_arrow(source, key, kind, [record.line], [value])[0].as_py()
        if found not in known:
            known.add(found)
            yield record
