"""What was measured, drawn: the curves of one run as a PNG, and the two SVGs of the project's pages.

The SVGs are the same bytes wherever the same matplotlib draws the same numbers: they hold no date and no random names.
Their background is white, so that they can be read on a dark page too, and letters are drawn as outlines.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tools.bench.engines import TITLES
from tools.bench.report import ratios

__all__ = ["draw", "dtypes", "size", "speed"]

# Okabe and Ito's colours, which can be told apart by everybody.
COLOURS = {"minisbert": "#D55E00", "torch": "#0072B2", "onnxruntime": "#009E73", "openvino": "#7F7F7F"}
MARKERS = {"minisbert": "o", "torch": "s", "onnxruntime": "^", "openvino": "D"}


PAGE = {"font.size": 15, "svg.hashsalt": "minisbert", "figure.facecolor": "white"}
GREY = "#555555"
KINDS = {"mixed": "many texts of all kinds", "one title": "one short text"}


# --- The project's pages ----------------------------------------------------------------------------------


def speed(runs: dict[str, dict[str, Any]], path: Path) -> bool:
    """Draw minisbert's speed-up over each peer by length of text, a panel for each run; tell if there was any."""
    panels = {
        (processor, title): model["curves"]["lengths"]
        for processor, found in runs.items()
        for title, model in found["models"].items()
        if "curves" in model
    }
    if not panels:
        return False
    with page(path, rows=len(panels), size=(9, 5.4)) as column:
        for ((processor, title), points), axes in zip(panels.items(), column, strict=True):
            speedups(axes, points)
            threads = runs[processor]["machine"]["threads"]
            axes.set_title(f"{title}, {processor}, {threads} threads", size=15, loc="left", pad=14)
            axes.set(xlabel="tokens in a text", ylabel="speed-up, higher is better")
        top = max(axes.get_ylim()[1] for axes in column)
        for axes in column:
            axes.set_ylim(0, top)
    return True


def speedups(axes: Any, points: list[dict[str, Any]]) -> None:
    """Draw the median of the rounds' ratios as a line, a peer each, and the rounds' range as a shade."""
    from matplotlib.ticker import FuncFormatter, NullLocator

    xs = [point["tokens"] for point in points]
    for name in [name for name in TITLES if name in points[0]["seconds"] and name != "minisbert"]:
        taken = [ratios(point["seconds"], name) for point in points]
        axes.plot(
            xs, [statistics.median(values) for values in taken], color=COLOURS[name], marker=MARKERS[name],
            label=f"over {TITLES[name]}", linewidth=3, markersize=8, zorder=3,
        )  # fmt: skip
        axes.fill_between(
            xs, [*map(min, taken)], [*map(max, taken)], color=COLOURS[name], alpha=0.15, linewidth=0
        )
    axes.axhline(1, color=COLOURS["minisbert"], linewidth=2, linestyle="--", label="equally fast")
    axes.set_xscale("log")
    axes.set_xticks(xs)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)


def size(found: dict[str, Any], path: Path) -> None:
    """Draw what each stack takes on disk as a bar."""
    stacks = {name: stack["bytes"] / 1e6 for name, stack in found["stacks"].items()}
    with page(path, rows=1, size=(11, 0.8 + 0.72 * len(stacks))) as (axes,):
        colours = [COLOURS["minisbert"] if "minisbert" in name else "#8AA4B8" for name in stacks]
        bars = axes.barh([*stacks], [*stacks.values()], color=colours, height=0.68)
        axes.bar_label(bars, [f"{megabytes:,.0f} MB" for megabytes in stacks.values()], padding=6)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.15 * max(stacks.values()))
        axes.xaxis.set_visible(False)
        axes.tick_params(left=False)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        what = f"installed by pip on {found['system']}, Python {found['python']}; {found['date']}"
        axes.set_title(what, size=13, color=GREY, loc="left")


def dtypes(points: dict[str, tuple[float, dict[str, float]]], title: str, path: Path) -> None:
    """Draw each engine's speed-up against its error, a panel for each task; `points` has both by the engine's name.

    minisbert's names stand beside their points, its peers' in a column, where none covers another.
    """
    tasks = ["mixed", "one title"]
    with page(path, rows=len(tasks), size=(9, 6)) as column:
        for task, axes in zip(tasks, column, strict=True):
            highest, free = 1.15 * max(speedups[task] for _, speedups in points.values()), 0.0
            for name, (error, speedups) in sorted(points.items(), key=lambda item: item[1][1][task]):
                engine, y = name.partition(" ")[0].lower(), speedups[task]
                colour = COLOURS.get({"onnx": "onnxruntime"}.get(engine, engine), "#CC79A7")
                axes.plot(error, y, marker=MARKERS["minisbert"], color=colour, markersize=11)
                if engine == "minisbert":
                    place, offset = (error, y), (-9, 6)
                else:
                    place = 1.0, max(y, free)
                    offset, free = (0, -4), place[1] + 0.05 * highest
                    axes.plot([error, place[0]], [y, place[1]], color=colour, linewidth=0.8)
                side = "right" if engine == "minisbert" else "left"
                axes.annotate(name, place, offset, textcoords="offset points", ha=side, color=colour, size=12)
            axes.set(xscale="log", xlim=(1e-19, 1e9), ylabel="speed-up, higher is better", title=KINDS[task])
            axes.set(ylim=(0, highest), xticks=[10.0**n for n in range(-14, 0, 4)])
            axes.grid(color="#DDDDDD", linewidth=0.8)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
        column[-1].set_xlabel(f"error: mean 1 - cos, lower is better\n{title}")


@contextmanager
def page(path: Path, rows: int, size: tuple[float, float]) -> Iterator[Any]:
    """Give a column of axes to draw on, and write them as SVG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with matplotlib.rc_context(PAGE):
        shape = (size[0], rows * size[1])
        figure, cells = pyplot.subplots(rows, 1, figsize=shape, squeeze=False, layout="constrained")
        yield cells[:, 0]
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
        pyplot.close(figure)


# --- The curves of one run --------------------------------------------------------------------------------


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
        color=GREY,
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
