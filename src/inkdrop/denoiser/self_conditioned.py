"""A denoiser that receives its own previous estimate."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from inkdrop.denoiser.base import Condition, Denoiser, Estimate, Wrapper
from inkdrop.denoiser.network import NetworkDenoiser
from inkdrop.noises import Noise
from inkdrop.predictions import Prediction
from inkdrop.randomness import Generators
from inkdrop.schedules import Point, Schedule, over


class SelfConditioned(NetworkDenoiser):
    """A denoiser whose network receives a previous estimate of x_0, or zeros, concatenated to its input.

    In training, the estimate is computed from the same x_t with zeros, without a gradient, and is used with a given
    probability. In sampling, it is that of the previous step.

    - `network`, `schedule`, `prediction`, `noise`: as in `NetworkDenoiser`.
    - `shown_channels`: the channels that the estimate adds to the network's input, which are those of x.
    - `probability`: how often training uses the estimate instead of zeros.

    Source: Chen et al. 2023, arXiv 2208.04202, section 3.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        prediction: Prediction,
        shown_channels: Annotated[int, Ge(1)],
        noise: Noise | None = None,
        probability: Annotated[float, Ge(0), Le(1)] = 0.5,
    ):
        super().__init__(network, schedule, prediction, noise)
        self.shown_channels, self.probability = shown_channels, probability

    def prepare(self, x_t: Tensor, now: Point, cond: Condition, generators: Generators) -> Condition:
        with torch.no_grad():
            estimate = self(x_t, now, cond).x_0
        shown = (generators.uniform() < self.probability).to(x_t.dtype)
        return _beside(cond, over(shown, x_t) * estimate.to(x_t.dtype))

    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        return self.after(torch.zeros_like(x_t), x_t, now, cond)

    def after(self, last: Tensor, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        """Returns the estimate given the previous one (B, *)."""
        return super().forward(x_t, now, _beside(cond, last.to(x_t.dtype)))

    def begin(self) -> Denoiser:
        return _Remembering(self)


class _Remembering(Wrapper):
    """One sampling run of a self-conditioned denoiser."""

    def __init__(self, denoiser: SelfConditioned):
        super().__init__(denoiser)
        self.after = denoiser.after
        self.last: Tensor | None = None

    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        last = torch.zeros_like(x_t) if self.last is None else self.last
        estimate = self.after(last, x_t, now, cond)
        self.last = estimate.x_0.detach()
        return estimate

    def select(self, index: Tensor) -> None:
        if self.last is not None:
            self.last = self.last[index]


def _beside(cond: Condition, estimate: Tensor) -> Condition:
    concat = torch.cat([cond["concat"], estimate], dim=1) if "concat" in cond else estimate
    return {**cond, "concat": concat}
