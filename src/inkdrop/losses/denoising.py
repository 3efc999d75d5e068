"""The weighted squared error of the network's output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from inkdrop.denoiser import Condition, NetworkDenoiser
from inkdrop.losses.base import Loss, LossTerms
from inkdrop.losses.coupling import Coupling, independent
from inkdrop.randomness import Generators
from inkdrop.schedules import Point, over
from inkdrop.time_samplers import Times, TimeSampler
from inkdrop.weightings import Weighting, weights_at


class Attempt(NamedTuple):
    """What the network made of noised data: times, noise eps (B, *), x_t (B, *), output F (B, *) and what is beside."""

    times: Times
    now: Point
    eps: Tensor
    x_t: Tensor
    F: Tensor
    extras: Mapping[str, Tensor]


class DenoisingLoss(Loss):
    """`w |F(c_in x_t, c_noise) - F*|^2`, the mean over the elements of a sample.

    `coupling` says which noise goes to which data of a batch. Source: Ho et al. 2020, equation 14, and its relatives by
    prediction, time sampler and weighting.
    """

    def __init__(self, time_sampler: TimeSampler, weighting: Weighting, coupling: Coupling = independent):
        super().__init__()
        self.time_sampler, self.weighting, self.coupling = time_sampler, weighting, coupling

    def check(self, denoiser: NetworkDenoiser) -> None:
        """`ValueError` if a time, a target or a weight is not finite somewhere between the ends of time."""
        t = self.time_sampler.quantile(denoiser.schedule, torch.tensor([0.0, 0.25, 0.5, 0.75, 1 - 1e-12]).double())
        facts = [denoiser.schedule.c_noise(t), weights_at(self.weighting, denoiser.schedule, denoiser.prediction, t)]
        facts += [torch.as_tensor(u) for u in denoiser.prediction.target_weights(denoiser.schedule.point(t))]
        if not all(bool(fact.isfinite().all()) for fact in facts):
            parts = (denoiser.schedule, denoiser.prediction, self.weighting)
            raise ValueError(f"{' with '.join(type(part).__name__ for part in parts)} is not finite: choose others")

    def forward(
        self,
        denoiser: NetworkDenoiser,
        x_0: Tensor,
        cond: Condition,
        generators: Generators,
        t: Tensor | None = None,
    ) -> LossTerms:
        attempt = self.attempt(denoiser, x_0, cond, generators, t)
        loss, error = self.errors(denoiser, x_0, attempt)
        times = attempt.times
        return LossTerms(self.settle(times, loss), times.t, {"error": error}, times.importance)

    def attempt(
        self, denoiser: NetworkDenoiser, x_0: Tensor, cond: Condition, generators: Generators, t: Tensor | None
    ) -> Attempt:
        """Noise for x_0 (B, *) at times drawn for it, or at given times t (B), and the network's answer."""
        times = self.time_sampler(denoiser.schedule, generators.at("time")) if t is None else Times(t, None)
        now = denoiser.schedule.point(times.t)
        eps = denoiser.noise(x_0.shape[1:], generators.at("noise"), x_0.dtype).to(x_0.device, non_blocking=True)
        eps = self.coupling(x_0, eps)
        x_t = over(now.alpha, x_0) * x_0 + over(now.sigma, x_0) * eps
        told = denoiser.prepare(x_t, now, cond, generators.at("prepare"))
        return Attempt(times, now, eps, x_t, *denoiser.output(x_t, now, told))

    def errors(self, denoiser: NetworkDenoiser, x_0: Tensor, attempt: Attempt) -> tuple[Tensor, Tensor]:
        """The squared error (B) of an attempt, with its weight and without."""
        error = (attempt.F - denoiser.prediction.target(x_0, attempt.eps, attempt.now)).square().flatten(1).mean(1)
        weight = weights_at(self.weighting, denoiser.schedule, denoiser.prediction, attempt.times.t)
        return _like(weight, error) * error, error

    def settle(self, times: Times, loss: Tensor) -> Tensor:
        """The loss (B) with the factors of its times; the time sampler hears of it, if it drew them."""
        if times.u is not None:
            self.time_sampler.observe(times, loss.detach())
        return loss if times.importance is None else _like(times.importance, loss) * loss


def _like(factors: Tensor, values: Tensor) -> Tensor:
    return factors.to(values.device, values.dtype, non_blocking=True)
