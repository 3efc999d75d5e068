"""Rescales estimates of x_0 to the standard deviation of the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le
from torch import Tensor

from inkdrop.denoiser import Condition, Denoiser, Estimate, Wrapper
from inkdrop.guidance.base import Guidance, Guided
from inkdrop.schedules import Point


class _Rescaled(Wrapper):
    def __init__(self, denoiser: Denoiser, deviation: float, share: float):
        super().__init__(denoiser)
        self.deviation, self.share = deviation, share

    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        x_0, extras = self.denoiser(x_t, now, cond)
        spread = x_0.flatten(1).std(1, correction=0).reshape(-1, *(1,) * (x_0.dim() - 1))
        factor = (self.deviation / spread.clamp(min=1e-12)).clamp(max=1.0)
        return Estimate(x_0 * (1 + self.share * (factor - 1)), extras)


class Rescale(Guidance):
    """Multiplies x_0 by `1 + share (deviation / std(x_0) - 1)` where its standard deviation exceeds `deviation`.

    The standard deviation is over the elements of a sample. Early estimates have a smaller one and are unchanged.
    Source: Lin et al. 2024, arXiv 2305.08891, section 3.4, with the standard deviation of the data in place of that
    without guidance.
    """

    def __init__(self, deviation: Annotated[float, Gt(0)], share: Annotated[float, Ge(0), Le(1)] = 0.7):
        self.deviation, self.share = deviation, share

    def __call__(self, denoiser: Denoiser, pipeline: Guided, batch: Mapping[str, Any]) -> Denoiser:
        return _Rescaled(denoiser, self.deviation, self.share)
