"""Everything that the project's pages show of stored results, made in one go.

The README's speed table, the tables of each processor in `tools/results/README.md`, and the two plots beside it.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from tools.bench import plot, readme, report, stored
from tools.bench.engines import TITLES

__all__ = ["block", "publish", "speed_table"]

SPEED = "speed"  # of the markers of the README's table
WORKLOADS = {
    "many short texts": ("throughput", "titles"),
    "many long texts": ("throughput", "paragraphs"),
    "a mix, with code": ("throughput", "mixed"),
    "one short text": ("latency", "one title"),
}
Found = dict[str, Any]


def publish(files: list[Path], root: Path) -> list[Path]:
    """Rewrite the pages and plots below a folder from stored results; return what was written."""
    runs, sizes = stored.by_processor(files), stored.sizes(files)
    page, results = root / readme.README.name, root / "tools" / "results"
    measured = {name: found for name, found in runs.items() if "transcribed" not in found}
    tables = {block(found): report.markdown(found) for found in measured.values()}
    pages = {page: {SPEED: speed_table(runs)}, results / "README.md": tables}
    texts = {path: readme.with_blocks(path, blocks) for path, blocks in pages.items()}  # all or nothing
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    drawn = []
    if plot.speed(measured, results / "speed.svg"):
        drawn.append(results / "speed.svg")
    if sizes:
        plot.size(sizes, results / "size.svg")
        drawn.append(results / "size.svg")
    return [*texts, *drawn]


def block(found: Found) -> str:
    """Name the block of tables of a processor: each has one of its own."""
    return f"{report.NAME}, {found['machine']['processor']}"


# --- The README's table -----------------------------------------------------------------------------------


def speed_table(runs: dict[str, Found]) -> str:
    """Return a line for each workload, a column for each processor: how many times as fast minisbert is."""
    models = {processor: next(iter(found["models"].items())) for processor, found in runs.items()}
    peers = [name for name in TITLES if name != "minisbert"]
    rows = []
    for kind, place in WORKLOADS.items():
        entries = [e for _, model in models.values() if (e := entry(model, place))]
        cells = [
            " · ".join(filter(None, (cell(m, place, name) for name in peers))) for _, m in models.values()
        ]
        rows += [[f"{kind}, {entries[0]['tokens']:.0f} tokens", *cells]] if entries else []
    head = f"speed-up over {' · '.join(TITLES[name] for name in peers)}"
    return f"{report.table([head, *models], rows)}\n\n{footer(runs, models)}"


def footer(runs: dict[str, Found], models: dict[str, tuple[str, Found]]) -> str:
    titles = ", ".join(dict.fromkeys(title for title, _ in models.values()))
    threads = ", ".join(dict.fromkeys(str(found["machine"]["threads"]) for found in runs.values()))
    of = "; ".join(
        f"{name}: {found['machine']['processor']}, {found['date']}" for name, found in runs.items()
    )
    return (
        f"How many times as fast as each peer minisbert is: {titles} in float32, {threads} threads for every engine, "
        f"medians. {of}."
    )


def entry(model: Found, place: tuple[str, str]) -> Found | None:
    part, task = place
    found: Found | None = model.get(part, {}).get(task)
    return found


def cell(model: Found, place: tuple[str, str], name: str) -> str:
    """Return a speed-up as the README writes it; nothing if it was not measured."""
    found = entry(model, place)
    if found is None:
        return ""
    if "speedups" in found:  # a transcript's: median, lowest, highest
        return f"{found['speedups'][name][0]:.1f}×" if name in found["speedups"] else ""
    seconds = report.turn_medians(found) if "turn" in found else found["seconds"]
    if name not in seconds:
        return ""
    return f"{statistics.median(report.ratios(seconds, name)):.1f}×"
