"""What is minimised in training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from inkdrop.denoiser import Condition, NetworkDenoiser
from inkdrop.randomness import Generators
from inkdrop.schedules import over
from inkdrop.time_samplers import TimeSampler
from inkdrop.weightings import Weighting


class LossTerms(NamedTuple):
    """A loss for each sample: what is minimised (B), the times it was taken at (B), and named parts for the log."""

    loss: Tensor
    t: Tensor
    parts: Mapping[str, Tensor]


class Loss(ABC):
    """One training objective."""

    @abstractmethod
    def __call__(
        self,
        denoiser: NetworkDenoiser,
        x_0: Tensor,
        cond: Condition,
        generators: Generators,
        t: Tensor | None = None,
    ) -> LossTerms:
        """The loss of x_0 (B, *) at times drawn for it, or at given times t (B)."""


class DenoisingLoss(Loss):
    """`w |F(c_in x_t, c_noise) - F*|^2`, the mean over the elements of a sample.

    Source: Ho et al. 2020, equation 14, and its relatives by prediction, time sampler and weighting.
    """

    def __init__(self, time_sampler: TimeSampler, weighting: Weighting):
        self.time_sampler, self.weighting = time_sampler, weighting

    def __call__(
        self,
        denoiser: NetworkDenoiser,
        x_0: Tensor,
        cond: Condition,
        generators: Generators,
        t: Tensor | None = None,
    ) -> LossTerms:
        schedule, prediction = denoiser.schedule, denoiser.prediction
        if t is None:
            t = self.time_sampler(schedule, generators.at("time"))
        now = schedule.point(t)
        eps = denoiser.noise(x_0.shape[1:], generators.at("noise"), x_0.dtype).to(x_0.device, non_blocking=True)
        x_t = over(now.alpha, x_0) * x_0 + over(now.sigma, x_0) * eps
        F, _ = denoiser.output(x_t, now, cond)
        error = (F - prediction.target(x_0, eps, now)).square().flatten(1).mean(1)
        c_out = torch.as_tensor(prediction.coefficients(now).c_out, dtype=t.dtype).expand(len(t))
        weight = self.weighting(schedule.log_snr(t), schedule.log_snr_rate(t), c_out)
        return LossTerms(weight.to(error.device, error.dtype, non_blocking=True) * error, t, {"error": error})
