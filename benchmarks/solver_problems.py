"""Exact problems for solvers: mixtures whose denoiser is known, the ranges of noise of three schedules, references.

Everything is in float64. Only sigma / alpha matters to an exact denoiser, so that a schedule is a range of it, and a
problem can be given to any peer in its own variables by a change of scale.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from inkdrop.denoiser import Condition, Denoiser, Estimate
from inkdrop.noises import Gaussian
from inkdrop.schedules import EDM, LinearInterpolation, Point, Schedule, linear_beta


class Mixture(Denoiser):
    """E[x_0 | x_t] of a mixture of Gaussians by two matrix products, for x (B, D); counts its calls.

    `roots` (K, D) are the standard deviations of each mode along its `axes` (K, D, D), columns.
    """

    def __init__(self, weights: Tensor, means: Tensor, roots: Tensor, axes: Tensor):
        super().__init__()
        self.schedule: Schedule = EDM()
        self.noise = Gaussian()
        self.weights, self.means, self.roots, self.axes = weights, means, roots, axes
        self._turn = axes.permute(1, 0, 2).reshape(means.shape[1], -1)  # (D, K * D)
        self._centers = torch.einsum("kd,kde->ke", means, axes)
        self.calls = 0

    def mean(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        """E[x_0 | x] for x = alpha x_0 + sigma eps, (B, D)."""
        self.calls += 1
        return torch.cat([self._mean(part, alpha, sigma) for part in x.split(500)])  # as much as a cache holds

    def _mean(self, x: Tensor, alpha: float, sigma: float) -> Tensor:
        deviation = (x @ self._turn).view(len(x), *self.means.shape) - alpha * self._centers
        power = (alpha * self.roots) ** 2 + sigma**2
        share = (self.weights.log() - (deviation**2 / power + power.log()).sum(2) / 2).softmax(1)
        given_mode = self._centers + alpha * self.roots**2 / power * deviation
        return (share[:, :, None] * given_mode).flatten(1) @ self._turn.T

    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        return Estimate(self.mean(x_t, float(now.alpha), float(now.sigma)), {})

    def quantiles(self, axes: Tensor, count: int) -> Tensor:
        """x_0's projections on the columns of `axes` (D, M): their quantiles at (i - 1/2) / count, (count, M)."""
        centers = self.means @ axes
        deviations = ((self.roots[:, :, None] * (self.axes.mT @ axes)) ** 2).sum(1).sqrt()
        reach = torch.linspace(-8, 8, 2001, dtype=torch.float64)[:, None, None]
        places = (centers + reach * deviations).flatten(0, 1).sort(0).values
        levels = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        found = []
        for place, center, deviation in zip(places.T, centers.T, deviations.T, strict=True):
            below = torch.special.ndtr((place[:, None] - center) / deviation) @ self.weights
            found.append(torch.from_numpy(np.interp(levels, below, place)))
        return torch.stack(found, 1)

    def draw(self, count: int, seed: int = 0) -> Tensor:
        """Exact samples of x_0, (count, D)."""
        generator = torch.Generator().manual_seed(seed)
        mode = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        normal = torch.randn(count, self.means.shape[1], generator=generator, dtype=torch.float64)
        return self.means[mode] + torch.einsum("bde,be->bd", self.axes[mode], self.roots[mode] * normal)


def ring(modes: int, radius: float, deviation: float, turn: float = 0.0) -> Mixture:
    """Equal round modes on a circle."""
    angle = turn + torch.arange(modes, dtype=torch.float64) * (2 * math.pi / modes)
    means = radius * torch.stack([angle.cos(), angle.sin()], 1)
    weights = torch.full((modes,), 1 / modes, dtype=torch.float64)
    roots = torch.full((modes, 2), deviation, dtype=torch.float64)
    return Mixture(weights, means, roots, torch.eye(2, dtype=torch.float64).expand(modes, 2, 2))


def power_law(
    seed: int, modes: int, dim: int, largest: float, exponent: float, spread: float, concentration: float = 5.0
) -> Mixture:
    """Unequal modes: along its j-th own axis a mode has deviation `largest / j^exponent`, their means `spread` more.

    The j-th coordinate of the means falls with the same power, so that the coarse directions tell the modes apart.
    """
    generator = torch.Generator().manual_seed(seed)
    fall = torch.arange(1, dim + 1, dtype=torch.float64) ** -exponent
    means = spread * largest * fall * torch.randn(modes, dim, generator=generator, dtype=torch.float64)
    noise = torch.randn(modes, dim, dim, generator=generator, dtype=torch.float64)
    axes = torch.linalg.qr(torch.eye(dim, dtype=torch.float64) + 0.3 * fall[:, None] * noise)[0].contiguous()
    jitter = torch.rand(modes, dim, generator=generator, dtype=torch.float64)
    share = torch.rand(modes, generator=generator, dtype=torch.float64) + 1 / concentration
    means -= (share[:, None] / share.sum() * means).sum(0)
    return Mixture(share / share.sum(), means, largest * fall * (0.7 + 0.6 * jitter), axes)


def tuning() -> dict[str, Mixture]:
    """The mixtures that choices may be made on."""
    return {
        "ring of 8": ring(8, 0.67, 0.06),
        "plane, 5 modes": power_law(11, 5, 2, 0.15, 1.0, 4.0),
        "plane, 3 modes": power_law(12, 3, 2, 0.3, 0.7, 3.0),
        "64-D, 10 modes": power_law(13, 10, 64, 0.4, 0.9, 1.5),
        "64-D, 4 modes": power_law(14, 4, 64, 1.0, 0.8, 1.0),
        "64-D, 20 modes": power_law(15, 20, 64, 0.3, 0.6, 2.0),
    }


def held_out() -> dict[str, Mixture]:
    """The mixtures that results are reported on, and nothing was ever chosen on."""
    return {
        "ring of 6": ring(6, 0.8, 0.1, 0.3),
        "plane, 9 modes": power_law(21, 9, 2, 0.12, 0.8, 5.0),
        "plane, 4 modes": power_law(22, 4, 2, 0.25, 1.2, 3.0),
        "64-D, 16 modes": power_law(23, 16, 64, 0.35, 1.0, 1.8),
        "64-D, 6 modes": power_law(24, 6, 64, 0.8, 0.7, 1.2),
        "64-D, 12 modes": power_law(25, 12, 64, 0.5, 0.5, 1.5),
    }


SCHEDULES: dict[str, Schedule] = {
    "VP": linear_beta(1000, 1e-4, 0.02),
    "EDM": EDM(),
    "flow": LinearInterpolation(),
}


@dataclass
class Problem:
    """A mixture, a schedule, and the exact end x_0 of the probability-flow ODE from x(1) = sigma(1) eps."""

    mixture: Mixture
    schedule: Schedule
    eps: Tensor

    @cached_property
    def ends(self) -> tuple[float, float]:
        """The largest and smallest sigma / alpha at which a network may be called; the largest is infinite for flow."""
        first, last = self.schedule.points([1.0, self.schedule.t_min])
        return math.exp(-float(first.half)), math.exp(-float(last.half))

    def denoise(self, x: Tensor, sigma: float) -> Tensor:
        """E[x_0 | x] for x = x_0 + sigma eps."""
        return self.mixture.mean(x, 1.0, float(sigma))

    @property
    def start(self) -> Tensor:
        """x / (alpha + sigma) at t = 1, (B, D)."""
        first = self.schedule.points([1.0])[0]
        return float(first.sigma / (first.alpha + first.sigma)) * self.eps

    @cached_property
    def solution(self) -> Tensor:
        """x_0 (B, D) to about 1e-8, by DOP853 in y = x / (alpha + sigma) over log(sigma / (alpha + sigma))."""
        first = self.schedule.points([1.0])[0]
        begin = float(first.sigma / (first.alpha + first.sigma))

        def slope(log_share: float, y: Tensor) -> Tensor:
            share = math.exp(log_share)
            x_0 = self.mixture.mean(y, 1 - share, share)
            return y - x_0  # share (eps - x_0), where y = (1 - share) x_0 + share eps

        y = _integrate(slope, self.start, math.log(begin), math.log(1e-6))
        return self.mixture.mean(y, 1 - 1e-6, 1e-6)

    def error(self, x_0: Tensor) -> float:
        """Root mean square distance to the solution, over all coordinates."""
        return float((x_0 - self.solution).square().mean().sqrt())


def _integrate(slope: Callable[[float, Tensor], Tensor], y: Tensor, begin: float, end: float) -> Tensor:
    def flat(time: float, values: object) -> object:
        return slope(time, torch.as_tensor(values).view_as(y)).flatten().numpy()

    solved = solve_ivp(flat, (begin, end), y.flatten().numpy(), "DOP853", rtol=1e-10, atol=1e-11)
    return torch.from_numpy(solved.y[:, -1].copy()).view_as(y)


def problems(
    mixtures: dict[str, Mixture], schedules: Iterable[str], count: int, seed: int = 0
) -> dict[tuple[str, str], Problem]:
    """Every mixture on some schedules from the same noises: `count` of them, twice as many in the plane."""
    made = {}
    for name, mixture in mixtures.items():
        dim = mixture.means.shape[1]
        generator = torch.Generator().manual_seed(seed)
        eps = torch.randn(2 * count if dim == 2 else count, dim, generator=generator, dtype=torch.float64)
        for kind in schedules:
            made[name, kind] = Problem(mixture, SCHEDULES[kind], eps)
    return made
