"""JSON files, read such that every complaint names the file, the key, what was found and what was expected."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from minisbert.checkpoint.access import open_file, status_of
from minisbert.checkpoint.links import refuse_link_out
from minisbert.errors import CheckpointError, UnsupportedCheckpointError, shown

__all__ = ["JsonFile", "KeyLog", "is_there", "parse_json", "read_json", "watch_keys", "write_json"]

T = TypeVar("T")
KeyLog = dict[Path, dict[str, bool]]  # the keys of each file, and whether anybody asked for them
_log: ContextVar[KeyLog | None] = ContextVar("_log", default=None)


@contextmanager
def watch_keys() -> Iterator[KeyLog]:
    """Keep a log of the files that are read in this context, and of their keys: `minisbert check` reports it."""
    log: KeyLog = {}
    token = _log.set(log)
    try:
        yield log
    finally:
        _log.reset(token)


class _Watched(dict[str, Any]):
    """The content of a file, which notes what it is asked for."""

    def __init__(self, values: Mapping[str, Any], log: dict[str, bool]) -> None:
        super().__init__(values)
        self._log = log
        for key in values:
            log.setdefault(key, False)

    def _note(self, key: str) -> None:
        if key in self._log:
            self._log[key] = True

    def __contains__(self, key: Any) -> bool:
        self._note(key)
        return super().__contains__(key)

    def __getitem__(self, key: str) -> Any:
        self._note(key)
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self._note(key)
        return super().get(key, default)


@dataclass(frozen=True, eq=False, repr=False)
class JsonFile:
    """A JSON object and the file it came from, so that every complaint can name both."""

    path: Path
    values: Mapping[str, Any]

    def __post_init__(self) -> None:
        if (log := _log.get()) is not None:
            object.__setattr__(self, "values", _Watched(self.values, log.setdefault(self.path, {})))

    def get(self, key: str, kind: type[T], default: T | None = None) -> T:
        """Return the value of a key, checked to be of one type; a None or missing one gives the default."""
        value = self.values.get(key)
        if value is None:
            if default is None:
                raise CheckpointError(f"{self.path}: the key {key!r} is missing; expected {kind_of(kind)}")
            return default
        kinds: Any = (int, float) if kind is float else kind
        if not isinstance(value, kinds) or (kind is not bool and isinstance(value, bool)):
            raise CheckpointError(f"{self.path}: {key} is {shown(value)}; expected {kind_of(kind)}")
        return cast(T, value)

    def optional(self, key: str, kind: type[T]) -> T | None:
        """Return the value of a key, or None where it is missing or null."""
        return None if self.values.get(key) is None else self.get(key, kind)

    def size(self, key: str, at_most: int = 2**31 - 1, default: int | None = None) -> int:
        """Return the value of a key, checked to be a positive integer."""
        value = self.get(key, int, default)
        if not 1 <= value <= at_most:
            raise CheckpointError(
                f"{self.path}: {key} is {shown(value)}; expected an integer from 1 to {at_most}"
            )
        return value

    def refuse_unless(self, allowed: Mapping[str, Iterable[Any]]) -> None:
        """Refuse settings that change the result, unless their values are among those computed here."""
        problems = []
        for key, values in allowed.items():
            if key in self.values and self.values[key] not in (values := (None, *values)):
                supported = " or ".join(repr(value) for value in values if value is not None)
                problems.append(
                    f"{key} is {shown(self.values[key])}, which minisbert does not compute; "
                    f"supported: {supported or 'leaving it out'}"
                )
        if problems:
            raise UnsupportedCheckpointError(f"{self.path}: {'. '.join(problems)}")


def read_json(path: Path) -> JsonFile:
    """Read a JSON object; a missing file counts as an empty one, as all but config.json are optional."""
    if not is_there(path):
        return JsonFile(path, {})
    values = parse_json(path)
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: holds {kind_of(type(values))}; expected an object")
    return JsonFile(path, values)


def is_there(path: Path) -> bool:
    """Whether there is such a file; a folder, a pipe or a link to nothing does not count as an absent one."""
    refuse_link_out(path, path.parent)
    status = status_of(path)
    is_file = status is not None and stat.S_ISREG(status.st_mode)
    if not is_file and (status or status_of(path, follow_symlinks=False)):
        raise CheckpointError(f"{path}: is not a regular file, nor a link to one; copy the checkpoint again")
    return is_file


def parse_json(path: Path) -> Any:
    """Read whatever JSON a file holds."""
    with open_file(path) as file:
        content = file.read()
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:  # malformed, not UTF-8, or nested without end
        raise CheckpointError(f"{path}: is not valid JSON ({error}); copy the checkpoint again") from error


def write_json(path: Path, values: Any) -> None:
    """Write JSON as sentence-transformers does."""
    path.write_text(json.dumps(values, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def kind_of(kind: type) -> str:
    """Name a Python type as a reader of JSON would."""
    names = {str: "a string", int: "an integer", float: "a number", bool: "true or false", dict: "an object"}
    return names.get(kind, "a list" if kind is list else "nothing")
