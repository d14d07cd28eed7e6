"""What `run.py` measured: a line for each row, the tables of `tools/results/README.md`, and the rows out of bounds."""

from __future__ import annotations

from typing import Any

__all__ = ["BOUNDS", "NAME", "line", "markdown", "misses"]

NAME = "coverage"  # of the markers
ERRORS = {"float64": "float64", "numba": "float32", "reference": "float32, NumPy alone"}
# The largest errors that are allowed: of a component of a unit vector; of a component of any vector, as a part of its
# largest one; of a score.
FLOAT32 = {"unit": 1e-6, "any": 2e-6, "score": 2e-6}
BOUNDS = {"float64": dict.fromkeys(FLOAT32, 1e-12), "numba": FLOAT32, "reference": FLOAT32}

Row = dict[str, Any]


def misses(row: Row) -> list[str]:
    """Say what of a row misses its bound: nothing, if all is well."""
    wrong = []
    if row["ids_equal"] != row["texts"]:
        wrong.append(f"the token ids of {row['texts'] - row['ids_equal']} texts differ")
    for name, bounds in BOUNDS.items():
        if not row[name] <= bounds[row["kind"]]:  # nor NaN
            wrong.append(f"{ERRORS[name]} is off by {row[name]:.1e}, more than {bounds[row['kind']]:.0e}")
    if not row.get("ranks_equal", True):
        wrong.append("the ranks differ")
    if not row["invariant"]:
        wrong.append("results depend on the batch")
    return [f"{name_of(row)}: {what}" for what in wrong]


def name_of(row: Row) -> str:
    return ", ".join(row[key] for key in ("title", "layout", "pooling", "dtype") if key in row)


def line(row: Row) -> str:
    """Return a row for the terminal."""
    errors = "  ".join(f"{name} {row[name]:.1e}" for name in BOUNDS)
    ids, bits = f"ids {row['ids_equal']}/{row['texts']}", "same bits" if row["invariant"] else "OTHER BITS"
    return f"{name_of(row):86} {ids}  {errors}  {bits}{'  MISSED' if misses(row) else ''}"


def markdown(found: Row) -> str:
    """Return all tables, a line for each family, and what the words in them mean."""
    vectors = {"layouts": "layout", "poolings": "pooling", "dtypes": "dtype"}
    tables = [
        table("checkpoint", vectors, found["vectors"], {}),
        legend(found["vectors"]),
        table("cross-encoder", {"dtypes": "dtype"}, found["scores"], {"ranks equal": "ranks_equal"}),
        footer(found),
    ]
    return "\n\n".join(tables)


def table(what: str, counted: dict[str, str], rows: list[Row], checked: dict[str, str]) -> str:
    """Return a line for each title: how many of what was varied, equal ids, errors, and what holds in all rows."""
    checked = checked | {"same bits in any batch": "invariant"}
    head = [what, "rows", *counted, "token ids equal", *ERRORS.values(), *checked]
    lines = [head, ["---"] * len(head)]
    for title in distinct(rows, "title"):
        some = [row for row in rows if row["title"] == title]
        counts = (len(distinct(some, key)) for key in counted.values())
        equal, texts = (sum(row[key] for row in some) for key in ("ids_equal", "texts"))
        errors = (largest(some, name) for name in ERRORS)
        holds = (how_many(sum(row[key] for row in some), len(some)) for key in checked.values())
        cells = [title, str(len(some)), *map(str, counts), f"{equal:,} of {texts:,}", *errors, *holds]
        lines.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def largest(rows: list[Row], name: str) -> str:
    """Return the largest error of unit vectors, and behind a stroke that of others."""
    by_kind = [[row[name] for row in rows if row["kind"] == kind] for kind in BOUNDS[name]]
    return " / ".join(f"{max(values):.1e}" for values in by_kind if values)


def how_many(true: int, rows: int) -> str:
    return "yes" if true == rows else f"in {true} of {rows} rows"


def legend(rows: list[Row]) -> str:
    errors = (
        "Errors: the largest of a component of a unit vector / of a vector that is not normalised, as a part of its "
        "largest component."
    )
    names = {"Layouts": "layout", "Poolings, with what follows": "pooling", "Dtypes": "dtype"}
    lists = (f"{what}: {'; '.join(distinct(rows, key))}." for what, key in names.items())
    return " ".join([errors, *lists])


def footer(found: Row) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    return (
        f"{len(found['vectors'])} checkpoints and {len(found['scores'])} cross-encoders; {versions}, "
        f"Python {found['python']}; {found['date']}."
    )


def distinct(rows: list[Row], key: str) -> list[str]:
    """Return the values of a key, each once, in the order of the rows."""
    return list(dict.fromkeys(row[key] for row in rows))
