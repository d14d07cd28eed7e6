"""What `machines.py` measured, as Markdown: the engines beside one process, and a plan for a billion texts.

The plan tells what was measured from what is reckoned: it takes every core to be as fast as those that were measured
with all of them busy, and the engine to lose as much as the one that lost most.
"""

from __future__ import annotations

import statistics
from typing import Any

from tools.bench.report import footer, ranged, table

__all__ = ["markdown"]

TEXTS = 1_000_000_000
CORES = 100
TITLES = {"ray": "Ray Data", "pyspark": "Spark", "distributed": "Dask"}
Found = dict[str, Any]


def markdown(found: Found, price: float) -> str:
    """Return both tables, at a price a core hour."""
    parts = [engines_table(found), plan_table(found, price), footer(found)]
    return "\n\n".join(part for part in parts if part)


def engines_table(found: Found) -> str:
    measured = found["engines"]
    if not measured["seconds"]:
        return ""
    head = [
        f"{measured['texts']:,} {measured['kind']}, {found['model']}, {found['dtype']}",
        "texts a second", "÷ one process", "loads", "vectors", "start and first batches",
    ]  # fmt: skip
    rows = [
        [
            TITLES[name],
            ranged([measured["texts"] / seconds for seconds in entry["engine"]], 0),
            ranged(shares(entry), 2),
            f"{sum(entry['loads'])} in {len(entry['loads'])} workers",
            "bit-identical" if entry["identical"] else "DIFFERENT",
            f"{entry['start']:.0f} s + {entry['first']:.0f} s",
        ]
        for name, entry in measured["seconds"].items()
    ]
    return table(head, rows)


def shares(entry: Found) -> list[float]:
    """Return how fast an engine was, of one process's speed, round by round."""
    return [alone / engine for alone, engine in zip(entry["alone"], entry["engine"], strict=True)]


def plan_table(found: Found, price: float) -> str:
    kinds = list(found["kinds"].values())
    rates = [rate(entry, found["machine"]["threads"]) for entry in kinds]
    share = lowest_share(found)
    hours = [TEXTS / each / share / 3600 for each in rates]
    dimension = found["dimension"]
    stored = " · ".join(
        f"{amount(TEXTS * size)} {name}"
        for name, size in (("float32", 4 * dimension), ("int8", dimension), ("binary", -(-dimension // 8)))
    )
    rows = [
        ["*measured:* tokens a text", *(f"{entry['tokens']:.0f}" for entry in kinds)],
        ["*measured:* texts a second and core", *(f"{each:,.0f}" for each in rates)],
        ["*measured:* the slowest engine ÷ one process", *([f"{share:.2f}"] * len(kinds))],
        ["*reckoned:* core hours", *(f"{each:,.0f}" for each in hours)],
        [f"*reckoned:* hours on {CORES} cores", *(f"{each / CORES:,.1f}" for each in hours)],
        [f"*reckoned:* cost, at ${price:g} a core hour", *(f"${each * price:,.0f}" for each in hours)],
        [f"*reckoned:* vectors of {dimension} components", *([stored] * len(kinds))],
    ]
    head = [f"{TEXTS:,} texts, {found['model']}, {found['dtype']}", *found["kinds"]]
    return table(head, rows)


def rate(entry: Found, threads: int) -> float:
    """Return how many texts a second one core computes while all are busy."""
    return float(entry["texts"] / statistics.median(entry["seconds"]) / threads)


def lowest_share(found: Found) -> float:
    """Return the share of one process's speed that the slowest engine reached: all of it, if none was timed."""
    measured = found["engines"]["seconds"].values()
    return min((statistics.median(shares(entry)) for entry in measured), default=1.0)


def amount(size: float) -> str:
    return f"{size / 1e12:.2f} TB" if size >= 1e12 else f"{size / 1e9:.0f} GB"
