"""Several particles for each sample, of which those survive that foresee the known elements."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor

from inkdrop.constraints.base import Constrained, Constraint, ConstraintFactory, Stepping
from inkdrop.constraints.observed import NAMES, observed, requested
from inkdrop.denoiser import Estimate
from inkdrop.noises import Draw, Transition
from inkdrop.noises.kernels import towards
from inkdrop.schedules import Point


class Resampling(ABC):
    """How often each particle is continued: `resampling(weights (B, K), u (B, K)) -> (B, K)` of whole numbers."""

    @abstractmethod
    def __call__(self, weights: Tensor, u: Tensor) -> Tensor:
        """Returns how often each particle is continued, whose mean is K times its weight; each row sums to K.

        - `weights`: the weights, whose rows sum to 1.
        - `u`: numbers that are uniform in [0, 1).
        """


class Systematic(Resampling):
    """Systematic resampling: a ladder of K even rungs with one random start. Source: Kitagawa 1996, section 2.3."""

    def __call__(self, weights: Tensor, u: Tensor) -> Tensor:
        count = weights.shape[1]
        ends = (count * weights.cumsum(1)).clamp(max=count)
        ends[:, -1] = count
        rungs = (ends - u[:, :1]).ceil().clamp(min=0)
        return rungs.diff(dim=1, prepend=torch.zeros_like(rungs[:, :1])).long()


class Residual(Resampling):
    """Residual resampling: `floor(K w)` copies of each, and the rest drawn by what is left of the weights.

    Source: Liu and Chen 1998, section 3.2.
    """

    def __call__(self, weights: Tensor, u: Tensor) -> Tensor:
        count = weights.shape[1]
        whole = (count * weights).floor()
        rest = (count * weights - whole).clamp(min=0)
        ends = rest.cumsum(1)
        shares = (ends / ends[:, -1:].clamp(min=1e-30)).contiguous()
        drawn = torch.searchsorted(shares, u.contiguous(), right=True)
        needed = torch.arange(count, device=u.device) < (count - whole.sum(1, keepdim=True))
        copies = torch.zeros_like(whole).scatter_add_(1, drawn.clamp(max=count - 1), needed.to(whole))
        return (whole + copies).long()


class _Filtered(Constraint):
    def __init__(self, known: Tensor, mask: Tensor, made_by: Particles):
        self.known, self.mask, self.made_by, self.copies = known, mask, made_by, made_by.copies
        self.log_weights = torch.zeros(len(known) // self.copies, self.copies, dtype=torch.float64, device=known.device)
        self.least = torch.full_like(self.log_weights[:, 0], self.copies)  # effective sample size
        self.last: Draw | None = None

    def start(self, x: Tensor, points: Sequence[Point], noise: Draw) -> Tensor:
        first = points[0]
        self.known = self.known.to(x)
        self.path = first.alpha * self.known + first.sigma * self._shared(noise(x, "known"))
        return torch.where(self.mask, self.path, x)

    def apply(
        self, transition: Transition, now: Point, next: Point, noise: Draw, estimate: Estimate | None
    ) -> tuple[Tensor, Tensor | None]:
        mean, std = transition
        self.last = noise
        if next.sigma == 0:
            return torch.where(self.mask, self.known, transition.draw(noise)), None
        path = towards(self.path, self.known, now, next, eta=1.0)
        self.path = path.mean + path.std * self._shared(noise(mean, "known"))
        index = self._resampled((torch.where(self.mask, self.path - mean, 0.0) / std).double(), noise)
        drawn = (transition if index is None else Transition(mean[index], std)).draw(noise)
        return torch.where(self.mask, self.path, drawn), index

    def _resampled(self, error: Tensor, noise: Draw) -> Tensor | None:
        """Weighs the particles, and returns the rows that continue, or None if no sample is resampled."""
        self.log_weights = self.log_weights - error.flatten(1).square().sum(1).view_as(self.log_weights) / 2
        weights = self.log_weights.softmax(1)
        size = 1 / weights.square().sum(1)
        self.least = torch.minimum(self.least, size)
        chosen = size < self.made_by.threshold * self.copies
        if not chosen.any():
            return None
        u = noise.streams("resample").firsts(self.copies).uniform((self.copies,)).to(weights)
        times = torch.where(chosen[:, None], self.made_by.resampling(weights, u), 1)
        self.log_weights = self.log_weights.masked_fill(chosen[:, None], 0.0)
        rows = torch.arange(times.numel(), device=times.device)
        return rows.repeat_interleave(times.flatten())

    def finish(self, x: Tensor) -> Tensor:
        assert self.last is not None
        self.made_by.sizes.append((self.least / self.copies).cpu())
        u = self.last.streams("pick").firsts(self.copies).uniform().to(self.log_weights)
        pick = (self.log_weights.softmax(1).cumsum(1) <= u[:, None]).sum(1).clamp(max=self.copies - 1)
        return x[torch.arange(len(pick), device=x.device) * self.copies + pick.to(x.device)]

    def _shared(self, noise: Tensor) -> Tensor:
        """Returns the noise of the first particle of each sample for all of its particles."""
        return noise[:: self.copies].repeat_interleave(self.copies, 0)


class Particles(ConstraintFactory):
    """Inpainting by sequential Monte Carlo: particles are weighed by how well they foresee the noised known data.

    The known elements follow one path of noised data for each sample, `y_s ~ q(y_s | y_t, y_0)`. Before a move, a
    particle whose next x has the law N(mean, std^2) is weighed by the density of the path's next point under it. Where
    the effective sample size `1 / sum w^2` falls below `threshold` of the particles, they are resampled. With growing
    `copies` the law of samples approaches the conditional one.

    - `copies`: the number K of particles for each sample, each of which needs a network call.
    - `threshold`: the share of K below which the effective sample size leads to resampling; 1 is before each move.
    - `resampling`: how particles are resampled; systematic by default.

    Raises `ValueError` for a sampler without noise, and for a grid that returns to more noise. Sources: Trippe et al.
    2023, arXiv 2206.04119, algorithm 2; Wu et al. 2023, arXiv 2306.17775, for the threshold.
    """

    names = NAMES

    def __init__(
        self,
        copies: Annotated[int, Ge(1)] = 8,
        threshold: Annotated[float, Ge(0), Le(1)] = 0.5,
        resampling: Resampling | None = None,
    ):
        self.copies, self.threshold, self.resampling = copies, threshold, resampling or Systematic()
        self.sizes: list[Tensor] = []  # least effective sample size of each sample, as a share of K

    def __call__(self, pipeline: Constrained, batch: Mapping[str, Tensor]) -> Constraint:
        return _Filtered(*observed(pipeline, batch), self)

    def check(self, sampler: Stepping, points: Sequence[Point]) -> None:
        if sampler.deterministic:
            raise ValueError(
                f"constraint=particles needs a sampler that draws noise, unlike {type(sampler).__name__}: set "
                "sampler=ancestral"
            )
        if again := [next.t for now, next in pairwise(points) if next.t >= now.t]:
            raise ValueError(
                f"constraint=particles needs a grid that only descends, and this one returns to t = {again[0]:.3g}: "
                "choose another time_grid"
            )
        if len(points) < 3:
            raise ValueError("constraint=particles needs at least two steps: raise time_grid.num_steps")

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """Returns the known data and the masks of these seeds from their files."""
        return requested(seeds, **condition)

    def measured(self) -> dict[str, Tensor]:
        """Returns the least effective sample size of each sample, as a share of K."""
        sizes, self.sizes = self.sizes, []
        return {"least_effective_share": torch.cat(sizes)} if sizes else {}
