"""A linker: one object file to one piece of code that runs wherever it is mapped.

The kernels need nothing from outside, have no data that is written, and are compiled to be independent of their
position. So there is little to do: put the sections behind each other, and fill in the distances between them.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

__all__ = ["LinkError", "link"]


class LinkError(Exception):
    """The object file has something that these kernels should not have."""


class _Section(NamedTuple):
    name: str
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    align: int


_PROGRAM, _RELOCATIONS, _SYMBOLS = 1, 4, 2
_WRITABLE, _ALLOCATED = 1, 2
# Unwinding goes through frames that throw, which kernels don't.
_LEFT_OUT = (".eh_frame", ".note", ".comment", ".llvm")


def link(content: bytes, entries: list[str]) -> tuple[bytes, dict[str, int]]:
    """Return the code of an ELF object file for x86-64 or 64-bit ARM, and where in it each entry is.

    Raises
    ------
    LinkError
        If it refers to anything outside of itself, has data that is written, or a relocation that is not known here.
    """
    sections = _sections(content)
    code, places = _lay_out(content, sections)
    [table] = [i for i, section in enumerate(sections) if section.kind == _SYMBOLS]
    symbols = _symbols(content, sections, table, places)
    for section in sections:
        if section.kind == _RELOCATIONS and section.info in places:
            for at in range(section.offset, section.offset + section.size, 24):
                offset, info, addend = struct.unpack_from("<QQq", content, at)
                name, target = symbols[info >> 32]
                if target is None:
                    raise LinkError(f"{name} is not in the object file")
                _relocate(code, info & 0xFFFFFFFF, places[section.info] + offset, target + addend)
    found = {name: place for name, place in symbols if name in entries and place is not None}
    if missing := set(entries) - set(found):
        raise LinkError(f"no entries {sorted(missing)}")
    return bytes(code), found


def _sections(content: bytes) -> list[_Section]:
    if content[:6] != b"\x7fELF\x02\x01":
        raise LinkError("not a 64-bit little-endian ELF file")
    [start] = struct.unpack_from("<Q", content, 0x28)
    size, count, names = struct.unpack_from("<HHH", content, 0x3A)
    rows = [struct.unpack_from("<IIQQQQIIQQ", content, start + i * size) for i in range(count)]
    text = rows[names][4]
    return [
        _Section(_string(content, text + name), kind, flags, offset, length, link, info, align)
        for name, kind, flags, _, offset, length, link, info, align, _ in rows
    ]


def _string(content: bytes, start: int) -> str:
    return content[start : content.index(b"\0", start)].decode()


def _lay_out(content: bytes, sections: list[_Section]) -> tuple[bytearray, dict[int, int]]:
    """Put the sections that are needed when the code runs one after the other; return where each is."""
    code, places = bytearray(), {}
    for i, section in enumerate(sections):
        if not section.flags & _ALLOCATED or not section.size or section.name.startswith(_LEFT_OUT):
            continue
        if section.flags & _WRITABLE or section.kind != _PROGRAM:
            raise LinkError(f"section {section.name} is written, or not there, when the code runs")
        code += bytes(-len(code) % max(section.align, 1))
        places[i] = len(code)
        code += content[section.offset : section.offset + section.size]
    return code, places


def _symbols(
    content: bytes, sections: list[_Section], table: int, places: dict[int, int]
) -> list[tuple[str, int | None]]:
    """Return name and place of each symbol; None for those that are not here."""
    found: list[tuple[str, int | None]] = []
    names = sections[sections[table].link].offset
    for at in range(sections[table].offset, sections[table].offset + sections[table].size, 24):
        name, _, _, section, value, _ = struct.unpack_from("<IBBHQQ", content, at)
        place = places[section] + value if section in places else None
        found.append((_string(content, names + name), place))
    return found


def _relocate(code: bytearray, kind: int, place: int, target: int) -> None:
    """Fill in one distance, as the ABI of either processor names it."""
    [word] = struct.unpack_from("<I", code, place)
    match kind:
        case 2 | 4 | 261:  # R_X86_64_PC32, R_X86_64_PLT32, R_AARCH64_PREL32
            word = target - place
        case 282 | 283:  # R_AARCH64_JUMP26, R_AARCH64_CALL26
            word |= (target - place >> 2) & 0x3FFFFFF
        case 275:  # R_AARCH64_ADR_PREL_PG_HI21: in pages, as the code starts with one
            pages = (target >> 12) - (place >> 12)
            word |= (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5
        case 277 | 278 | 284 | 285 | 286 | 299:  # R_AARCH64_ADD_ABS_LO12_NC, and of loads of 1 to 16 bytes
            shift = {277: 0, 278: 0, 284: 1, 285: 2, 286: 3, 299: 4}[kind]
            word |= (target & 0xFFF) >> shift << 10
        case _:
            raise LinkError(f"relocation {kind} at {place}")
    struct.pack_into("<I", code, place, word & 0xFFFFFFFF)
