"""Solvers against those of k-diffusion: `python benchmarks/agreement.py` prints the table.

Both have the same denoiser, grid and noise. What is compared are all x at which the denoiser is asked, and the result.
The command fails if a method that should agree to 1e-4 of x does not.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import importlib.util
import math
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor

from inkdrop.denoiser import Condition, Denoiser, Estimate
from inkdrop.noises import Gaussian, Move, NoiseSource
from inkdrop.randomness import Generators
from inkdrop.samplers import (
    DDIM,
    Adams,
    Sampler,
    dpm_2,
    dpmpp_2m,
    dpmpp_2m_sde,
    dpmpp_2s,
    dpmpp_3m,
    dpmpp_3m_sde,
    heun,
    lms,
)
from inkdrop.samplers.coordinates import Coordinate, Data
from inkdrop.samplers.quadrature import InLogSNR
from inkdrop.schedules import EDM, Point
from inkdrop.time_grids import Churn, Explicit, TimeGrid

INSTALL = "pip install torchdiffeq && pip install --no-deps k-diffusion==0.1.1.post1 torchsde trampoline boltons"
BOUND = 1e-4
COUNT, DIM = 8, 16
SCHEDULE = EDM()


class Modes(Denoiser):
    """E[x_0 | x_t] for data around a few places, in float64; remembers all x that it was asked at."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule, self.noise = SCHEDULE, Gaussian()
        self.places = torch.randn(5, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        self.asked: list[Tensor] = []

    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        return Estimate(self.denoise(x_t / now.alpha, float(now.sigma / now.alpha)), {})

    def denoise(self, x: Tensor, sigma: float, variance: float = 0.05) -> Tensor:
        """The estimate (B, D) at x = x_0 + sigma eps, for normal data of this variance around each place."""
        self.asked.append(x.clone())
        power = variance + sigma**2
        shares = (-(torch.cdist(x, self.places) ** 2) / (2 * power)).softmax(1)
        return (variance * x + sigma**2 * shares @ self.places) / power


class Halved(InLogSNR):
    """Three slopes with half of what the second difference of the parabola through them contributes."""

    def weights(self, coordinate: Coordinate, start: float, end: float, nodes: tuple[float, ...]) -> Sequence[float]:
        whole = super().weights(coordinate, start, end, nodes)
        if len(nodes) < 3:
            return whole
        moment = sum(weight * (node - nodes[0]) ** 2 for weight, node in zip(whole, nodes, strict=True))
        shares = [1 / math.prod(node - other for other in nodes if other != node) for node in nodes]
        return [weight - moment * share / 2 for weight, share in zip(whole, shares, strict=True)]


class Pair(NamedTuple):
    """A function of k-diffusion with its options, and what should do the same here."""

    theirs: str
    options: dict[str, Any]
    name: str
    ours: Callable[[TimeGrid], Sampler]
    differs: str = ""


CHURN = {"s_churn": 8.0, "s_tmin": 0.05, "s_tmax": 20.0}
HALF = "k-diffusion halves the second difference, which leaves order 2"
PAIRS = [
    Pair("euler", {}, "DDIM", DDIM),
    Pair("euler", CHURN, "DDIM, Churn", DDIM),
    Pair("heun", {}, "heun", heun),
    Pair("heun", {**CHURN, "s_noise": 1.003}, "heun, Churn", partial(heun, up_noise=1.003)),
    Pair("dpm_2", {}, "dpm_2", dpm_2),
    Pair("dpm_2", CHURN, "dpm_2, Churn", dpm_2),
    Pair("lms", {}, "lms, order 4", partial(lms, order=4)),
    Pair("dpmpp_2s_ancestral", {"eta": 0.0}, "dpmpp_2s", dpmpp_2s),
    Pair("dpmpp_2m", {}, "dpmpp_2m", dpmpp_2m),
    Pair("euler_ancestral", {}, "DDIM, eta 1", partial(DDIM, eta=1.0)),
    Pair("euler_ancestral", {"eta": 0.5}, "DDIM, eta 0.5", partial(DDIM, eta=0.5)),
    Pair("dpmpp_2m_sde", {}, "dpmpp_2m, eta 1", partial(dpmpp_2m_sde, eta=1.0)),
    Pair("dpmpp_2m_sde", {"eta": 0.5}, "dpmpp_2m, eta 0.5", partial(dpmpp_2m_sde, eta=0.5)),
    Pair(
        "dpmpp_2m_sde",
        {"solver_type": "heun"},
        "Adams of Data, eta 1, InLogSNR, order 2",
        lambda grid: Adams(grid, Data(1.0), InLogSNR(), 2),
    ),
    Pair("dpmpp_3m_sde", {}, "dpmpp_3m, eta 1", partial(dpmpp_3m_sde, eta=1.0), differs=HALF),
    Pair("dpmpp_3m_sde", {"eta": 0.0}, "dpmpp_3m", dpmpp_3m, differs=HALF),
    Pair("dpmpp_3m_sde", {}, "the same halved, eta 1", lambda grid: Adams(grid, Data(1.0), Halved(), 3)),
    Pair("dpmpp_3m_sde", {"eta": 0.0}, "the same halved", lambda grid: Adams(grid, Data(), Halved(), 3)),
]


def main() -> None:
    """Compares, prints the table, and fails if one that should agree does not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-steps", type=int, default=18)
    options = parser.parse_args()
    sampling = k_diffusion()
    first, last = SCHEDULE.time(-2 * torch.tensor([40.0, 0.01], dtype=torch.float64).log()).tolist()
    grid = Explicit(torch.linspace(first, last, options.num_steps, dtype=torch.float64).tolist())
    print(
        f"{datetime.date.today()}, torch {torch.__version__}, {options.num_steps} steps from sigma = 40 to 0.01 and 0\n"
    )
    print("| k-diffusion | inkdrop | largest difference, of x | within 1e-4 |\n|---|---|---|---|")
    failed = False
    for pair in PAIRS:
        found = difference(sampling, pair, grid)
        failed |= found > BOUND and not pair.differs
        verdict = "yes" if found <= BOUND else f"no: {pair.differs or 'they should agree'}"
        told = ", ".join([f"sample_{pair.theirs}", *(f"{key} {value}" for key, value in pair.options.items())])
        print(f"| {told} | {pair.name} | {found:.1e} | {verdict} |")
    sys.exit(int(failed))


def k_diffusion() -> Any:
    """The module `k_diffusion.sampling` without what its package imports beside it; says what is missing."""
    spec = importlib.util.find_spec("k_diffusion")
    try:
        if spec is None or spec.submodule_search_locations is None:
            raise ModuleNotFoundError(name="k_diffusion")
        package = types.ModuleType("k_diffusion")
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules["k_diffusion"] = package
        return importlib.import_module("k_diffusion.sampling")
    except ModuleNotFoundError as error:
        sys.exit(f"{error.name} is not installed, which this comparison alone needs: {INSTALL}")


def difference(sampling: Any, pair: Pair, grid: TimeGrid) -> float:
    """The largest difference of x, by the size of x where it stands."""
    eps = torch.randn(COUNT, DIM, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    churned = Churn(grid, *(pair.options[key] for key in CHURN)) if "s_churn" in pair.options else grid
    sampler, source = pair.ours(churned), NoiseSource(Gaussian(), Generators.from_seeds(range(COUNT)))
    own, other = Modes(), Modes()
    own.asked.append(sampler(own, eps, {}, source))
    other.asked.append(theirs(sampling, pair, other, eps, grid, noises(sampler, source, eps)))
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in zip(own.asked, other.asked, strict=True))


def noises(sampler: Sampler, source: NoiseSource, like: Tensor) -> Iterator[Tensor]:
    """The noise of each step of a run of ours: of the move up before it, or of the move down."""
    path, loops = sampler.path(source), 0
    up = torch.zeros_like(like)
    for number, (now, next) in enumerate(pairwise(SCHEDULE.points(sampler.time_grid(SCHEDULE)))):
        move = Move(number, loops, now, next)
        if next.t > now.t:
            up, loops = path.at(move)(like, "step"), loops + 1
        elif sampler.deterministic:
            yield up
            up = torch.zeros_like(like)
        elif next.sigma > 0:
            yield path.at(move)(like, "step")


def theirs(sampling: Any, pair: Pair, denoiser: Modes, eps: Tensor, grid: TimeGrid, noises: Iterator[Tensor]) -> Tensor:
    """A run of k-diffusion, all whose noise is given."""
    sigmas = torch.tensor([float(point.sigma) for point in SCHEDULE.points(grid(SCHEDULE))], dtype=torch.float64)
    sample = getattr(sampling, f"sample_{pair.theirs}")

    def model(x: Tensor, sigma: Tensor) -> Tensor:
        return denoiser.denoise(x, float(sigma[0]))

    def draw(*told: Tensor) -> Tensor:
        return next(noises)

    with mock.patch("torch.randn_like", draw):
        sampler = {"noise_sampler": draw} if "_sde" in pair.theirs else {}
        return sample(model, sigmas[0] * eps, sigmas, disable=True, **sampler, **pair.options)


if __name__ == "__main__":
    main()
