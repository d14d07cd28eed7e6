"""The plot of ``minisbert evaluate``: what quality costs, in bytes and in time."""

from __future__ import annotations

import importlib
import importlib.util
import os
import secrets
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from minisbert.cli.streams import TextFileError, naming

__all__ = ["check_plot", "plot"]

SUFFIXES = (".png", ".svg", ".pdf")
Result = dict[str, Any]


def check_plot(path: str) -> None:
    """Refuse, before any work is done, a plot that could not be made at the end of it."""
    target = Path(path)
    if target.suffix.lower() not in SUFFIXES:
        raise TextFileError(f"{path}: the plot must end in {', '.join(SUFFIXES)}")
    if not target.parent.is_dir():
        raise TextFileError(f"{path}: there is no folder {target.parent}; make it first")
    if target.exists() and not target.is_file():
        raise TextFileError(f"{path}: exists and is not a regular file")
    if importlib.util.find_spec("matplotlib") is None:
        raise TextFileError(f"{path}: a plot needs matplotlib; run: pip install 'minisbert[plot]'")


def plot(path: str, results: Sequence[Result]) -> None:
    """Draw the first metric of each way by the bytes of a vector, and by texts a second.

    A colour is a model in a dtype, a shape a precision, and a size a number of components.
    """
    figures: Any = importlib.import_module("matplotlib.figure")  # without pyplot, which looks for a window
    figure = figures.Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    metric = _metric(results[0])
    for result, label in zip(results, _labels(results), strict=True):
        style = {"label": label, "linestyle": "", "alpha": 0.8} | _style(result, results)
        left.plot(result["bytes"], result["metrics"][metric], **style)
        right.plot(result["texts"] / result["encode_seconds"], result["metrics"][metric], **style)
    left.set(xlabel="bytes of a vector", ylabel=metric.replace("_", ", "))
    left.set_xscale("log", base=2)
    left.xaxis.set_major_formatter("{x:g}")
    right.set(xlabel="texts encoded a second")
    right.set_xlim(left=0)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.legend(
        *left.get_legend_handles_labels(), loc="outside right upper", fontsize="small", frameon=False
    )
    drawn = BytesIO()
    figure.savefig(drawn, format=Path(path).suffix[1:].lower(), dpi=150)
    _write(path, drawn.getvalue())


def _metric(result: Result) -> str:
    """Return the metric that is drawn: of rankings nDCG, of pairs Spearman's by the first similarity."""
    names: dict[str, float] = result["metrics"]
    return next(name for name in names if name.startswith(("ndcg", "spearman")))


def _labels(results: Sequence[Result]) -> list[str]:
    """Name each way by what is not the same in all; a folder by its last part."""
    shown = [
        {
            "model": Path(result["model"]).name,
            "dtype": f"{result['dtype']} weights",
            "precision": result["precision"],
            "dimension": f"{result['dimension']}d",
        }
        for result in results
    ]
    names = [name for name in shown[0] if len({row[name] for row in shown}) > 1]
    return [", ".join(row[name] for name in names or ["model"]) for row in shown]


def _style(result: Result, results: Sequence[Result]) -> dict[str, Any]:
    def place(*names: str) -> int:
        """Count the kinds, by these keys, that come before this one's."""
        kinds = [[other[name] for name in names] for other in results]
        mine = [result[name] for name in names]
        return len({str(kind) for kind in kinds[: kinds.index(mine)]})

    return {
        "color": f"C{place('model', 'dtype') % 10}",
        "marker": "osD^v"[place("precision")],
        "markersize": 5 + 3 * place("dimension"),
    }


def _write(path: str, content: bytes) -> None:
    """Write a file whole, or not at all."""
    temporary = Path(f"{path}.{secrets.token_hex(4)}.tmp")
    with naming(path):
        try:
            temporary.write_bytes(content)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
