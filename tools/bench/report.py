"""What `run.py` measured, as Markdown: for the terminal, and for `tools/results/README.md`.

Medians come with the lowest and the highest value of the rounds. A ratio is taken within a round, and the median of
the rounds' ratios is shown. Nothing here measures, so the tables can be made anew from a stored result.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from tools.bench.engines import TITLES

__all__ = ["NAME", "markdown", "ratios"]

NAME = "benchmark"  # of the markers, which a processor's name follows
KINDS = {"paragraphs": "paragraphs", "titles": "titles", "code": "functions of code", "mixed": "of all kinds"}
Found = dict[str, Any]


def markdown(found: Found) -> str:
    """Return all tables: a block for each model, and a line that says where and when it was measured."""
    blocks = [model_block(title, model) for title, model in found["models"].items()]
    return "\n\n".join([*blocks, footer(found)])


def model_block(title: str, model: Found) -> str:
    parts = [f"**{title}**: {model['description']}."]
    if "throughput" in model or model.get("avx2"):
        parts += [speed_table(model), limits_table(model)]
    parts += [alone_table(model), facts_table(model), shares_table(model), curves_table(model)]
    return "\n\n".join(part for part in parts if part)


def footer(found: Found) -> str:
    machine = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return (
        f"{machine['processor']}, {machine['threads']} threads for every engine, {machine['float32 a vector']} "
        f"float32 a vector; Python {machine['python']}, {versions}; {found['date']}. "
        "In brackets: the lowest and the highest of the rounds."
    )


# --- Numbers ----------------------------------------------------------------------------------------------


def ranged(values: Sequence[float], digits: int) -> str:
    """Write a median and, in brackets, the range."""
    middle, low, high = (f"{f(values):,.{digits}f}" for f in (statistics.median, min, max))
    return f"{middle} ({low}–{high})" if len(values) > 1 else middle


def ratios(seconds: dict[str, list[float]], name: str) -> list[float]:
    """Return how many times as fast as an engine minisbert was, round by round."""
    return [theirs / ours for theirs, ours in zip(seconds[name], seconds["minisbert"], strict=True)]


def rates(entry: Found, name: str) -> list[float]:
    """Return texts a second, round by round."""
    return [entry["texts"] / taken for taken in entry["seconds"][name]]


def shares(entry: Found, of: str) -> list[float]:
    """Return minisbert's share of the machine's ceiling or peak in per cent, round by round."""
    pairs = zip(entry["seconds"]["minisbert"], entry[of], strict=True)
    return [100 * entry["gflop"] / taken / most for taken, most in pairs]


def limits(entry: Found, name: str) -> list[float]:
    """Return how many times as fast as an engine minisbert would be at the machine's peak, round by round."""
    pairs = zip(entry["seconds"][name], entry["peak"], strict=True)
    return [taken * most / entry["gflop"] for taken, most in pairs]


def turn_medians(entry: Found) -> dict[str, list[float]]:
    """Return the median of each turn of a latency measurement."""
    return {
        name: [float(value) for value in np.median(np.reshape(taken, (-1, entry["turn"])), axis=1)]
        for name, taken in entry["seconds"].items()
    }


# --- Tables -----------------------------------------------------------------------------------------------


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] * len(head), *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def peers(entries: Iterable[Found]) -> list[str]:
    """Return the engines beside minisbert, in the order of `TITLES`."""
    measured = {name for entry in entries for name in entry["seconds"]}
    return [name for name in TITLES if name in measured and name != "minisbert"]


def timed(model: Found) -> dict[str, Found]:
    """Return what was measured of many texts, by their number, kind and length."""
    entries = {KINDS[task]: entry for task, entry in model.get("throughput", {}).items()}
    if model.get("avx2"):
        entries["of all kinds, AVX2 only"] = model["avx2"]
    return {f"{e['texts']:,} {kind}, {e['tokens']:.0f} tokens": e for kind, e in entries.items()}


def speed_table(model: Found) -> str:
    """Return sentences a second, the ratios, and the shares of ceiling and peak, for each kind of text."""
    entries = timed(model)
    names = peers(entries.values())
    head = [
        "texts",
        "a second",
        *(f"÷ {TITLES[name]}" for name in names),
        "% of the ceiling",
        "% of the peak",
    ]
    rows = []
    for texts, entry in entries.items():
        times = [ranged(ratios(entry["seconds"], n), 2) if n in entry["seconds"] else "" for n in names]
        reached = [ranged(shares(entry, of), 0) for of in ("ceiling", "peak")]
        rows.append([texts, ranged(rates(entry, "minisbert"), 0), *times, *reached])
    return table(head, rows)


def limits_table(model: Found) -> str:
    """Return the ratios that were to be had if all of minisbert's time were multiply-adds at the machine's peak."""
    entries = timed(model)
    names = peers(entries.values())
    rows = []
    for texts, entry in entries.items():
        most = [ranged(limits(entry, n), 2) if n in entry["seconds"] else "" for n in names]
        rows.append([f"at the peak: {texts}", *most])
    return table(["the most there is to win", *(f"÷ {TITLES[name]}" for name in names)], rows)


def alone_table(model: Found) -> str:
    """Return the time that one text takes, and the errors: a column for each engine."""
    entries, wrong = model.get("latency", {}), model.get("errors", {})
    measured = [*wrong, *(name for entry in entries.values() for name in entry["seconds"])]
    names = [name for name in TITLES if name in measured]
    rows = [row for kind, entry in entries.items() for row in latency_rows(kind, entry, names)]
    for kind in ("largest", "mean") if wrong else ():
        row = (f"{wrong[name][kind]:.1e}" for name in names)
        rows.append([f"{kind} error of a component, {wrong['texts']} texts", *row])
    return table(["", *(TITLES[name] for name in names)], rows) if rows else ""


def latency_rows(kind: str, entry: Found, names: list[str]) -> Iterator[list[str]]:
    what = f"{kind} alone, {entry['tokens']:.0f} tokens"
    for q in (50, 99):
        values = (1e3 * float(np.percentile(entry["seconds"][name], q)) for name in names)
        yield [f"{what}: p{q}, ms", *(f"{value:.2f}" for value in values)]
    medians = turn_medians(entry)
    yield [f"{what}: ÷ minisbert", "1", *(ranged(ratios(medians, name), 2) for name in names[1:])]


def facts_table(model: Found) -> str:
    """Return what was measured of minisbert alone: threads, new processes, memory."""
    rows = [*threads_rows(model), *start_rows(model), *memory_rows(model)]
    return table(["minisbert", ""], rows) if rows else ""


def threads_rows(model: Found) -> list[list[str]]:
    if "threads" not in model:
        return []
    found = model["threads"]
    faster = [
        one / every for one, every in zip(found["seconds"]["one"], found["seconds"]["all"], strict=True)
    ]
    top = [every / one for one, every in zip(found["ceiling"]["one"], found["ceiling"]["all"], strict=True)]
    what = f"{found['threads']} threads ÷ 1 thread, texts of all kinds; the ceiling likewise"
    return [[what, f"{ranged(faster, 2)}; {ranged(top, 2)}"]]


def start_rows(model: Found) -> list[list[str]]:
    if "start" not in model:
        return []
    warm = ranged(model["start"]["warm"], 2)
    return [
        ["a new process, from its start to the first vector, s", warm],
    ]


def memory_rows(model: Found) -> list[list[str]]:
    rows = []
    for count, found in model.get("memory", {}).items():
        what = f"peak memory, {int(count):,} texts of all kinds, MiB"
        rows.append([what, f"{found['peak']:,.0f}, of which vectors {found['vectors']:,.0f}"])
    if len(rows) == 2:
        few, many = model["memory"].values()
        growth = many["peak"] - few["peak"]
        beyond = growth - (many["vectors"] - few["vectors"])
        rows.append(["growth from the one to the other; beyond the vectors", f"{growth:,.0f}; {beyond:,.0f}"])
    return rows


def shares_table(model: Found) -> str:
    """Return each kernel's share of the time, its speed against the ceiling, and what it reads of the weights."""
    rows = [row for task, entry in model.get("shares", {}).items() for row in shares_rows(task, entry)]
    head = ["where the time goes", "share", "GFLOP/s", "% of the ceiling", "weights, GB/s"]
    return table(head, rows) if rows else ""


def shares_rows(task: str, entry: Found) -> Iterator[list[str]]:
    what = f"{task}, {entry['threads']} thread{'s' * (entry['threads'] > 1)}"
    for name, (seconds, operations, read) in entry["kernels"].items():
        speed = operations / seconds / 1e9
        part = [f"{speed:.0f}", f"{100 * speed / entry['ceiling']:.0f}"] if operations else ["", ""]
        weights = f"{read / seconds / 1e9:.0f}" if read else ""
        yield [f"{what}: `{name}`", f"{100 * seconds / entry['seconds']:.0f} %", *part, weights]
    left = entry["seconds"] - sum(seconds for seconds, *_ in entry["kernels"].values())
    yield [f"{what}: all else", f"{100 * left / entry['seconds']:.0f} %", "", "", ""]


def curves_table(model: Found) -> str:
    """Return the points of both curves: texts a second, and the ratios."""
    if "curves" not in model:
        return ""
    found = model["curves"]
    names = peers(found["counts"])
    rows = []
    for entry in (*found["counts"], *found["lengths"]):
        texts = f"{entry['texts']:,} of {entry['tokens']:.0f} tokens"
        times = (ranged(ratios(entry["seconds"], name), 2) for name in names)
        rows.append([texts, ranged(rates(entry, "minisbert"), 0), *times])
    return table(["rising counts and lengths", "a second", *(f"÷ {TITLES[name]}" for name in names)], rows)
