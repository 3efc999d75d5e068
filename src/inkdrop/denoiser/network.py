"""The denoiser of a network and a prediction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from inkdrop.denoiser.base import Condition, Denoiser, Estimate
from inkdrop.noises import Gaussian, Noise
from inkdrop.predictions import Coefficients, Prediction
from inkdrop.randomness import Generators, sent
from inkdrop.schedules import Point, Scalar, Schedule, over


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
        coefficients = self.prediction.coefficients(now)
        return self._estimate(x_t, coefficients, *self._output(x_t, coefficients, cond))

    def estimate(self, x_t: Tensor, now: Point, F: Tensor, extras: Mapping[str, Tensor]) -> Estimate:
        """The estimate of x_0 that an output F (B, *) of the network for x_t (B, *) means."""
        return self._estimate(x_t, self.prediction.coefficients(now), F, extras)

    def _estimate(self, x_t: Tensor, by: Coefficients, F: Tensor, extras: Mapping[str, Tensor]) -> Estimate:
        x = x_t.to(F.dtype)
        if F.shape != x.shape:
            raise ValueError(
                f"the network returns shape {list(F.shape[1:])}, but data.shape={list(x.shape[1:])}: make them equal"
            )
        return Estimate((x * over(by.c_skip, x)).add_(F * over(by.c_out, x)), extras)

    def prepare(self, x_t: Tensor, now: Point, cond: Condition, generators: Generators) -> Condition:
        """Returns the condition for the network in training, where it depends on x_t; by default unchanged."""
        return cond

    def output(self, x_t: Tensor, now: Point, cond: Condition) -> tuple[Tensor, Mapping[str, Tensor]]:
        """Returns the output F (B, *) of the network, in float32 or better as the loss needs it, and its extras."""
        return self._output(x_t, self.prediction.coefficients(now), cond)

    def _output(self, x_t: Tensor, by: Coefficients, cond: Condition) -> tuple[Tensor, Mapping[str, Tensor]]:
        x = x_t.to(torch.promote_types(x_t.dtype, torch.float32))
        c_in, scaled = by.c_in, x
        if isinstance(c_in, Tensor) or c_in != 1.0:  # a multiplication by 1 would be a pass over memory
            scaled = x * over(c_in, x)
        output: Any = self.network(scaled, levels(by.c_noise, x), **cond)
        F, extras = output if isinstance(output, tuple) else (output, {})
        return F.to(x.dtype), extras


def levels(c_noise: Scalar, x: Tensor) -> Tensor:
    """Returns the time as the network receives it, (B), on the device and in the type of x (B, *)."""
    if isinstance(c_noise, Tensor):
        return sent(c_noise, x.device, x.dtype).expand(len(x))
    return torch.full(x.shape[:1], c_noise, dtype=x.dtype, device=x.device)
