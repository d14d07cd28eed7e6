"""Damaged checkpoints: every kind of wrong file, each made from a number alone.

`mutate` takes the files of a sound checkpoint and changes one to three things in one of them, as a bad disk, a
cut download, a careless hand or an attacker would. The same seed makes the same files.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping
from typing import Any

Files = dict[str, bytes]
Mutation = Callable[[random.Random, bytes], bytes]

# JSON texts that stand for the values that code forgets: of every type, and far outside every range.
VALUES = (
    *(
        "null",
        "true",
        "false",
        "0",
        "1",
        "-1",
        "2",
        "7",
        "255",
        "65536",
        "0.5",
        "-0.0",
        "1e-45",
        "1e308",
        "1e400",
    ),
    *(
        "NaN",
        "Infinity",
        "-Infinity",
        "2147483647",
        "2147483648",
        "4294967295",
        "9223372036854775807",
        "1e18",
    ),
    *("9223372036854775808", "18446744073709551615", "1" + "0" * 400, "-1" + "0" * 400, "1" + "0" * 6000),
    *(
        '""',
        '"a"',
        '"0"',
        '"null"',
        '"\\u0000"',
        '"\\ud800"',
        '"../.."',
        '"/etc"',
        '"C:\\\\"',
        '"mean"',
        '"gelu"',
    ),
    *('"bert"', '"roberta"', '"F32"', '"F16"', '"BF16"', '"I64"', '"F8_E4M3"', '"' + "x" * 100_000 + '"'),
    *("[]", "{}", "[[]]", "[null]", "[0]", "[1, 2, 3]", '{"a": 1}', '[{"a": []}]', "[" + "0, " * 5000 + "0]"),
    *("[" * 60 + "]" * 60, "[" * 20_000 + "]" * 20_000, '{"a":' * 5000 + "1" + "}" * 5000),
)
# Lengths that a safetensors header can claim to have.
LENGTHS = (0, 1, 2, 8, 2**16, 2**27, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 8, 2**64 - 1)
# Four bytes that are no ordinary float32: infinities, NaNs, the largest, the smallest, and minus zero.
FLOATS = ("0000807f", "000080ff", "0000c07f", "010080ff", "ffff7f7f", "01000000", "00000080", "ffffffff")
WRITTEN = "\ue000written:"  # a string of this and a number stands for one of the texts above


def mutate(seed: int, checkpoints: Mapping[str, Files]) -> tuple[str, str, Files]:
    """Return the name of a checkpoint, what kind of damage is done, and its files with the damage."""
    rng = random.Random(seed)
    name = rng.choice(sorted(checkpoints))
    files = dict(checkpoints[name])
    if rng.random() < 0.04:
        return name, "files: " + _mutate_files(rng, files, checkpoints), files
    path = _choose_file(rng, files)
    kinds = STRUCTURED if path.endswith(".json") else BINARY
    kind = rng.choice(sorted(kinds))
    if path.endswith(".json") and rng.random() < 0.6:  # most of what code reads is structure
        kind = rng.choice(("restructured", "values replaced"))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        files[path] = kinds[kind](rng, files[path])
    return name, f"{_group(path)}: {kind}", files


def _group(path: str) -> str:
    if path.endswith(".safetensors"):
        return "weights"
    return "tokenizer" if path.endswith("tokenizer.json") else "settings"


def _choose_file(rng: random.Random, files: Files) -> str:
    """Choose a group of files, and one of it: weights, tokenizer and settings come about as often as another."""
    groups: dict[str, list[str]] = {}
    for path in sorted(files):
        groups.setdefault(_group(path), []).append(path)
    return rng.choice(groups[rng.choice(sorted(groups))])


def _mutate_files(rng: random.Random, files: Files, checkpoints: Mapping[str, Files]) -> str:
    """Lose, empty or confuse whole files."""
    path, other = rng.choice(sorted(files)), rng.choice(sorted(files))
    kind = rng.choice(("lost", "empty", "exchanged", "of another checkpoint"))
    if kind == "lost":
        del files[path]
    elif kind == "empty":
        files[path] = b""
    elif kind == "exchanged":
        files[path], files[other] = files[other], files[path]
    else:
        source = checkpoints[rng.choice(sorted(checkpoints))]
        files[path] = source[rng.choice(sorted(source))] if rng.random() < 0.3 else source.get(path, b"{}")
    return kind


# --- Bytes of any kind --------------------------------------------------------------------------------


def _span(rng: random.Random, size: int, at_most: int = 1 << 16) -> tuple[int, int]:
    """Return the start and end of a random part, more often a short one."""
    start = rng.randrange(size + 1)
    length = int(min(size - start, at_most) * rng.random() ** 4) + 1
    return start, min(size, start + length)


def _flip_bits(rng: random.Random, content: bytes) -> bytes:
    data = bytearray(content or b"\0")
    for _ in range(rng.choice((1, 2, 8, 64))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def _truncate(rng: random.Random, content: bytes) -> bytes:
    keep = rng.choice((rng.randrange(len(content) + 1), len(content) - 1, rng.randrange(64)))
    return content[: max(0, keep)]


def _remove(rng: random.Random, content: bytes) -> bytes:
    start, end = _span(rng, len(content))
    return content[:start] + content[end:]


def _repeat(rng: random.Random, content: bytes) -> bytes:
    start, end = _span(rng, len(content))
    return content[:end] + content[start:]


def _insert(rng: random.Random, content: bytes) -> bytes:
    start = rng.choice((0, len(content), rng.randrange(len(content) + 1)))
    return content[:start] + rng.randbytes(rng.choice((1, 2, 8, 100))) + content[start:]


def _exchange(rng: random.Random, content: bytes) -> bytes:
    """Exchange two parts of the content."""
    a, b, c, d = sorted(rng.randrange(len(content) + 1) for _ in range(4))
    return content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]


def _blank(rng: random.Random, content: bytes) -> bytes:
    """Fill a part with one byte, as a disk does with a block that it lost."""
    start, end = _span(rng, len(content))
    return content[:start] + bytes([rng.choice((0, 0xFF, 0x20))]) * (end - start) + content[end:]


# --- safetensors: eight bytes that say how long the header is, the header, the numbers -----------------


def _header(content: bytes) -> tuple[Any, bytes]:
    """Return the header and the numbers; no header where an earlier mutation left none."""
    size = int.from_bytes(content[:8], "little")
    try:
        return json.loads(content[8 : 8 + size]), content[8 + size :]
    except (ValueError, RecursionError):
        return {}, content


def _with_header(header: bytes, numbers: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + numbers


def _flip_in_header(rng: random.Random, content: bytes) -> bytes:
    size = min(len(content), 8 + int.from_bytes(content[:8], "little"))
    return _flip_bits(rng, content[:size]) + content[size:]


def _wrong_length(rng: random.Random, content: bytes) -> bytes:
    right = int.from_bytes(content[:8], "little")
    near = right + rng.choice((-8, -1, 1, 8))
    wrong = rng.choice((*LENGTHS, len(content), len(content) - 8, near, rng.randrange(2**64)))
    return (wrong % 2**64).to_bytes(8, "little") + content[8:]


def _in_header(rng: random.Random, content: bytes, mutation: Mutation) -> bytes:
    header, numbers = _header(content)
    return _with_header(mutation(rng, json.dumps(header).encode()), numbers)


def _misdescribe(rng: random.Random, content: bytes) -> bytes:
    """Change one tensor's dtype, shape, place or name, and keep the header well-formed."""
    header, numbers = _header(content)
    names = sorted(name for name in header if name != "__metadata__")
    if not names:
        return content
    name, other = rng.choice(names), rng.choice(names)
    tensor = header[name]
    change = rng.choice(("dtype", "shape", "axes", "place", "overlap", "name", "twice", "prefix"))
    if change == "dtype":
        tensor["dtype"] = rng.choice(
            ("F64", "F16", "BF16", "I8", "U8", "I64", "BOOL", "F8_E5M2", "F4", "C64", "X")
        )
    elif change == "shape":
        tensor["shape"] = rng.choice(
            ([], [0], [-1], [2**32, 2**32], [2**63], tensor["shape"] * 2, [1.5], None)
        )
    elif change == "axes":
        tensor["shape"] = tensor["shape"][::-1] + [1] * rng.randrange(3)
    elif change == "place":
        tensor["data_offsets"][rng.randrange(2)] += rng.choice((-4, -1, 1, 4, 2**31, -(2**31), 2**62))
    elif change == "overlap":
        tensor["data_offsets"] = header[other]["data_offsets"]
    elif change == "name":
        header[name], header[other] = header[other], header[name]
    elif change == "twice":
        header["bert." + name] = tensor
    else:
        header = {key if key == "__metadata__" else f"model.{key}": value for key, value in header.items()}
    return _with_header(json.dumps(header).encode(), numbers)


def _spoil_numbers(rng: random.Random, content: bytes) -> bytes:
    """Put numbers that are not ordinary in the place of some."""
    size = 8 + int.from_bytes(content[:8], "little")
    data = bytearray(content)
    places = range(size, len(data) - 4, 4)
    for _ in range(rng.choice((1, 1, 3, 1000)) if places else 0):
        place = rng.choice(places)
        data[place : place + 4] = bytes.fromhex(rng.choice(FLOATS))
    return bytes(data)


# --- JSON ---------------------------------------------------------------------------------------------


def _restructure(rng: random.Random, content: bytes) -> bytes:
    """Change values, keys and structure: the text stays well-formed, but for values that are not JSON."""
    return _edit(rng, content, _change)


def _replace_values(rng: random.Random, content: bytes) -> bytes:
    """Change values into others of their type, which a check of types lets pass."""
    return _edit(rng, content, _change_within_type)


def _edit(rng: random.Random, content: bytes, change: Callable[[random.Random, Any, Any], None]) -> bytes:
    try:
        holder = {"root": json.loads(content)}
        for _ in range(rng.choice((1, 1, 2, 5))):
            change(rng, *_choose_place(rng, holder))
        return _write(holder["root"]).encode()
    except (ValueError, RecursionError):  # an earlier mutation left no JSON
        return content


def _choose_place(rng: random.Random, root: Any) -> tuple[Any, Any]:
    """Return a container and a key or index of it; each level is as likely to be the last one."""
    holder, key = root, "root"
    while isinstance(holder[key], dict | list) and holder[key] and rng.random() < 0.8:
        holder = holder[key]
        key = rng.choice(sorted(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
    return holder, key


def _change(rng: random.Random, holder: Any, key: Any) -> None:
    value = holder[key]
    kind = rng.choice(
        ("evil", "evil", "evil", "remove", "rename", "wrap", "type", "nudge", "exchange", "add")
    )
    if kind == "remove" and "root" not in holder:
        del holder[key]
    elif kind == "rename" and isinstance(holder, dict) and "root" not in holder:
        holder[rng.choice((key + "_", key.upper(), "", "type", "pooling_mode", "\ud800"))] = holder.pop(key)
    elif kind == "wrap":
        holder[key] = rng.choice(([value], {"a": value}, [value] * 3, {str(key): value}))
    elif kind == "type":
        holder[key] = _other_type(value)
    elif kind == "nudge" and isinstance(value, int | float) and abs(value) < 1e300:
        holder[key] = rng.choice(
            (value + 1, value - 1, -value, value * 2, value / 2, value * 1000, 1 - value)
        )
    elif kind == "exchange":
        other = rng.choice(sorted(holder)) if isinstance(holder, dict) else rng.randrange(len(holder))
        holder[key], holder[other] = holder[other], value
    elif kind == "add" and isinstance(value, dict):
        value[rng.choice(("a", "", "quantization_config", "merges", "is_decoder"))] = _evil(rng)
    else:
        holder[key] = _evil(rng)


def _change_within_type(rng: random.Random, holder: Any, key: Any) -> None:
    value = holder[key]
    if isinstance(value, bool):
        holder[key] = not value
    elif isinstance(value, int | float):
        holder[key] = rng.choice((0, 1, -1, 3, value + 1, 2**31, 2**32 - 1, 2**32, 0.5))
    elif isinstance(value, str):
        strings = (
            "",
            " ",
            "a",
            "\0",
            "##",
            "[CLS]",
            "</s>",
            value * 2,
            value[1:],
            value.upper(),
            "x" * 70_000,
        )
        holder[key] = rng.choice(strings)
    elif isinstance(value, list):
        holder[key] = rng.choice((value[::-1], value[1:], value[:-1], value * 2, []))
    elif isinstance(value, dict) and value:
        names = sorted(value)
        one, other = rng.choice(names), rng.choice(names)
        value[one], value[other] = value[other], value[one]
        if rng.random() < 0.3:
            value[one + other] = value.pop(one)


def _other_type(value: Any) -> Any:
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, list):
        return {str(index): item for index, item in enumerate(value)}
    return [*value] if isinstance(value, str) else str(value)


def _evil(rng: random.Random) -> str:
    return WRITTEN + str(rng.randrange(len(VALUES)))


def _write(root: Any) -> str:
    """Write JSON, and in it the values that no object could hold, as they are listed."""
    marked = re.compile(re.escape(json.dumps(WRITTEN)[:-1]) + '([0-9]+)"')
    return marked.sub(lambda match: VALUES[int(match[1])], json.dumps(root))


def _repeat_key(rng: random.Random, content: bytes) -> bytes:
    """Give an object one of its keys twice, with another value."""
    place = content.find(b"{", rng.randrange(len(content) + 1))
    keys = [part for part in content.split(b'"')[1::2] if len(part) < 50]
    if place < 0 or not keys:
        return content
    entry = b'"%b": %b, ' % (rng.choice(keys), rng.choice(VALUES).encode())
    return content[: place + 1] + entry + content[place + 1 :]


def _encode_otherwise(rng: random.Random, content: bytes) -> bytes:
    text = content.decode("utf-8", "replace")
    return text.encode(rng.choice(("utf-16", "utf-32", "utf-8-sig", "utf-7")))


ANY: dict[str, Mutation] = {
    "bits flipped": _flip_bits,
    "cut": _truncate,
    "a part removed": _remove,
    "a part repeated": _repeat,
    "a part inserted": _insert,
    "parts exchanged": _exchange,
    "a part blanked": _blank,
}
BINARY: dict[str, Mutation] = {
    **ANY,
    "bits flipped in the header": _flip_in_header,
    "wrong header length": _wrong_length,
    "header restructured": lambda rng, content: _in_header(rng, content, _restructure),
    "header values replaced": lambda rng, content: _in_header(rng, content, _replace_values),
    "tensor misdescribed": _misdescribe,
    "numbers spoilt": _spoil_numbers,
}
STRUCTURED: dict[str, Mutation] = {
    **ANY,
    "restructured": _restructure,
    "values replaced": _replace_values,
    "key repeated": _repeat_key,
    "other encoding": _encode_otherwise,
}
