"""Fans of forecasts: quantiles of samples over the history before them and what came."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from inkdrop.pictures.sheets import rendered

_BANDS = ((0.05, 0.95), (0.25, 0.75))  # quantiles between which a fan is filled
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_WINDOWS, _CHANNELS = 5, 8  # most columns and rows of panels
_BEFORE = 2  # steps of the history that are shown for each of the forecast
_COLOUR, _DPI = "#0072B2", 100


class Fan(NamedTuple):
    """The samples of one window: their quantiles (5, C, T), the history (C, L), and the truth (C, T) if it is known."""

    first: int  # the first of its samples
    number: int
    quantiles: np.ndarray
    history: np.ndarray
    truth: np.ndarray | None


def fans(data: Tensor, batch: Mapping[str, Tensor], most: int | None = None) -> Iterator[Fan]:
    """Yields the fan of each of the first `most` windows of samples (B, C, T), which have one history each."""
    members: dict[bytes, list[int]] = {}
    for number, history in enumerate(batch["history"].cpu()):
        members.setdefault(history.numpy().tobytes(), []).append(number)
    for rows in list(members.values())[:most]:
        samples = data[rows].double().cpu().numpy()
        truth = batch["truth"][rows[0]].double().cpu().numpy() if "truth" in batch else None
        history = batch["history"][rows[0]].double().cpu().numpy()
        yield Fan(rows[0], len(rows), np.quantile(samples, QUANTILES, axis=0), history, truth)


def frames(states: Sequence[Tensor], batch: Mapping[str, Tensor]) -> list[np.ndarray]:
    """Draws the fan of the first window in each state (B, C, T) of a forecast, on axes that all states share."""
    last = next(fans(states[-1], batch, 1))
    limits = []
    for channel, before in enumerate(_before(last)):
        truth = [] if last.truth is None else [last.truth[channel]]
        shown = np.concatenate([before, last.quantiles[:, channel].flatten(), *truth])
        limits.append((float(shown.min()), float(shown.max())))
    return [drawn(state, batch, 1, limits) for state in states]


def drawn(
    data: Tensor,
    batch: Mapping[str, Tensor],
    most: int = _WINDOWS,
    limits: Sequence[tuple[float, float]] | None = None,
) -> np.ndarray:
    """Draws the fans of the first windows, one in each column, and of the first channels, one in each row.

    `limits` are those of the values of each channel; None are those of each panel.
    """
    from matplotlib.figure import Figure

    shown = list(fans(data, batch, most))
    channels = min(data.shape[1], _CHANNELS)
    figure = Figure(figsize=(2.9 * len(shown) + 0.8, 1.5 * channels + 0.9), dpi=_DPI, layout="constrained")
    panels: Any = figure.subplots(channels, len(shown), squeeze=False, sharex=True)
    for column, fan in enumerate(shown):
        for channel in range(channels):
            _draw(panels[channel, column], fan, channel)
            if limits is not None:
                panels[channel, column].set_ylim(*limits[channel])
        panels[0, column].set_title(f"window {column}, {fan.number} sample{'s' * (fan.number > 1)}", fontsize=9)
        panels[-1, column].set_xlabel("step")
    for channel in range(channels):
        panels[channel, 0].set_ylabel(f"channel {channel}", fontsize=8)
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=2 if len(shown) == 1 else len(labels),
        frameon=False,
        fontsize=8,
    )
    return rendered(figure)


def _before(fan: Fan) -> np.ndarray:
    """The end (C, n) of the history that is shown."""
    return fan.history[:, -_BEFORE * fan.quantiles.shape[-1] :]


def _draw(axes: Any, fan: Fan, channel: int) -> None:
    """Draws one channel: the end of its history, the fan, and what came."""
    length = fan.quantiles.shape[-1]
    before = _before(fan)[channel]
    last, after = before[-1:], np.arange(length + 1)
    axes.plot(np.arange(1 - len(before), 1), before, color="0.35", linewidth=0.9, label="history")
    for (low, high), alpha in zip(_BANDS, (0.22, 0.35), strict=True):
        edges = [np.concatenate([last, fan.quantiles[QUANTILES.index(level), channel]]) for level in (low, high)]
        axes.fill_between(after, *edges, color=_COLOUR, alpha=alpha, linewidth=0, label=f"{low:.0%} to {high:.0%}")
    median = fan.quantiles[QUANTILES.index(0.5), channel]
    axes.plot(after, np.concatenate([last, median]), color=_COLOUR, linewidth=1.1, label="median")
    if fan.truth is not None:
        axes.plot(after, np.concatenate([last, fan.truth[channel]]), color="#D55E00", linewidth=1.1, label="truth")
    axes.tick_params(length=2, labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)


def table(data: Tensor, batch: Mapping[str, Tensor], seeds: Sequence[int]) -> tuple[list[str], Iterator[list[Any]]]:
    """Returns the names and the rows of `forecasts.csv`: a row for each window, step and channel.

    `window` is the number of the window, and `seed` that of its first sample.
    """

    def lines() -> Iterator[list[Any]]:
        for window, fan in enumerate(fans(data, batch)):
            for step in range(fan.quantiles.shape[2]):
                for channel in range(fan.quantiles.shape[1]):
                    truth = [] if fan.truth is None else [fan.truth[channel, step]]
                    values = [*truth, *fan.quantiles[:, channel, step].tolist()]
                    yield [window, seeds[fan.first], fan.number, step, channel, *values]

    named = ["truth"] if "truth" in batch else []
    levels = [f"quantile_{level}" for level in QUANTILES]
    return ["window", "seed", "samples", "step", "channel", *named, *levels], lines()
