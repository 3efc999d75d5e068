"""Distribution matching distillation: a generator of one step whose samples have the law of a teacher."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor, nn

from inkdrop.denoiser import NetworkDenoiser
from inkdrop.losses.base import Example, Loss, LossTerms
from inkdrop.losses.teachers import Teacher, like, settled
from inkdrop.randomness import Generators, sent
from inkdrop.time_samplers import Times, TimeSampler
from inkdrop.weightings import Weighting, weights_at


class DistributionMatching(Loss):
    """The model makes data from noise in one call, away from what a fake model expects to what a teacher does.

    The generator's gradient at its sample x is `(D_fake(x_t) - D_teacher(x_t)) / mean |x - D_teacher(x_t)|`, with x_t
    noised from x. The fake model, a trained copy of the teacher, learns to denoise the samples; one optimizer steps
    both. The part "generator" is the square of the gradient, "fake" the loss of the fake model, and "error" the latter
    without its weight.

    - `teacher`: the pipeline of a trained model.
    - `time_sampler`: the law of the times of x_t.
    - `weighting`: the weight of a noise level in the loss of the fake model.
    - `scale`: the scale of the teacher's classifier-free guidance; null is the conditional teacher.

    Sources: Yin et al. 2024, arXiv 2311.18828, equations 7 and 8, without its regression on pairs; 2405.14867.
    """

    def __init__(
        self,
        teacher: Any,
        time_sampler: TimeSampler,
        weighting: Weighting,
        scale: Annotated[float, Ge(0)] | None = None,
    ):
        super().__init__()
        self.teacher, self.time_sampler, self.weighting, self.scale = Teacher(teacher), time_sampler, weighting, scale
        self.fake: Any = copy.deepcopy(getattr(teacher, "denoiser", nn.Identity())).requires_grad_(True).train()

    @property
    def logged(self) -> tuple[str, ...]:
        return ("generator", "fake")

    @property
    def players(self) -> Mapping[str, nn.Module]:
        return {"fake": self.fake}

    def check(self, denoiser: NetworkDenoiser) -> None:
        self.teacher.check(denoiser, guided=self.scale is not None)
        self.time_sampler.quantile(denoiser.schedule, torch.tensor([0.5]).double())

    def forward(
        self, denoiser: NetworkDenoiser, example: Example, generators: Generators, t: Tensor | None = None
    ) -> LossTerms:
        schedule, count = denoiser.schedule, len(example.x_0)
        noise = denoiser.noise.within(example.batch)
        first = schedule.points([1.0])[0]
        eps = sent(noise(example.x_0.shape[1:], generators.at("start"), example.x_0.dtype), example.x_0.device)
        x = denoiser(first.sigma * eps, first, example.cond).x_0
        times = self.time_sampler(schedule, generators.at("time")) if t is None else Times(t, None)
        now = schedule.point(times.t)
        x_t, eps = noise.corrupt(x.detach(), now, generators.at("noise"))
        with torch.no_grad():
            cond = self.teacher.model.conditioner(example.batch)
            real = self.teacher.estimate(x_t, now, example, self.scale)
            size = (x - real).abs().flatten(1).mean(1).clamp(min=1e-6).reshape(count, *(1,) * (x.dim() - 1))
            slope = (self.fake(x_t, now, cond).x_0 - real) / size
        generator = example.mean((x - (x - slope).detach()).square()) / 2
        F, _ = self.fake.output(x_t, now, cond)
        error = example.mean((F - self.fake.prediction.target(x.detach(), eps, now)).square())
        fake = like(weights_at(self.weighting, schedule, self.fake.prediction, times.t), error) * error
        loss, factor = settled(example, generator + fake, times.importance)
        return LossTerms(loss, times.t, {"generator": generator, "fake": fake, "error": error}, factor)
