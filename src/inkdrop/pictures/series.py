"""The view of series."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from inkdrop.pictures import fans
from inkdrop.pictures.base import NOTHING, View
from inkdrop.pictures.sheets import rendered
from inkdrop.pictures.tables import described, write_table

_TABLE, _FORECASTS = "samples.csv", "forecasts.csv"
_MOST = 100  # panels of a sheet
_STEPS = 2000  # of a curve; those between are left out
_FLAT = 0.05  # a channel whose values differ by less than this part of the range of all is scaled by itself
_NAMED = 8  # channels in the legend
_GAP = 0.12  # between panels, in panels
_WIDTH, _HEIGHT, _DPI = (1.25, 3.2), 0.72, 100  # inches of a panel: least and largest width, and height by width


class Series(View):
    """Series (C, T): a panel of curves for each sample, a curve for each channel, on axes that all panels share.

    With the field `history` (B, C, L) they are forecasts, which are shown as a fan of quantiles for each window and
    channel, and with the field `truth` also what came. Channels of very unlike ranges are each scaled to their own
    range, which the legend states. A sheet shows the first 100 series.
    """

    kind = "series (C, T) of channels and steps"

    def fits(self, data: Tensor) -> bool:
        return data.dim() == 3

    def sheet(self, data: Tensor, batch: Mapping[str, Tensor] = NOTHING, columns: int | None = None) -> np.ndarray:
        if "history" in batch:
            return fans.drawn(data, batch)
        return _drawn(data[:_MOST], columns, _Scale.over(data[:_MOST]))

    def rows(self, groups: Sequence[Tensor]) -> np.ndarray:
        columns = max(len(group) for group in groups)
        shown = [group.double() for group in groups[: math.ceil(_MOST / columns)]]
        blank = shown[0].new_full((columns, *shown[0].shape[1:]), math.nan)
        panels = torch.cat([torch.cat([group, blank[len(group) :]]) for group in shown])
        return _drawn(panels, columns, _Scale.over(torch.cat(shown)))

    def frames(self, states: Sequence[Tensor], batch: Mapping[str, Tensor] = NOTHING) -> list[np.ndarray]:
        if "history" in batch:
            return fans.frames(states, batch)
        scale = _Scale.over(torch.cat([state[:_MOST] for state in states]))
        return [_drawn(state[:_MOST], None, scale) for state in states]

    def files(
        self, data: Tensor, batch: Mapping[str, Tensor], seeds: Sequence[int], classes: Sequence[str] = ()
    ) -> list[str]:
        return [_TABLE, *([_FORECASTS] if "history" in batch else [])]

    def write(
        self,
        folder: Path,
        data: Tensor,
        batch: Mapping[str, Tensor],
        seeds: Sequence[int],
        classes: Sequence[str] = (),
    ) -> None:
        """Writes `samples.csv`: seed, conditions, step and the value of each channel at a step in each line.

        Forecasts also have `forecasts.csv`: quantiles for each window, step and channel.
        """
        names, rows = described(batch, seeds, classes)

        def lines() -> Iterator[list[Any]]:
            for row, series in zip(rows, data, strict=True):
                for step, values in enumerate(series.T.tolist()):
                    yield [*row, step, *values]

        channels = [f"channel_{number}" for number in range(data.shape[1])]
        write_table(folder / _TABLE, [*names, "step", *channels], lines())
        if "history" in batch:
            write_table(folder / _FORECASTS, *fans.table(data, batch, seeds))


class _Scale(NamedTuple):
    """The values (C) of each channel at the lower and upper end of a panel, and whether they are equal for all."""

    low: np.ndarray
    high: np.ndarray
    shared: bool

    @classmethod
    def over(cls, series: Tensor) -> _Scale:
        """The scale on which all these series (B, C, T) are inside their panels."""
        values = series.double().cpu().transpose(0, 1).flatten(1).numpy()
        low, high = values.min(1), values.max(1)
        whole, ranges = high.max() - low.min(), high - low
        shared = not (ranges[ranges > 0] < _FLAT * whole).any()
        if shared:
            low, high = np.full_like(low, low.min()), np.full_like(high, high.max())
        middle, half = (low + high) / 2, (high - low) / 2
        half = np.where(half > 0, half, np.maximum(0.5, 0.05 * abs(middle)))  # a constant is drawn in the middle
        return cls(middle - half, middle + half, shared)

    def label(self, channel: int) -> str:
        """The text of a channel in the legend, with its range if it has its own."""
        range_ = "" if self.shared else f": {_number(self.low[channel])} to {_number(self.high[channel])}"
        return f"channel {channel}{range_}"


def _drawn(series: Tensor, columns: int | None, scale: _Scale) -> np.ndarray:
    """Draws series (B, C, T) in rows of panels; a series of nan leaves its place empty."""
    from matplotlib.collections import LineCollection
    from matplotlib.figure import Figure

    count, channels, length = series.shape
    columns = min(columns or math.ceil(math.sqrt(count)), count)
    rows = math.ceil(count / columns)
    width = min(max(_WIDTH[0], 9 / columns), _WIDTH[1])
    figure = Figure(figsize=(columns * width + 1, rows * width * _HEIGHT + 1), dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    steps = np.linspace(0, length - 1, min(length, _STEPS)).round().astype(int)
    across = steps / max(1, length - 1) if length > 1 else np.array([0.5])
    left, below = np.arange(count) % columns * (1 + _GAP), np.arange(count) // columns * -(1 + _GAP)
    y = (series.double().cpu().numpy()[:, :, steps] - scale.low[:, None]) / (scale.high - scale.low)[:, None]
    x = np.broadcast_to(left[:, None] + across, (count, len(steps)))
    shown = ~np.isnan(y).all((1, 2))
    boxes = [np.array([(0, 0), (0, 1), (1, 1), (1, 0), (0, 0)]) + corner for corner in zip(left, below, strict=True)]
    axes.add_collection(
        LineCollection([box for box, each in zip(boxes, shown, strict=True) if each], colors="0.8", linewidths=0.8)
    )
    colours = _colours(channels)
    for channel in range(channels):
        points = np.stack([x, y[:, channel] + below[:, None]], -1)[shown]
        if length == 1:
            axes.plot(*points[:, 0].T, ".", color=colours[channel])
        axes.add_collection(LineCollection(points, colors=[colours[channel]], linewidths=1.1))
    _label(axes, scale, length, left[:columns], below[::columns])
    _legend(figure, scale, colours)
    return rendered(figure)


def _label(axes: Any, scale: _Scale, length: int, left: np.ndarray, below: np.ndarray) -> None:
    """Labels the ends of both axes, at the last row and the first column of panels."""
    ends = ["0", str(length - 1)] if length > 1 else ["0"]
    places = [place + end for place in left for end in ((0, 1) if length > 1 else (0.5,))]
    axes.set_xticks(places, ends * len(left))
    for label, place in zip(axes.get_xticklabels(), places, strict=True):
        label.set_horizontalalignment("center" if length == 1 else "left" if place in left else "right")
    if scale.shared:
        values = [_number(scale.low[0]), _number(scale.high[0])]
        axes.set_yticks([place + end for place in below for end in (0, 1)], values * len(below))
        axes.set_ylabel("value")
    else:
        axes.set_yticks([])
        axes.set_ylabel("value, by channel")
    axes.set(xlabel="step", xlim=(-0.02, left[-1] + 1.02), ylim=(below[-1] - 0.03, 1.03))
    axes.tick_params(length=2, labelsize=7)
    axes.spines[:].set_visible(False)


def _number(value: float) -> str:
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e7 else f"{value:.3g}"


def _legend(figure: Any, scale: _Scale, colours: list[Any]) -> None:
    from matplotlib.lines import Line2D

    named = sorted({*np.linspace(0, len(colours) - 1, min(len(colours), _NAMED)).round().astype(int).tolist()})
    handles = [Line2D([], [], color=colours[channel], label=scale.label(channel)) for channel in named]
    columns = max(1, int(figure.get_figwidth() / (1.3 if scale.shared else 2.4)))
    figure.legend(handles=handles, loc="outside upper center", ncols=columns, frameon=False, fontsize=8)


def _colours(channels: int) -> list[Any]:
    """Returns the colour of each channel: those of the other plots, or for many channels those of a scale."""
    from matplotlib import colormaps

    from inkdrop.pictures.plots import COLOURS

    if channels <= len(COLOURS):
        return list(COLOURS[:channels])
    return list(colormaps["viridis"](np.linspace(0, 0.95, channels)))
