"""A denoiser of masked categories.

B batch, V categories without the mask.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from inkdrop.denoiser.base import Condition, Estimate
from inkdrop.denoiser.network import NetworkDenoiser
from inkdrop.noises import Noise
from inkdrop.predictions import Prediction
from inkdrop.schedules import Point, Schedule


class MaskedDenoiser(NetworkDenoiser):
    """A denoiser of categories x (B, V + 1, *), whose network returns their logits: `p(x_0 | x_t) = softmax(F)`.

    A category that is not masked is its own estimate, and the mask is never estimated. The network gets x multiplied by
    sqrt(V + 1), so that its first layer begins with vectors of categories of unit size. Raises `ValueError` for noise
    that does not mask categories. Source: Sahoo et al. 2024, arXiv 2406.07524, section 3.2.3.
    """

    def __init__(self, network: nn.Module, schedule: Schedule, prediction: Prediction, noise: Noise | None = None):
        super().__init__(network, schedule, prediction, noise)
        if not self.noise.categorical:
            raise ValueError(
                f"denoiser=masked needs masked categories, not {type(self.noise).__name__}: set noise=absorbing"
            )

    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        return self.estimate(x_t, now, *self.output(x_t, now, cond))

    def output(self, x_t: Tensor, now: Point, cond: Condition) -> tuple[Tensor, Mapping[str, Tensor]]:
        return super().output(x_t * math.sqrt(x_t.shape[1]), now, cond)

    def estimate(self, x_t: Tensor, now: Point, F: Tensor, extras: Mapping[str, Tensor]) -> Estimate:
        return Estimate(torch.where(x_t[:, -1:] == 1, probabilities(F), x_t.to(F.dtype)), extras)


def probabilities(F: Tensor) -> Tensor:
    """Returns the probabilities (B, V + 1, *) of the logits F (B, V + 1, *), where the mask, the last, has none."""
    p = F[:, :-1].softmax(1)
    return torch.cat([p, torch.zeros_like(F[:, -1:])], 1)
