"""Rounds the estimate of x_0 to the vectors of words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from inkdrop.denoiser import Condition, Denoiser, Estimate, Wrapper
from inkdrop.guidance.base import Guidance, Guided
from inkdrop.guidance.scales import Interval, Within
from inkdrop.schedules import Point


class _Clamped(Wrapper):
    def __init__(self, denoiser: Denoiser, within: Within, codec: Any):
        super().__init__(denoiser)
        self.within, self.codecs = within, (codec,)  # a tuple is no submodule

    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        x_0, extras = self.denoiser(x_t, now, cond)
        if self.within(now) is None:
            return Estimate(x_0, extras)
        # 0 inf is NaN: rounding alone would hide an estimate that is not finite.
        return Estimate(self.codecs[0].nearest(x_0).to(x_0.dtype) + 0 * x_0, extras)


class Clamp(Guidance):
    """The clamping trick: replaces each vector of the estimate of x_0 by the nearest vector of a word.

    - `interval`: the noise levels sigma / alpha at which it acts; None is all.

    Raises `ValueError` for a codec without vectors of words. Source: Li et al. 2022, arXiv 2205.14217, section 4.2.
    """

    def __init__(self, interval: Interval | None = None):
        self.within = Within(1.0, interval)

    def check(self, pipeline: Guided) -> None:
        if not hasattr(pipeline.codec, "nearest"):
            raise ValueError(
                f"guidance=clamp rounds x to vectors of words, which {type(pipeline.codec).__name__} does not have: "
                "set guidance=none, or codec=word_embedding"
            )

    def __call__(self, denoiser: Denoiser, pipeline: Guided, batch: Mapping[str, Any]) -> Denoiser:
        self.check(pipeline)
        return _Clamped(denoiser, self.within, pipeline.codec)
