"""Plots of functions of time, and of clouds of points."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator
from torch import Tensor

from inkdrop.schedules import Schedule

# The palette of Okabe and Ito, which is safe for colour-blind readers, with grey instead of yellow.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C8C")
_DASH = 4.0  # points; dashes have different offsets and the first solid curves are wider, so that none is hidden


def schedules(named: Mapping[str, Schedule]) -> Figure:
    """Plots alpha, sigma and log-SNR of schedules over t: discrete schedules solid, continuous ones dashed.

    The axis of sigma is linear up to 1 and logarithmic above; the log-SNR is cut at -16 and 16.
    """
    chains = {name: each for name, each in named.items() if each.num_timesteps is not None}
    continuous = {name: each for name, each in named.items() if name not in chains}
    figure = Figure(figsize=(13, 5.8), dpi=110, layout="constrained")
    panels = _panels(figure.subplots(1, 3))
    solid = [_curves(panels, each, name, i, "-", 3 - i / 5) for i, (name, each) in enumerate(chains.items())]
    dashed = [
        _curves(panels, each, name, i, (i * _DASH / 2, (_DASH, _DASH)), 1.8)
        for i, (name, each) in enumerate(continuous.items())
    ]
    _legend(figure, solid, "discrete schedules", "outside lower left")
    _legend(figure, dashed, "continuous in t", "outside lower right")
    return figure


def process(schedule: Schedule, name: str, drawn: Tensor, weight: Callable[[Tensor], Tensor]) -> Figure:
    """Plots a schedule as in `schedules`, and the weight and density of its noise levels in training over the log-SNR.

    The lower panels show the loss weight at times (B), the density of the drawn log-SNRs (N), and the product of both,
    each scaled to a maximum of 1.
    """
    figure = Figure(figsize=(13, 7.6), dpi=110, layout="constrained")
    above, below = figure.subplots(2, 3)
    _curves(_panels(above), schedule, name, 0, "-", 2.4)
    density, edges = np.histogram(drawn.numpy(), bins=40, density=True)
    middles = torch.from_numpy((edges[1:] + edges[:-1]) / 2)
    weights = weight(schedule.time(middles)).numpy()
    titles = ("loss weight", "density of the noise levels in training", "weight x density")
    for axes, title, values in zip(below, titles, (weights, density, weights * density), strict=True):
        axes.plot(middles.numpy(), values / values.max(), color=COLOURS[0], linewidth=2.4)
        axes.set(title=title, xlabel="log-SNR, from noise (left) to data (right)", ylim=(0, 1.05))
        axes.grid(alpha=0.3)
    return figure


def clouds(points: Mapping[str, Tensor]) -> Figure:
    """Plots named clouds of points (N, 2) in one panel, the last one on top."""
    figure = Figure(figsize=(5.6, 5.2), dpi=110, layout="constrained")
    axes = figure.subplots()
    for number, (name, each) in enumerate(points.items()):
        x, y = each.T.numpy()
        axes.scatter(x, y, s=6, linewidths=0, alpha=0.6, color=COLOURS[number], label=f"{name} ({len(each)})")
    axes.legend(frameon=False, markerscale=2)
    return figure


def _panels(subplots: Iterable[Axes]) -> list[Axes]:
    panels = list(subplots)
    titles = ("signal: alpha", "noise: sigma (logarithmic above 1)", "log-SNR: 2 log(alpha / sigma)")
    for axes, title in zip(panels, titles, strict=True):
        axes.set(title=title, xlabel="t, from data (0) to noise (1)", xlim=(0, 1))
        axes.grid(alpha=0.3)
    alphas, sigmas, log_snrs = panels
    alphas.set_ylim(0, 1.05)
    sigmas.set_yscale("symlog", linthresh=1, linscale=3)
    sigmas.set(ylim=(0, 100), yticks=[0, 0.2, 0.4, 0.6, 0.8, 1, 10, 100])
    sigmas.yaxis.set_major_formatter("{x:g}")
    sigmas.yaxis.set_minor_locator(NullLocator())
    log_snrs.set_ylim(-16, 16)
    return panels


def _curves(
    panels: list[Axes],
    schedule: Schedule,
    name: str,
    number: int,
    style: str | tuple[float, tuple[float, float]],
    width: float,
) -> Line2D:
    """Plots one curve in each panel, and returns the last one."""
    t = torch.linspace(0, 1, 4001, dtype=torch.float64)
    lines: list[Line2D] = []
    for axes, values in zip(panels, (schedule.alpha(t), schedule.sigma(t), schedule.log_snr(t)), strict=True):
        colour = COLOURS[number % len(COLOURS)]
        lines += axes.plot(t.numpy(), values.numpy(), color=colour, linestyle=style, linewidth=width, label=name)
    return lines[-1]


def _legend(
    figure: Figure, lines: list[Line2D], title: str, place: Literal["outside lower left", "outside lower right"]
) -> None:
    if lines:
        legend = figure.legend(
            handles=lines, loc=place, ncols=4, title=title, alignment="left", frameon=False, handlelength=3.4
        )
        for line in legend.get_lines():
            line.set_linestyle("-" if title.startswith("discrete") else "--")
