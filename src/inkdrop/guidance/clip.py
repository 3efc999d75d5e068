"""Clips the estimate of x_0 to the range of the data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from inkdrop.denoiser import Condition, Denoiser, Estimate, Wrapper
from inkdrop.guidance.base import Guidance, Guided
from inkdrop.schedules import Point

IMAGES = (-1.0, 1.0)  # range of x


class _Clipped(Wrapper):
    def __init__(self, denoiser: Denoiser, low: float, high: float):
        super().__init__(denoiser)
        self.low, self.high = low, high

    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        x_0, extras = self.denoiser(x_t, now, cond)
        # 0 inf is NaN: clipping alone would hide an estimate that is not finite.
        return Estimate(x_0.clamp(self.low, self.high) + 0 * x_0, extras)


class Clip(Guidance):
    """Clips the estimate of x_0 to [low, high], as published DDPM samplers do for images in [-1, 1].

    Raises `ValueError` unless low < high. Source: the reference code of Ho et al. 2020, arXiv 2006.11239.
    """

    def __init__(self, low: float = -1.0, high: float = 1.0):
        if not low < high:
            raise ValueError(f"low={low} must be below high={high}: swap the two values")
        self.low, self.high = low, high

    def check(self, pipeline: Guided) -> None:
        if pipeline.range is None and (self.low, self.high) == IMAGES:
            raise ValueError(
                "guidance=static_threshold cuts x at -1 and 1, the range of images, but the codec gives x no range: "
                "set guidance=none, or guidance.static_threshold.low and .high to where the encoded data end"
            )

    def __call__(self, denoiser: Denoiser, pipeline: Guided, batch: Mapping[str, Any]) -> Denoiser:
        return _Clipped(denoiser, self.low, self.high)
