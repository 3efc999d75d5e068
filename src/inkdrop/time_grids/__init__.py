"""Time grids: the times that a sampler visits."""

from inkdrop.time_grids.base import TimeGrid
from inkdrop.time_grids.even import Leading, Linspace, Quadratic, Trailing
from inkdrop.time_grids.moves import Churn, Consistency, Explicit, Repeat, Resampled, Restart, Shifted
from inkdrop.time_grids.noise_levels import Centred, Karras, LogSNR, edm

__all__ = [
    "Centred",
    "Churn",
    "Consistency",
    "Explicit",
    "Karras",
    "Leading",
    "Linspace",
    "LogSNR",
    "Quadratic",
    "Repeat",
    "Resampled",
    "Restart",
    "Shifted",
    "TimeGrid",
    "Trailing",
    "edm",
]
