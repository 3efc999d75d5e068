"""A teacher, which is a trained model that a loss asks for estimates, and moves of its flow at tensors of times."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from inkdrop.denoiser import NetworkDenoiser
from inkdrop.losses.base import Example
from inkdrop.models import Reference
from inkdrop.randomness import sent
from inkdrop.schedules import Point, Scalar, Schedule, over


class Teacher(Reference):
    """The pipeline of another run: frozen, in evaluation mode, on the device of the loss, and saved nowhere."""

    def check(self, denoiser: NetworkDenoiser, guided: bool) -> None:
        """Raises `ValueError` for a teacher without a denoiser or with another schedule than the student.

        A teacher that is `guided` must have been trained without its condition too.
        """
        if not hasattr(self.model, "denoiser"):
            raise ValueError("loss.teacher has no denoiser: name the run of one by loss.teacher.checkpoint=RUN")
        own, other = (each.schedule.points([0.25, 0.5, 1.0]) for each in (denoiser, self.model.denoiser))
        if own != other:
            raise ValueError(
                "loss.teacher has another schedule than the model: train with base=RUN, which has the model of RUN"
            )
        conditioner = self.model.conditioner
        if guided and not (conditioner.names and conditioner.empties(conditioner.names)):
            raise ValueError(
                "loss.scale needs a teacher that was trained without its condition too, by conditioner.dropout=0.1: "
                "name another, or set loss.scale=null"
            )

    @torch.no_grad()
    def estimate(self, x_t: Tensor, now: Point, example: Example, scale: Tensor | float | None = None) -> Tensor:
        """Returns the estimate of x_0 (B, *), guided without a classifier by a scale, a number or (B), if there is one.

        `scale` w gives `D_u + w (D_c - D_u)`, for two evaluations of the network. Source: Ho and Salimans 2022, arXiv
        2207.12598, with w + 1 as w.
        """
        denoiser, conditioner = self.model.denoiser, self.model.conditioner
        strong: Tensor = denoiser(x_t, now, conditioner(example.batch)).x_0
        if scale is None:
            return strong
        weak = denoiser(x_t, now, conditioner.null(example.batch)).x_0
        return torch.lerp(weak, strong, over(torch.as_tensor(scale).expand(len(x_t)), x_t))


def flowed(x: Tensor, x_0: Tensor, now: Point, next: Point) -> Tensor:
    """Returns the step of DDIM from x (B, *) at `now` to `next`, given x_0: `r x + (a' - a r) x_0`, r = s' / s.

    `now` and `next` are points of tensors (B) or of floats. Source: Song et al. 2021, arXiv 2010.02502, equation 12.
    """
    ratio = next.sigma / now.sigma
    return over(ratio, x) * x + over(next.alpha - now.alpha * ratio, x) * x_0


def data_of(x: Tensor, moved: Tensor, now: Point, next: Point) -> Tensor:
    """Returns the x_0 (B, *) for which `flowed(x, x_0, now, next)` is `moved`.

    Source: Salimans and Ho 2022, arXiv 2202.00512, appendix G.
    """
    ratio = next.sigma / now.sigma
    return (moved - over(ratio, x) * x) / over(next.alpha - now.alpha * ratio, x)


def rows(points: Sequence[Point], chosen: Tensor) -> Point:
    """Returns the points with these indices (B), as a point of tensors (B)."""
    return Point(*(torch.tensor(column, dtype=torch.float64)[chosen] for column in zip(*points, strict=True)))


def snapped(schedule: Schedule, t: Tensor) -> Tensor:
    """Returns times (B) rounded down to the steps of a discrete schedule; others are returned as they are."""
    count = schedule.num_timesteps
    return t if count is None else torch.floor(t * count + 1e-6) / count


def like(factors: Scalar, values: Tensor) -> Tensor:
    """Returns factors on the device and in the type of values."""
    return sent(torch.as_tensor(factors), values.device, values.dtype)


def settled(example: Example, loss: Tensor, importance: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Returns a loss (B) multiplied by the factor of its times and samples, and this factor."""
    factor = example.factor(importance)
    return (loss if factor is None else like(factor, loss) * loss), factor


def require_map_to_data(denoiser: NetworkDenoiser, name: str) -> None:
    """Raises `ValueError` unless the estimate at t = 0 is x itself, whatever the network returns."""
    c_skip, c_out, *_ = denoiser.prediction.coefficients(denoiser.schedule.points([0.0])[0])
    if c_skip != 1 or c_out != 0:
        raise ValueError(
            f"loss={name} needs an estimate that is x itself at t = 0, and {type(denoiser.prediction).__name__} has "
            "another one there: choose prediction=v, prediction=flow or prediction=karras"
        )
