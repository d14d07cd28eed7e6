"""The file of a level's machine code: the code, an index, the index's length in 8 bytes, and a checksum in 4.

The index says which sources and level the code was built of, and where its entries are. What does not fit is refused.
"""

from __future__ import annotations

import json
import sys
import zlib
from functools import cache
from pathlib import Path
from typing import Any

from minisbert.kernels.levels import CHOSEN

__all__ = ["ABI", "CONVENTIONS", "ENTRIES", "KernelsError", "checksum", "packed", "source_hash", "unpacked"]

ABI = 2  # how the index is written, and what the entries take
# What is called from outside, and how many arguments it has, all of them integers.
ENTRIES = {"execute": 2, "replay": 5, "watch": 2, "close": 1, "work": 3}
# How a system calls: each entry is there for either, by this name before its own.
CONVENTIONS = ("unix", "windows")
HERE = CONVENTIONS[sys.platform == "win32"]
_KERNELS = Path(__file__).parents[1]


class KernelsError(Exception):
    """There is no machine code that can be run here; the message says why."""


def checksum(content: bytes) -> bytes:
    """Return four bytes that accidents change; `hashlib` would take some milliseconds to be imported."""
    return zlib.crc32(content).to_bytes(4, "big")


@cache
def source_hash() -> str | None:
    """Hash all that the machine code of the kernels is made of; None where no sources are, but only `.pyc` or a zip."""
    paths = sorted(path for folder in ("", "source", "runtime") for path in (_KERNELS / folder).glob("*.py"))
    content = b"".join(path.read_bytes().replace(b"\r\n", b"\n") for path in paths)
    return checksum(content).hex() if paths else None


def packed(code: bytes, places: dict[str, int]) -> bytes:
    """Return the file of this process's level, whose code has its entries in these places."""
    entries = {which: {name: places[f"{which}_{name}"] for name in ENTRIES} for which in CONVENTIONS}
    facts = {"abi": ABI, "level": CHOSEN, "sources": source_hash(), "entries": entries}
    index = json.dumps(facts, sort_keys=True).encode()
    body = code + index + len(index).to_bytes(8, "little")
    return body + checksum(body)


def unpacked(content: bytes, name: str, convention: str = HERE) -> dict[str, int]:
    """Return where in a file's code the entries are.

    Raises
    ------
    KernelsError
        If the file is not sound, or not made for here.
    """
    body = content[:-4]
    if len(body) < 8 or checksum(body) != content[-4:]:
        raise KernelsError(f"{name}: is damaged; install minisbert again")
    size = len(body) - 8 - int.from_bytes(body[-8:], "little")  # of the code
    try:
        index = dict(json.loads(body[max(size, 0) : -8]))
    except (ValueError, TypeError, RecursionError) as error:
        raise KernelsError(f"{name}: has no index ({error}); install minisbert again") from error
    expected = {"abi": ABI, "level": CHOSEN, "sources": source_hash() or index.get("sources")}
    if (found := {key: index.get(key) for key in expected}) != expected:
        raise KernelsError(f"{name}: was built of {found}, and here is {expected}; install minisbert again")
    conventions: Any = index.get("entries")
    starts: Any = conventions.get(convention) if isinstance(conventions, dict) else None
    is_sound = isinstance(starts, dict) and starts.keys() == ENTRIES.keys()
    if not is_sound or not all(type(start) is int and 0 <= start < size for start in starts.values()):
        raise KernelsError(f"{name}: its entries are not {', '.join(ENTRIES)}; install minisbert again")
    return dict(starts)
