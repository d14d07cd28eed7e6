"""Results that were stored as JSON: read, joined where they are of one processor, and told apart where they are not.

A file is one of three kinds. A *run* is what `bench --json` wrote. A *transcript* has only medians and ranges of
speed-ups, copied from tables whose raw figures were not kept; its key ``transcribed`` says from where. *Sizes* are
what `bench-size` wrote.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

__all__ = ["by_processor", "merged", "sizes"]

OF_ROUNDS = ("throughput", "latency", "threads", "start", "avx2")  # whose lists have a value for each round
Found = dict[str, Any]


def read(file: Path) -> Found:
    """Read a stored result of any kind, or stop."""
    try:
        found: Found = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not {"machine", "stacks"} & found.keys():
            raise ValueError("it names no machine")
    except (OSError, ValueError) as error:
        sys.exit(f"bench: --from {file}: expected what --json wrote ({error})")
    return found


def sizes(files: list[Path]) -> Found | None:
    """Return the sizes that one of the files holds, if any does."""
    return next((found for found in map(read, files) if "stacks" in found), None)


def by_processor(files: list[Path]) -> dict[str, Found]:
    """Return one result for each processor, under the name that its file has: ``zen5.json`` is Zen 5."""
    groups: dict[str, list[Path]] = {}
    for file in files:
        found = read(file)
        if "machine" in found:
            groups.setdefault(found["machine"]["processor"], []).append(file)
    if not groups:
        sys.exit("bench: --from: none of the files is of a run; give what --json wrote")
    return {title(group): merged(group) for group in groups.values()}


def title(files: list[Path]) -> str:
    stem = min((file.stem for file in files), key=len)
    return re.sub(r"(?<=[a-z])(?=\d)", " ", stem.replace("-", " ")).title()


def merged(files: list[Path]) -> Found:
    """Join several runs on one processor: rounds of the same thing add up, of anything else the last one counts."""
    runs = [read(file) for file in files]
    alike = ("processor", "threads", "float32 a vector")
    if len({tuple(run["machine"][key] for key in alike) for run in runs}) > 1:
        sys.exit("bench: the runs are of different processors or numbers of threads, so they can't be joined")
    if len(runs) > 1 and any("transcribed" in run for run in runs):
        names = ", ".join(str(file) for file in files)
        sys.exit(f"bench: {names}: a transcript has no rounds to join; delete it now that there is a run")
    models: Found = {}
    for run in runs:
        for name, found in run["models"].items():
            model = models.setdefault(name, {})
            for part, more in found.items():
                model[part] = joined(model.get(part), more) if part in OF_ROUNDS else more
    return {**runs[-1], "models": models}


def joined(found: Any, more: Any) -> Any:
    """Append the rounds of a later run to those of an earlier one, which timed the same engines on the same texts."""
    if isinstance(found, list):
        return found + more
    if not isinstance(found, dict):
        return more
    if "gflop" in found:
        one, other = ((timed["gflop"], sorted(timed["seconds"])) for timed in (found, more))
        if one != other:
            sys.exit("bench: the runs timed different texts or engines, so their rounds can't be joined")
    return found | {key: joined(found.get(key), value) for key, value in more.items()}
