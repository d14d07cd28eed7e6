"""The curves that `bench.py --curves` measured, drawn."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from tools.bench.engines import TITLES

__all__ = ["draw"]

# Okabe and Ito's colours, which can be told apart by everybody.
COLOURS = {"minisbert": "#D55E00", "torch": "#0072B2", "onnxruntime": "#009E73", "openvino": "#7F7F7F"}
MARKERS = {"minisbert": "o", "torch": "s", "onnxruntime": "^", "openvino": "D"}


def draw(found: dict[str, Any], path: Path) -> None:
    """Draw rising counts on the left and rising lengths on the right, a row for each model."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    models = {title: model for title, model in found["models"].items() if "curves" in model}
    if not models:
        raise SystemExit("bench: no curves were measured, so there is nothing to draw")
    figure, rows = pyplot.subplots(
        len(models), 2, figsize=(12, 5 * len(models)), squeeze=False, layout="constrained"
    )
    for (title, model), (left, right) in zip(models.items(), rows, strict=True):
        curve(left, model["curves"]["counts"], "texts", per="texts")
        left.set(title="Rising counts: texts of all kinds", xlabel="number of texts", ylabel="texts a second")
        curve(right, model["curves"]["lengths"], "tokens", per="tokens")
        right.set(
            title="Rising lengths: all texts equally long",
            xlabel="tokens in a text",
            ylabel="tokens a second",
        )
        left.annotate(
            title,
            (0, 1),
            (0, 32),
            xycoords="axes fraction",
            textcoords="offset points",
            weight="bold",
            size=13,
        )
        # Beside the curves, which leave no corner free.
        right.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    machine = found["machine"]
    figure.supxlabel(
        f"{machine['processor']}, {machine['threads']} threads for every engine, float32; {found['date']}",
        size=9,
        color="#555555",
    )
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def curve(axes: Any, points: list[dict[str, Any]], x: str, per: str) -> None:
    """Draw medians as lines, an engine each, and from the slowest to the fastest round as a shade."""
    xs = [point[x] for point in points]
    for name in [name for name in TITLES if name in points[0]["seconds"]]:
        work = [point["texts"] * (point["tokens"] if per == "tokens" else 1) for point in points]
        taken = [point["seconds"][name] for point in points]
        rates = [w / statistics.median(t) for w, t in zip(work, taken, strict=True)]
        ours = name == "minisbert"
        axes.plot(
            xs, rates, color=COLOURS[name], marker=MARKERS[name], label=TITLES[name],
            linewidth=3 if ours else 1.5, markersize=8 if ours else 5, zorder=3 if ours else 2,
        )  # fmt: skip
        low, high = ([w / f(t) for w, t in zip(work, taken, strict=True)] for f in (max, min))
        axes.fill_between(xs, low, high, color=COLOURS[name], alpha=0.15, linewidth=0)
    scales(axes, xs)


def scales(axes: Any, xs: list[float]) -> None:
    """Make both axes logarithmic, with plain numbers: those that were measured below, round ones beside."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_xscale("log")
    axes.set_yscale("log")
    plain = FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 10 else f"{value:g}")
    axes.set_xticks(xs)
    axes.xaxis.set_major_formatter(plain)
    axes.xaxis.set_minor_locator(NullLocator())
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high > 10 * low else (1, 1.5, *range(2, 10))))
    axes.yaxis.set_major_formatter(plain)
    axes.yaxis.set_minor_locator(NullLocator())
    axes.grid(color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
