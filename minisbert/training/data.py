"""What is trained on: rows of texts from Python, CSV and JSONL."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, compress
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from minisbert.engine.inputs import check_collection, plain
from minisbert.errors import EncodeTypeError, EncodeValueError, shown

__all__ = ["DataSet", "Rows", "hold_out", "read"]

# Rows, or a file of them; several of either by name.
Rows: TypeAlias = "Iterable[Sequence[Any]] | str | os.PathLike[str]"

SCORE_NAMES = ("label", "labels", "score", "scores")


class DataSet(NamedTuple):
    """Rows of as many texts each, and their scores where they have some."""

    name: str
    rows: list[tuple[str, ...]]
    scores: list[float]


def read(data: Rows | Mapping[str, Rows], is_scored: bool, argument: str = "data") -> list[DataSet]:
    """Read rows (anchor, positive, negative ...) or (text, text, score); from several data sets by name, or from one.

    Raises
    ------
    EncodeTypeError, EncodeValueError
        If a row has too few columns, more or fewer than others, an empty text, or a score that is no finite number;
        if a file can't be read. The message names the row, or file and line.
    """
    named = data if isinstance(data, Mapping) else {_name(data, argument): data}
    sets = [_read_set(name, rows, is_scored) for name, rows in named.items()]
    if not sets:
        raise EncodeValueError(f"{argument} has no data sets; expected at least one")
    return sets


def _name(rows: Any, argument: str) -> str:
    return str(Path(rows)) if isinstance(rows, str | os.PathLike) else argument


def hold_out(sets: list[DataSet], count: int, seed: int) -> tuple[list[DataSet], DataSet]:
    """Take so many rows, drawn by chance, out of one data set, to evaluate with them."""
    if len(sets) != 1 or not 0 < count < len(sets[0].rows):
        found = " and ".join(f"{len(each.rows)} rows of {each.name}" for each in sets)
        raise EncodeValueError(
            f"evaluation is {count} rows of the data; found {found}; expected one data set, and more"
        )
    [(name, rows, scores)] = sets
    is_held = np.zeros(len(rows), bool)
    is_held[np.random.default_rng([seed, 1]).permutation(len(rows))[:count]] = True
    kept, held = (
        DataSet(name, list(compress(rows, chosen)), list(compress(scores, chosen)))
        for chosen in (~is_held, is_held)
    )
    return [kept], held


# --- reading ---------------------------------------------------------------------------------------------------


def _read_set(name: str, rows: Rows, is_scored: bool) -> DataSet:
    if isinstance(rows, str | os.PathLike):
        places = _read_file(Path(rows), is_scored)
    else:
        check_collection(
            name, rows, "rows of texts, as in [(anchor, positive), ...], or the name of a file of them"
        )
        places = ((f"{name}, row {i}", row) for i, row in enumerate(rows))
    data, width = DataSet(name, [], []), 0
    for place, row in places:
        texts = _check_row(place, row, is_scored, width)
        width = width or len(row)
        data.rows.append(texts)
        if is_scored:
            data.scores.append(_check_score(place, row[-1]))
    if not data.rows:
        raise EncodeValueError(f"{name}: has no rows; expected some")
    return data


def _check_row(place: str, row: Any, is_scored: bool, width: int) -> tuple[str, ...]:
    """Return the texts of a row; `width` is that of the first one, or 0."""
    expected = (
        "(text, text, score)" if is_scored else "(anchor, positive) or (anchor, positive, negative ...)"
    )
    if isinstance(row, str) or not isinstance(row, Sequence | np.ndarray):
        raise EncodeTypeError(f"{place}: is {type(row).__name__} {shown(row)}; expected {expected}")
    if len(row) < 2 or (is_scored and len(row) != 3) or (width and len(row) != width):
        others = f", and the first row has {width}" if width else ""
        raise EncodeValueError(
            f"{place}: has {len(row)} column{'s' * (len(row) != 1)}{others}; expected {expected}"
        )
    texts = tuple(map(plain, row[:2] if is_scored else row))
    for column, text in enumerate(texts):
        if not isinstance(text, str):
            raise EncodeTypeError(
                f"{place}: column {column} is {type(text).__name__} {shown(text)}; expected a string"
            )
        if not text.strip():
            raise EncodeValueError(f"{place}: column {column} is an empty text; leave the row out")
        if "\\ud" in ascii(text) and any("\ud800" <= c <= "\udfff" for c in text):
            raise EncodeValueError(f"{place}: column {column} holds a lone surrogate, which is no character")
    return texts


def _check_score(place: str, value: Any) -> float:
    try:
        score = float(value)
    except (TypeError, ValueError, OverflowError):
        score = math.nan
    if not math.isfinite(score):
        raise EncodeValueError(f"{place}: the score is {shown(value)}; expected a finite number")
    return score


def _read_file(path: Path, is_scored: bool) -> Iterator[tuple[str, Sequence[Any]]]:
    """Yield each row of a CSV file with a header, or of JSONL, with its place in words."""
    if path.suffix.lower() not in READERS:
        raise EncodeValueError(
            f"{path}: is no file of rows; expected a name that ends in {', '.join(READERS)}"
        )
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for line, row in READERS[path.suffix.lower()](path, file, is_scored):
                yield f"{path}, line {line}", row
    except UnicodeDecodeError as error:
        raise EncodeValueError(f"{path}: is not UTF-8 ({error}); save it as UTF-8") from error
    except OSError as error:
        raise EncodeValueError(f"{path}: can't be read ({error.strerror})") from error


def _read_csv(path: Path, lines: Iterable[str], is_scored: bool) -> Iterator[tuple[int, list[Any]]]:
    lines = iter(lines)
    head = next(lines, "")
    separator = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=head.count)
    csv.field_size_limit(1 << 28)
    reader = csv.reader(chain([head], lines), delimiter=separator, strict=True)
    try:
        header = next(reader, [])
        _check_header(path, header, is_scored)
        start = reader.line_num + 1
        for row in reader:
            if row:
                yield start, row
            start = reader.line_num + 1
    except csv.Error as error:
        raise EncodeValueError(f"{path}, line {reader.line_num}: is not CSV ({error})") from error


def _check_header(path: Path, header: list[str], is_scored: bool) -> None:
    """Refuse one column, and scores that a loss has no use for: they would be read as texts."""
    if len(header) < 2 + is_scored:
        wanted = "two texts and a score" if is_scored else "anchor, positive, and perhaps negatives"
        raise EncodeValueError(
            f"{path}: the header has the columns {shown(header)}; expected {wanted}, in this order"
        )
    if not is_scored and header[-1].strip().lower() in SCORE_NAMES:
        raise EncodeValueError(
            f"{path}: the last column is {header[-1]!r}; leave it out, or choose loss='CosineSimilarityLoss', which is "
            "for scored pairs"
        )


def _read_jsonl(path: Path, lines: Iterable[str], is_scored: bool) -> Iterator[tuple[int, list[Any]]]:
    keys: list[str] = []
    for line, text in enumerate(lines, 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise EncodeValueError(f"{path}, line {line}: is not JSON ({error})") from error
        if isinstance(row, dict):
            keys = keys or list(row)
            if set(keys) != set(row):
                raise EncodeValueError(
                    f"{path}, line {line}: has the keys {shown(list(row))}; expected {shown(keys)}"
                )
            _check_header(path, keys, is_scored)
            row = [row[key] for key in keys]
        yield line, row


READERS = {".csv": _read_csv, ".tsv": _read_csv, ".jsonl": _read_jsonl, ".ndjson": _read_jsonl}
