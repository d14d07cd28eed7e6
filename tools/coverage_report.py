"""What `coverage_run.py` measured: a line for each row, the README's table, and the rows that miss a bound."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["BOUNDS", "NAME", "line", "markdown", "misses"]

NAME = "coverage"  # of the README's markers
ERRORS = {"float64": "float64", "numba": "float32", "reference": "float32, NumPy alone"}
# The largest errors that are allowed: of a component of a unit vector; and of any vector, as a part of its largest.
BOUNDS = {"float64": (1e-12, 1e-12), "numba": (1e-6, 2e-6), "reference": (1e-6, 2e-6)}

Row = dict[str, Any]


def misses(row: Row) -> list[str]:
    """Say what of a row misses its bound: nothing, if all is well."""
    wrong = []
    if row["ids_equal"] != row["texts"]:
        wrong.append(f"the token ids of {row['texts'] - row['ids_equal']} texts differ")
    for name, (unit, relative) in BOUNDS.items():
        bound = unit if row["unit"] else relative
        if not row[name] <= bound:  # nor NaN
            wrong.append(f"{ERRORS[name]} is off by {row[name]:.1e}, more than {bound:.0e}")
    if not row["invariant"]:
        wrong.append("vectors depend on the batch")
    return [f"{name_of(row)}: {what}" for what in wrong]


def name_of(row: Row) -> str:
    return ", ".join(row[key] for key in ("title", "layout", "pooling", "dtype"))


def line(row: Row) -> str:
    """Return a row for the terminal."""
    errors = "  ".join(f"{name} {row[name]:.1e}" for name in BOUNDS)
    ids, bits = f"ids {row['ids_equal']}/{row['texts']}", "same bits" if row["invariant"] else "OTHER BITS"
    return f"{name_of(row):85} {ids}  {errors}  {bits}{'  MISSED' if misses(row) else ''}"


def markdown(found: Row) -> str:
    """Return the README's table, a line for each family, and what the words in it mean."""
    rows = found["rows"]
    head = ["checkpoint", "rows", "layouts", "poolings", "dtypes", "token ids equal", *ERRORS.values()]
    head.append("same bits in any batch")
    lines = [head, ["---"] * len(head)]
    for title in distinct(rows, "title"):
        lines.append(family_line(title, [row for row in rows if row["title"] == title]))
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"{table}\n\n{legend(found)}"


def family_line(title: str, rows: list[Row]) -> list[str]:
    counts = [len(rows), *(len(distinct(rows, key)) for key in ("layout", "pooling", "dtype"))]
    equal, texts = (sum(row[key] for row in rows) for key in ("ids_equal", "texts"))
    errors = (f"{max(row[name] for row in rows):.1e}" for name in ERRORS)
    same = sum(row["invariant"] for row in rows)
    bits = "yes" if same == len(rows) else f"in {same} of {len(rows)} rows"
    return [title, *map(str, counts), f"{equal:,} of {texts:,}", *errors, bits]


def legend(found: Row) -> str:
    rows = found["rows"]
    named = {
        "Layouts": listed(distinct(rows, "layout")),
        "Poolings, with what follows": listed(distinct(rows, "pooling")),
        "Dtypes": listed(distinct(rows, "dtype")),
    }
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return "\n".join(
        [
            f"{len(rows)} checkpoints in all. {' '.join(f'{what}: {names}.' for what, names in named.items())}",
            f"Measured with {versions}, Python {found['python']}; {found['date']}.",
        ]
    )


def listed(names: Iterable[str]) -> str:
    return "; ".join(names)


def distinct(rows: list[Row], key: str) -> list[str]:
    """Return the values of a key, each once, in the order of the rows."""
    return list(dict.fromkeys(row[key] for row in rows))
