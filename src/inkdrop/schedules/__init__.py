"""Noise schedules: the scales alpha and sigma in `x_t = alpha(t) x_0 + sigma(t) eps`."""

from inkdrop.schedules.base import Point, Scalar, Schedule, over
from inkdrop.schedules.closed_forms import EDM, VE, VP, Laplace, LinearInterpolation, SubVP
from inkdrop.schedules.tables import Table, cosine, linear_beta, scaled_linear, sigmoid, sigmoid_beta, sqrt
from inkdrop.schedules.wrappers import Interpolated, Shifted, ZeroTerminalSNR

__all__ = [
    "EDM",
    "VE",
    "VP",
    "Interpolated",
    "Laplace",
    "LinearInterpolation",
    "Point",
    "Scalar",
    "Schedule",
    "Shifted",
    "SubVP",
    "Table",
    "ZeroTerminalSNR",
    "cosine",
    "linear_beta",
    "over",
    "scaled_linear",
    "sigmoid",
    "sigmoid_beta",
    "sqrt",
]
