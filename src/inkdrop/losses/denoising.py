"""The weighted squared error of the network's output."""

from __future__ import annotations

import torch
from torch import Tensor

from inkdrop.denoiser import Condition, NetworkDenoiser
from inkdrop.losses.base import Loss, LossTerms
from inkdrop.losses.coupling import Coupling, independent
from inkdrop.randomness import Generators
from inkdrop.schedules import over
from inkdrop.time_samplers import Times, TimeSampler
from inkdrop.weightings import Weighting


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
        facts = [denoiser.schedule.c_noise(t), self._weight(denoiser, t)]
        facts += [torch.as_tensor(u) for u in denoiser.prediction.target_weights(denoiser.schedule.point(t))]
        if not all(bool(fact.isfinite().all()) for fact in facts):
            parts = (denoiser.schedule, denoiser.prediction, self.weighting)
            raise ValueError(f"{' with '.join(type(part).__name__ for part in parts)} is not finite: choose others")

    def _weight(self, denoiser: NetworkDenoiser, t: Tensor) -> Tensor:
        schedule = denoiser.schedule
        c_out = torch.as_tensor(denoiser.prediction.coefficients(schedule.point(t)).c_out, dtype=t.dtype).expand(len(t))
        return self.weighting(schedule.log_snr(t), schedule.log_snr_rate(t), c_out)

    def forward(
        self,
        denoiser: NetworkDenoiser,
        x_0: Tensor,
        cond: Condition,
        generators: Generators,
        t: Tensor | None = None,
    ) -> LossTerms:
        schedule, prediction = denoiser.schedule, denoiser.prediction
        times = self.time_sampler(schedule, generators.at("time")) if t is None else Times(t, t)
        now = schedule.point(times.t)
        eps = denoiser.noise(x_0.shape[1:], generators.at("noise"), x_0.dtype).to(x_0.device, non_blocking=True)
        eps = self.coupling(x_0, eps)
        x_t = over(now.alpha, x_0) * x_0 + over(now.sigma, x_0) * eps
        F, _ = denoiser.output(x_t, now, denoiser.prepare(x_t, now, cond, generators.at("prepare")))
        error = (F - prediction.target(x_0, eps, now)).square().flatten(1).mean(1)
        loss = _like(self._weight(denoiser, times.t), error) * error
        if t is None:
            self.time_sampler.observe(times, loss.detach())
        if times.importance is not None:
            loss = _like(times.importance, loss) * loss
        return LossTerms(loss, times.t, {"error": error})


def _like(factors: Tensor, values: Tensor) -> Tensor:
    return factors.to(values.device, values.dtype, non_blocking=True)
