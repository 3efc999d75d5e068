"""Plots of functions of time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from inkdrop.schedules import Schedule

# Okabe and Ito's colours, which most eyes tell apart, with grey in place of their yellow.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C8C")
_DASH = 4.0  # points; each dashed curve begins elsewhere and the first solid ones are wider, so that none hides another


def schedules(named: Mapping[str, Schedule]) -> Figure:
    """alpha, sigma and log-SNR of schedules over t in three panels: chains solid, continuous schedules dashed.

    The axis of sigma is linear up to 1 and logarithmic above; the log-SNR is cut at -16 and 16.
    """
    chains = {name: each for name, each in named.items() if each.num_timesteps is not None}
    continuous = {name: each for name, each in named.items() if name not in chains}
    figure = Figure(figsize=(13, 5.8), dpi=110, layout="constrained")
    panels = _panels(figure)
    solid = [_curves(panels, each, name, i, "-", 3 - i / 5) for i, (name, each) in enumerate(chains.items())]
    dashed = [
        _curves(panels, each, name, i, (i * _DASH / 2, (_DASH, _DASH)), 1.8)
        for i, (name, each) in enumerate(continuous.items())
    ]
    _legend(figure, solid, "chains (tables)", "outside lower left")
    _legend(figure, dashed, "continuous in t", "outside lower right")
    return figure


def _panels(figure: Figure) -> list[Axes]:
    panels: list[Axes] = list(figure.subplots(1, 3))
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
    """One curve in each panel; returns the last."""
    t = torch.linspace(0, 1, 4001, dtype=torch.float64)
    lines: list[Line2D] = []
    for axes, values in zip(panels, (schedule.alpha(t), schedule.sigma(t), schedule.log_snr(t)), strict=True):
        colour = _COLOURS[number % len(_COLOURS)]
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
            line.set_linestyle("-" if title.startswith("chains") else "--")
