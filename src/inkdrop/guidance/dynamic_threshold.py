"""Scales estimates of x_0 that leave the range of the data back into it, sample by sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from annotated_types import Gt, Le
from torch import Tensor

from inkdrop.denoiser import Condition, Denoiser, Estimate, Wrapper
from inkdrop.guidance.base import Guidance, Guided
from inkdrop.schedules import Point


class _Thresholded(Wrapper):
    def __init__(self, denoiser: Denoiser, quantile: float, limit: float):
        super().__init__(denoiser)
        self.quantile, self.limit = quantile, limit

    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        x_0, extras = self.denoiser(x_t, now, cond)
        sizes = x_0.abs().flatten(1)
        place = max(1, round(self.quantile * sizes.shape[1]))
        reach = sizes.kthvalue(place).values.clamp(min=self.limit).reshape(-1, *(1,) * (x_0.dim() - 1))
        # 0 inf is NaN: clipping alone would hide an estimate that is not finite.
        return Estimate(torch.minimum(x_0.abs(), reach) * x_0.sign() * (self.limit / reach) + 0 * x_0, extras)


class DynamicThreshold(Guidance):
    """Clips x_0 to the `quantile` s of its absolute values and divides it by s / limit, where s exceeds `limit`.

    Strong guidance then loses contrast instead of saturating. Source: Saharia et al. 2022, arXiv 2205.11487, section
    2.3 (0.995 and 1).
    """

    def __init__(self, quantile: Annotated[float, Gt(0), Le(1)] = 0.995, limit: Annotated[float, Gt(0)] = 1.0):
        self.quantile, self.limit = quantile, limit

    def check(self, pipeline: Guided) -> None:
        if pipeline.range is None and self.limit == 1:
            raise ValueError(
                "guidance=dynamic_threshold limits x to 1, the range of images, but the codec gives x no range: set "
                "guidance=none, or guidance.dynamic_threshold.limit to the largest absolute value of the encoded data"
            )

    def __call__(self, denoiser: Denoiser, pipeline: Guided, batch: Mapping[str, Any]) -> Denoiser:
        return _Thresholded(denoiser, self.quantile, self.limit)
