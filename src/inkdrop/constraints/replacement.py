"""Known elements of x are replaced by those of given data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from inkdrop.constraints.base import Constrained, Constraint, ConstraintFactory, Stepping
from inkdrop.constraints.observed import NAMES, observed, requested
from inkdrop.denoiser import Estimate
from inkdrop.noises import Draw, Noise, Transition
from inkdrop.schedules import Point


class Replaced(Constraint):
    """Keeps known elements of x (B, *) where a mask (B, *) is true, as the law of the noise has them at each time."""

    def __init__(self, known: Tensor, mask: Tensor, law: Noise):
        self.known, self.mask, self.law = known, mask, law

    def start(self, x: Tensor, points: Sequence[Point], noise: Draw) -> Tensor:
        return self._replaced(x, points[0], noise)

    def apply(
        self, transition: Transition, now: Point, next: Point, noise: Draw, estimate: Estimate | None
    ) -> tuple[Tensor, Tensor | None]:
        return self._replaced(transition.draw(noise), next, noise), None

    def _replaced(self, x: Tensor, point: Point, noise: Draw) -> Tensor:
        eps = noise(x, "known")
        return torch.where(self.mask, self.law.known(self.known.to(x), eps, point, noise.streams("mix")), x)


class Replacement(ConstraintFactory):
    """Inpainting by replacement: after each move the known elements are those of the data, noised anew to its end.

    `condition.known` are the data, in the raw form of the training data, and `condition.mask` is 1 where they are known
    and 0 where they are to be filled in; both are files, or lists of files that samples take in turn. The known
    elements of a sample are exactly those of the data. The law of the others is not the exact conditional one, because
    a step does not see how the known elements will continue; `time_grid=resampled` (RePaint) lets the others adapt.
    Source: Song et al. 2021, arXiv 2011.13456, appendix I.2.
    """

    names = NAMES

    def __call__(self, pipeline: Constrained, batch: Mapping[str, Tensor]) -> Constraint:
        return Replaced(*observed(pipeline, batch), pipeline.denoiser.noise)

    def check(self, sampler: Stepping, points: Sequence[Point]) -> None:
        if len(points) < 3:
            raise ValueError(
                "constraint=replacement needs at least two steps: after one, the known elements have had no influence "
                "on the others; raise time_grid.num_steps"
            )

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """Returns the known data and the masks of these seeds from their files."""
        return requested(seeds, **condition)
