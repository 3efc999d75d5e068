"""Known elements guide the others by the gradient of their error through the denoiser."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeAlias

import torch
from annotated_types import Gt
from torch import Tensor

from inkdrop.constraints.base import Constrained, Constraint, ConstraintFactory
from inkdrop.constraints.observed import NAMES, observed, requested
from inkdrop.denoiser import Condition, Denoiser, Estimate, Wrapper
from inkdrop.noises import Draw, Transition
from inkdrop.schedules import Point

_Pull: TypeAlias = Callable[[Tensor], Tensor]


def _differentiated(
    denoiser: Denoiser, x_t: Tensor, now: Point, cond: Condition, pull: _Pull
) -> tuple[Estimate, Tensor]:
    """Returns the estimate, and the product (B, *) of its Jacobian's transpose with `pull(x_0)`."""
    # The graph is built only here. Tensors of inference mode cannot be part of one, hence the clones.
    with torch.inference_mode(False), torch.enable_grad():
        start = x_t.detach().clone().requires_grad_()
        estimate = denoiser(start, now, {name: value.detach().clone() for name, value in cond.items()})
        (gradient,) = torch.autograd.grad(estimate.x_0, start, pull(estimate.x_0.detach()))
    extras = {name: value.detach() for name, value in estimate.extras.items()}
    return Estimate(estimate.x_0.detach(), extras), gradient


class _Errors:
    """The known elements of a sampling call, in the order of its rows."""

    def __init__(self, known: Tensor, mask: Tensor):
        self.known, self.mask = known.clone(), mask.clone()

    def __call__(self, x_0: Tensor) -> Tensor:
        return torch.where(self.mask, self.known.to(x_0) - x_0, 0.0)

    def filled(self, x: Tensor) -> Tensor:
        return torch.where(self.mask, self.known.to(x), x)

    def select(self, index: Tensor) -> None:
        self.known, self.mask = self.known[index], self.mask[index]


class _Pulled(Wrapper):
    def __init__(self, denoiser: Denoiser, errors: _Errors, scale: float):
        super().__init__(denoiser)
        self.errors, self.scale = errors, scale

    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        if now.alpha == 0:  # x_t says nothing of the data
            return self.denoiser(x_t, now, cond)
        estimate, gradient = _differentiated(self.denoiser, x_t, now, cond, self.errors)
        factor = self.scale * float((now.alpha**2 + now.sigma**2) / now.alpha)
        return Estimate(estimate.x_0 + factor * gradient, estimate.extras)

    def select(self, index: Tensor) -> None:
        self.errors.select(index)
        super().select(index)


class _Recorded(Wrapper):
    """Keeps the direction of the last call in which the error's norm falls, which the constraint follows."""

    def __init__(self, denoiser: Denoiser, errors: _Errors):
        super().__init__(denoiser)
        self.errors = errors
        self.direction: Tensor | None = None

    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        estimate, self.direction = _differentiated(self.denoiser, x_t, now, cond, self._normed)
        return estimate

    def _normed(self, x_0: Tensor) -> Tensor:
        error = self.errors(x_0)
        return error / error.flatten(1).norm(dim=1).clamp(min=1e-12).reshape(-1, *[1] * (error.dim() - 1))

    def select(self, index: Tensor) -> None:
        self.errors.select(index)
        super().select(index)


class _Guided(Constraint):
    def __init__(self, errors: _Errors, scale: float):
        self.errors, self.scale = errors, scale

    def around(self, denoiser: Denoiser) -> Denoiser:
        return _Pulled(denoiser, self.errors, self.scale)

    def apply(
        self, transition: Transition, now: Point, next: Point, noise: Draw, estimate: Estimate | None
    ) -> tuple[Tensor, Tensor | None]:
        return transition.draw(noise), None

    def finish(self, x: Tensor) -> Tensor:
        return self.errors.filled(x)


class _Descending(Constraint):
    def __init__(self, errors: _Errors, scale: float):
        self.errors, self.scale = errors, scale

    def around(self, denoiser: Denoiser) -> Denoiser:
        self.recorded = _Recorded(denoiser, self.errors)
        return self.recorded

    def apply(
        self, transition: Transition, now: Point, next: Point, noise: Draw, estimate: Estimate | None
    ) -> tuple[Tensor, Tensor | None]:
        direction, self.recorded.direction = self.recorded.direction, None  # an up-move has none
        x = transition.draw(noise)
        return x if direction is None else x + self.scale * direction, None

    def finish(self, x: Tensor) -> Tensor:
        return self.errors.filled(x)


class PiGDM(ConstraintFactory):
    """Reconstruction guidance by pseudoinverse: `x_0 <- D + w (a^2 + s^2) / a J^T m (y - D)`, J the Jacobian of D.

    a and s are alpha and sigma, and m is 1 where y is known. With w = 1 it is Bayes' rule where x_0 given x_t has the
    covariance s^2 / (a^2 + s^2), that of data N(0, I). Known elements are those of the data at the end.

    - `scale`: the guidance scale w.

    Source: Song et al. 2023, ICLR, `Pseudoinverse-guided diffusion models for inverse problems`, section 3.2.
    """

    names = NAMES

    def __init__(self, scale: Annotated[float, Gt(0)] = 1.0):
        self.scale = scale

    def __call__(self, pipeline: Constrained, batch: Mapping[str, Tensor]) -> Constraint:
        return _Guided(_Errors(*observed(pipeline, batch)), self.scale)

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """Returns the known data and the masks of these seeds from their files."""
        return requested(seeds, **condition)


class DPS(ConstraintFactory):
    """Diffusion posterior sampling: after each move x goes `w` along the gradient in x_t of `-|m (y - D(x_t))|`.

    y is the known data, and m is 1 where they are known. The step does not depend on the noise level, so that `scale`
    belongs to a number of steps and a schedule that keeps the variance. Known elements are exact at the
    end.

    - `scale`: the length w of a step, from 0.1 to 1 in the paper, for 1000 steps.

    Source: Chung et al. 2023, arXiv 2209.14687, algorithm 1.
    """

    names = NAMES

    def __init__(self, scale: Annotated[float, Gt(0)] = 0.5):
        self.scale = scale

    def __call__(self, pipeline: Constrained, batch: Mapping[str, Tensor]) -> Constraint:
        return _Descending(_Errors(*observed(pipeline, batch)), self.scale)

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """Returns the known data and the masks of these seeds from their files."""
        return requested(seeds, **condition)
