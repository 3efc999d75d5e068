"""Consistency training, tuning and distillation: the estimates at two times of one trajectory shall be equal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le, Len
from torch import Tensor

from inkdrop.denoiser import NetworkDenoiser
from inkdrop.losses.base import Example, Loss, LossTerms
from inkdrop.losses.teachers import Teacher, flowed, like, require_map_to_data, settled, snapped
from inkdrop.randomness import Generators, same_dropout
from inkdrop.schedules import Point, over
from inkdrop.time_samplers import Times, TimeSampler


class ConsistencyLoss(Loss):
    """The distance of the estimates of x_0 at two times, `(sqrt(|f(x_t, t) - f(x_r, r)|^2 / c_out^2 + c^2) - c) / g`.

    f is the estimate of x_0, which is x itself at t = 0. The second one has no gradient and the same dropout. The
    earlier time is `r = max(t - g, 0)`, and the gap g falls over the run from `first_gap` to `last_gap`, evenly in its
    logarithm; a gap of 1 is denoising. Both times have the same x_0 and eps (consistency training; from the weights of
    a trained model: tuning), or x_r is a step of the teacher from x_t (distillation). The norm is a mean over the
    elements that count. The part "error" is `|f(x_t, t) - f(x_r, r)|^2`.

    - `time_sampler`: the law of t.
    - `first_gap`, `last_gap`: the gap at the start and at the end of the run.
    - `huber`: the c of the distance, below which it is quadratic.
    - `teacher`: the pipeline of a trained model, for distillation.
    - `scale`: the scale of the teacher's classifier-free guidance, or two of them, between which one is drawn for each
      sample and given to `denoiser=scale_conditioned` (latent consistency); null is the conditional teacher.

    `check` raises `ValueError` for a prediction without f(x, 0) = x, such as that of data. Sources: Song et al. 2023,
    arXiv 2303.01469, algorithms 2 and 3; Song and Dhariwal 2023, arXiv 2310.14189 (Huber); Geng et al. 2024, arXiv
    2406.14548 (tuning, and a gap that falls); Luo et al. 2023, arXiv 2310.04378, algorithm 1 (guidance).
    """

    def __init__(
        self,
        time_sampler: TimeSampler,
        first_gap: Annotated[float, Gt(0), Le(1)] = 0.25,
        last_gap: Annotated[float, Gt(0), Le(1)] = 0.02,
        huber: Annotated[float, Gt(0)] = 0.2,
        teacher: Any = None,
        scale: Annotated[float, Ge(0)] | Annotated[list[Annotated[float, Ge(0)]], Len(2, 2)] | None = None,
    ):
        super().__init__()
        if last_gap > first_gap:
            raise ValueError(f"loss.last_gap={last_gap} is above loss.first_gap={first_gap}: the gap falls; swap them")
        if scale is not None and teacher is None:
            raise ValueError(f"loss.scale={scale} is that of a teacher: set loss=consistency_distillation")
        self.time_sampler, self.first_gap, self.last_gap, self.huber = time_sampler, first_gap, last_gap, huber
        self.teacher = None if teacher is None else Teacher(teacher)
        self.scales = list(scale) if isinstance(scale, Sequence) else None
        self.scale = None if isinstance(scale, Sequence) else scale

    def check(self, denoiser: NetworkDenoiser) -> None:
        require_map_to_data(denoiser, "consistency")
        self.time_sampler.quantile(denoiser.schedule, torch.tensor([0.5]).double())
        if self.teacher is not None:
            self.teacher.check(denoiser, guided=self.scale is not None or self.scales is not None)
        if self.scales is not None and not hasattr(denoiser, "scaled"):
            raise ValueError(f"loss.scale={self.scales} is given to the network: set denoiser=scale_conditioned")

    def gap(self, example: Example) -> Tensor:
        """Returns the gap g (B) of samples by the progress of the run; outside of a run it is the last one."""
        progress = torch.ones(len(example.x_0)) if example.progress is None else example.progress
        return self.first_gap * (self.last_gap / self.first_gap) ** progress.double()

    def forward(
        self, denoiser: NetworkDenoiser, example: Example, generators: Generators, t: Tensor | None = None
    ) -> LossTerms:
        schedule, x_0 = denoiser.schedule, example.x_0
        times = self.time_sampler(schedule, generators.at("time")) if t is None else Times(t, None)
        gap = self.gap(example)
        r = snapped(schedule, times.t - gap)
        r = torch.where(r < schedule.t_min * (1 - 1e-9), 0.0, r)
        now, earlier = schedule.point(times.t), schedule.point(r)
        noise = denoiser.noise.within(example.batch)
        x_t, eps = noise.corrupt(x_0, now, generators.at("noise"))
        scale: Any = self.scale
        if self.scales is not None:
            scale = self.scales[0] + (self.scales[1] - self.scales[0]) * generators.at("scale").uniform()
            example = example._replace(cond=denoiser.scaled(x_t, scale, example.cond))  # type: ignore[operator]
        x_r = noise.mixed(x_0, eps, earlier, generators.at("noise"))
        if self.teacher is not None:
            x_r = flowed(x_t, self.teacher.estimate(x_t, now, example, scale), now, earlier)
        with torch.no_grad():
            target = self._at(denoiser, x_r, schedule.point(r.clamp(min=schedule.t_min)), example, generators)
            target = torch.where(torch.as_tensor(over(r, target)) == 0, x_r.to(target), target)
        error = example.mean((self._at(denoiser, x_t, now, example, generators) - target).square())
        of_output = error / like(denoiser.prediction.coefficients(now).c_out, error) ** 2
        loss = ((of_output + self.huber**2).sqrt() - self.huber) / like(gap, error)
        loss, factor = settled(example, loss, times.importance)
        if times.u is not None:
            self.time_sampler.observe(times, loss.detach())
        return LossTerms(loss, times.t, {"error": error}, factor)

    def _at(self, denoiser: NetworkDenoiser, x: Tensor, now: Point, example: Example, generators: Generators) -> Tensor:
        same_dropout(generators)
        cond = denoiser.prepare(x, now, example.cond, generators.at("prepare"))
        same_dropout(generators)
        return denoiser.estimate(x, now, *denoiser.output(x, now, cond)).x_0
