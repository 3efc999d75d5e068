"""Progressive distillation: one step of the student shall end where several steps of the teacher end."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor

from inkdrop.denoiser import NetworkDenoiser
from inkdrop.losses.base import Example, Loss, LossTerms
from inkdrop.losses.teachers import Teacher, data_of, flowed, like, rows, settled
from inkdrop.randomness import Generators
from inkdrop.schedules import over
from inkdrop.weightings import Weighting, weights_at


class ProgressiveDistillation(Loss):
    """The weighted error of F against that which leads in one step of DDIM where the teacher's steps of DDIM lead.

    The student is sampled with `sampler=ddim time_grid=trailing` and as many steps. Several rounds, each with the last
    student as its teacher and half as many steps, lead from many steps to few.

    - `teacher`: the pipeline of a trained model.
    - `num_steps`: the number of steps N of the student, from the times k / N.
    - `substeps`: the number of steps of the teacher for each of the student.
    - `weighting`: the weight of a noise level.
    - `scale`: the scale of the teacher's classifier-free guidance; null is the conditional teacher.

    Source: Salimans and Ho 2022, arXiv 2202.00512, algorithm 2.
    """

    def __init__(
        self,
        teacher: Any,
        num_steps: Annotated[int, Ge(1), Le(10_000)],
        weighting: Weighting,
        substeps: Annotated[int, Ge(1), Le(1000)] = 2,
        scale: Annotated[float, Ge(0)] | None = None,
    ):
        super().__init__()
        self.teacher, self.num_steps, self.substeps = Teacher(teacher), num_steps, substeps
        self.weighting, self.scale = weighting, scale

    def check(self, denoiser: NetworkDenoiser) -> None:
        self.teacher.check(denoiser, guided=self.scale is not None)
        self._times(denoiser)

    def _times(self, denoiser: NetworkDenoiser) -> list[float]:
        """Returns the times of the teacher's steps, from 0 to 1."""
        count = self.num_steps * self.substeps
        times = [denoiser.schedule.snap(k / count) for k in range(count + 1)]
        if len(set(times)) < len(times) or times[1] < denoiser.schedule.t_min * (1 - 1e-9):
            raise ValueError(
                f"loss.num_steps={self.num_steps} with loss.substeps={self.substeps} is more than the schedule has: "
                "lower one of them"
            )
        return times

    def forward(
        self, denoiser: NetworkDenoiser, example: Example, generators: Generators, t: Tensor | None = None
    ) -> LossTerms:
        points = denoiser.schedule.points(self._times(denoiser))
        u = generators.at("time").uniform() if t is None else t.to(torch.float64) - 1e-9
        step = (u * self.num_steps).long().clamp(0, self.num_steps - 1) + 1
        now = rows(points, step * self.substeps)
        x_t, _ = denoiser.noise.within(example.batch).corrupt(example.x_0, now, generators.at("noise"))
        x, here = x_t, now
        for number in range(1, self.substeps + 1):
            next = rows(points, step * self.substeps - number)
            x = flowed(x, self.teacher.estimate(x, here, example, self.scale), here, next)
            here = next
        x_0 = data_of(x_t, x, now, here)
        c_skip, c_out, *_ = denoiser.prediction.coefficients(now)
        target = (x_0 - over(c_skip, x_0) * x_t) / over(c_out, x_0)
        F, _ = denoiser.output(x_t, now, denoiser.prepare(x_t, now, example.cond, generators.at("prepare")))
        error = example.mean((F - target).square())
        weight = weights_at(self.weighting, denoiser.schedule, denoiser.prediction, torch.as_tensor(now.t))
        loss, factor = settled(example, like(weight, error) * error, None)
        return LossTerms(loss, torch.as_tensor(now.t), {"error": error}, factor)
