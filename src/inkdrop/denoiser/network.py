"""The denoiser of a network and a prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from inkdrop.denoiser.base import Condition, Denoiser, Estimate
from inkdrop.noises import Gaussian, Noise
from inkdrop.predictions import Prediction
from inkdrop.randomness import Generators, sent
from inkdrop.schedules import Point, Schedule, over


class NetworkDenoiser(Denoiser):
    """A denoiser made of a network F and a prediction: `x_0 = c_skip x_t + c_out F(c_in x_t, c_noise)`.

    The network maps x (B, *), c_noise (B) and named conditions to F (B, *), or to F and a dict of further outputs. The
    sum is computed in float32 or better, never in the type that autocast selects for the network. Raises `ValueError`
    if the prediction cannot recover x_0 at t = 1.
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
        """Returns the condition for the network in training, where it depends on x_t; by default unchanged."""
        return cond

    def output(self, x_t: Tensor, now: Point, cond: Condition) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Returns the output F (B, *) of the network, in float32 or better as the loss needs it, and its extras."""
        x = x_t.to(torch.promote_types(x_t.dtype, torch.float32))
        _, _, c_in, c_noise = self.prediction.coefficients(now)
        noise_level = sent(torch.as_tensor(c_noise, dtype=x.dtype), x.device).expand(len(x))
        output: Any = self.network(x * over(c_in, x), noise_level, **cond)
        F, extras = output if isinstance(output, tuple) else (output, {})
        return F.to(x.dtype), extras
