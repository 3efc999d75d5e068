"""A network as a denoiser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from inkdrop.denoiser.base import Condition, Denoiser, Estimate
from inkdrop.noises import Gaussian, Noise
from inkdrop.predictions import Prediction
from inkdrop.randomness import Generators
from inkdrop.schedules import Point, Schedule, over


class NetworkDenoiser(Denoiser):
    """A network with the meaning of its output: `x_0 = c_skip x_t + c_out F(c_in x_t, c_noise)`.

    The network maps x (B, *), c_noise (B) and named conditions to F (B, *), or to F and a dict of further outputs. The
    sum is formed in float32 or better, never in the type that autocast picks for the network. `ValueError` if the
    prediction cannot recover x_0 at t = 1.
    """

    def __init__(self, network: nn.Module, schedule: Schedule, prediction: Prediction, noise: Noise | None = None):
        super().__init__()
        prediction.check(schedule)
        self.network = network
        self.schedule, self.prediction, self.noise = schedule, prediction, noise or Gaussian()

    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        return self.estimate(x_t, now, *self.output(x_t, now, cond))

    def estimate(self, x_t: Tensor, now: Point, F: Tensor, extras: Mapping[str, Tensor]) -> Estimate:
        """The estimate of x_0 that an output F (B, *) of the network for x_t (B, *) means."""
        x = x_t.to(F.dtype)
        c_skip, c_out, _, _ = self.prediction.coefficients(now)
        return Estimate(x * over(c_skip, x) + F * over(c_out, x), extras)

    def prepare(self, x_t: Tensor, now: Point, cond: Condition, generators: Generators) -> Condition:
        """What the network is told in training, where that depends on x_t; by default only the condition."""
        return cond

    def output(self, x_t: Tensor, now: Point, cond: Condition) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The network's own output F (B, *) in float32 or better, which the loss compares with its target."""
        x = x_t.to(torch.promote_types(x_t.dtype, torch.float32))
        _, _, c_in, c_noise = self.prediction.coefficients(now)
        noise_level = torch.as_tensor(c_noise, dtype=x.dtype).to(x.device, non_blocking=True).expand(len(x))
        output: Any = self.network(x * over(c_in, x), noise_level, **cond)
        F, extras = output if isinstance(output, tuple) else (output, {})
        return F.to(x.dtype), extras
