"""The plots of the report: learning curves, quality against cost, and strips of samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter, NullLocator

from inkdrop.commands.report.comparison import Comparison
from inkdrop.commands.report.curves import Curve
from inkdrop.commands.report.leaderboard import Setting
from inkdrop.files.showing import harmless

# Colours that differ in lightness as well as in hue, so that neighbours in this order are told apart by everybody.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B58900", "#56B4E9", "#332288", "#882255", "#44AA99", "#777777")
_MOST_PANELS, _MOST_CURVES, _MOST_LINES = 12, 8, 40
_SMALLEST, _LARGEST = 1e-100, 1e100  # of a value that a plot can show, with axes a little beyond it


def overview(report: Comparison) -> Figure | None:
    """Plots the first metric over training, and quality against cost; returns None if neither can be drawn."""
    panels = [name for name in report.metrics if not report.is_companion(name)]
    curves = report.curves.get(panels[0], {}) or next(iter(report.curves.values()), {})
    title = next((name for name, each in report.curves.items() if each is curves), "")
    lines: dict[str, dict[str, list[tuple[float, float]]]] = {}
    if report.cost == "network calls":
        lines = {name: each for name in panels[:_MOST_PANELS] if (each := against_calls(report, name))}
    cloud = [] if lines or report.cost is None else _points(report.rows, panels[0], report.cost)
    count = len(lines) + bool(curves) + bool(cloud)
    if not count:
        return None
    figure = Figure(figsize=(5.6 * count, 4.6), dpi=110, layout="constrained")
    axes = iter(figure.subplots(1, count, squeeze=False)[0])
    if curves:
        _learning(next(axes), title, curves)
    if cloud and report.cost is not None:
        _against_cost(next(axes), report, panels[0], report.cost)
    for name, each in lines.items():
        _calls(next(axes), name, each, report.references.get(name, {}).get("floor", 0.0))
    return figure


def against_calls(report: Comparison, metric: str) -> dict[str, list[tuple[float, float]]]:
    """Returns sorted points (network calls, value) by the differing settings other than the number of steps."""
    columns = report.settings.columns
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in report.settings.rows:
        own = [f"{columns[path]} {row.values[path]}" for path in columns if not path.endswith("num_steps")]
        calls, value = row.cost("network calls"), row.summary(metric).mean
        if calls and _is_drawable(value):
            lines.setdefault(harmless(", ".join(own) or metric, 80), []).append((calls, value))
    return {label: sorted(points) for label, points in [*lines.items()][:_MOST_LINES]}


def strips(rows: Mapping[str, np.ndarray]) -> Figure:
    """Plots pictures (H, W, C) in rows, each with its name next to it."""
    first = next(iter(rows.values()))
    height = 8 * first.shape[0] / first.shape[1]
    figure = Figure(figsize=(11, (height + 0.06) * len(rows)), dpi=110)
    for number, (name, picture) in enumerate(rows.items()):
        axes = figure.add_axes((3 / 11, 1 - (number + 1) / len(rows), 8 / 11, 0.96 / len(rows)))
        axes.imshow(picture.squeeze(-1) if picture.shape[-1] == 1 else picture, cmap="gray", vmin=0, vmax=255)
        axes.axis("off")
        figure.text(2.9 / 11, 1 - (number + 0.5) / len(rows), _text(name), ha="right", va="center", fontsize=9)
    return figure


def _learning(axes: Axes, title: str, curves: Mapping[str, Curve]) -> None:
    """Plots the curves of the best settings, with the range over their seeds."""
    shown = [*curves.items()][:_MOST_CURVES]
    for number, (label, curve) in enumerate(shown):
        colour = COLOURS[number % len(COLOURS)]
        axes.plot(curve.steps, curve.mean, color=colour, label=_text(label), linewidth=1.6)
        axes.fill_between(curve.steps, curve.low, curve.high, color=colour, alpha=0.15, linewidth=0)
    more = f" (best {len(shown)} of {len(curves)} settings)" if len(curves) > len(shown) else ""
    axes.set(title=f"{_text(title)}{more}", xlabel="step")
    _scale(axes, [value for _, curve in shown for value in (*curve.low, *curve.high)])
    axes.legend(frameon=False, fontsize=8)


def _points(rows: Sequence[Setting], metric: str, cost: str) -> list[tuple[float, float, str]]:
    found = [(row.cost(cost), row.summary(metric).mean, row.label) for row in rows]
    return [
        (price, value, label)
        for price, value, label in found
        if price is not None and 0 < price < _LARGEST and _is_drawable(value)
    ]


def _against_cost(axes: Axes, report: Comparison, metric: str, cost: str) -> None:
    """Plots a point for each setting, and the Pareto front as steps."""
    points = _points(report.rows, metric, cost)
    axes.scatter([point[0] for point in points], [point[1] for point in points], s=22, color=COLOURS[0], alpha=0.7)
    best = _points(report.front(metric, cost), metric, cost)
    axes.step([point[0] for point in best], [point[1] for point in best], where="post", color=COLOURS[1], linewidth=1.2)
    for price, value, label in best[:_MOST_CURVES]:
        axes.annotate(_text(label), (price, value), xytext=(4, 4), textcoords="offset points", fontsize=7)
    axes.set(title=f"{_text(metric)} and its Pareto front", xlabel=cost)
    if _is_wide([point[0] for point in points]):
        axes.set_xscale("log")
    _scale(axes, [point[1] for point in points])


def _calls(axes: Axes, title: str, lines: Mapping[str, Sequence[tuple[float, float]]], floor: float) -> None:
    """Plots labelled lines over the number of network calls, with the floor dashed, on logarithmic axes."""
    for number, (label, points) in enumerate(lines.items()):
        places, values = zip(*points, strict=True)
        axes.plot(places, values, "o-", color=COLOURS[number % len(COLOURS)], label=_text(label), markersize=4)
    if floor and _is_drawable(floor):
        axes.axhline(floor, color="black", linestyle="--", linewidth=1, label="floor")
    ticks = sorted({place for points in lines.values() for place, _ in points})
    axes.set(title=_text(title), xlabel="network calls", xscale="log")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
    axes.xaxis.set_minor_locator(NullLocator())
    _scale(axes, [value for points in lines.values() for _, value in points])
    axes.legend(frameon=False)


def _scale(axes: Axes, values: Sequence[float]) -> None:
    if _is_wide(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.5)))
    axes.grid(alpha=0.3)


def _is_wide(values: Sequence[float]) -> bool:
    """Returns whether values are positive and span more than a factor of three, so that their axis is logarithmic."""
    return min(values) > _SMALLEST and max(values) > 3 * min(values)


def _is_drawable(value: float) -> bool:
    return math.isfinite(value) and (value == 0 or _SMALLEST < abs(value) < _LARGEST)


def _text(text: str) -> str:
    """Escapes a text: matplotlib parses formulas between dollars, and hides labels that start with _."""
    escaped = harmless(text, 50).replace("$", r"\$")
    return f" {escaped}" if escaped.startswith("_") else escaped
