"""Measured against proved orders of convergence: `python benchmarks/orders.py` prints the tables.

Every deterministic solver runs on the exact denoiser of a mixture, in float64, over a fixed range of the log-SNR, with
more and more steps. Their lengths change smoothly along the run: the points are half way between even steps in the
log-SNR and even steps in the schedule's own time. The command fails if an order is not within 0.2 of the proved one.
"""

from __future__ import annotations

import argparse
import datetime
import math
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from inkdrop.denoiser import Condition, Denoiser, Estimate
from inkdrop.noises import Gaussian
from inkdrop.samplers import (
    DDIM,
    PNDM,
    Adams,
    Adaptive,
    Denoise,
    History,
    Sampler,
    abm,
    deis,
    dpm_2,
    dpm_3,
    dpm_multistep,
    dpmpp_2m,
    dpmpp_2s,
    dpmpp_3m,
    dpmpp_3s,
    heun,
    ipndm,
    lms,
    midpoint,
    unipc,
)
from inkdrop.samplers.base import NoNoise
from inkdrop.samplers.coordinates import Straight
from inkdrop.samplers.quadrature import InTau
from inkdrop.schedules import EDM, VP, LinearInterpolation, Point, Schedule
from inkdrop.time_grids import TimeGrid

SCHEDULES: dict[str, Schedule] = {"VP": VP(), "EDM": EDM(), "flow": LinearInterpolation()}
COUNTS = [64, 128, 256, 512, 1024, 2048]
FLOOR = 5e-13  # of errors, below which they are rounding
BOUND = 0.2


class Mixture(Denoiser):
    """E[x_0 | x_t] for three normal modes in the plane, in float64; counts its calls."""

    MEANS, VARIANCES = ((-1.0, -0.5), (1.0, 0.8), (0.6, -1.2)), (0.3, 0.5, 0.4)

    def __init__(self, schedule: Schedule):
        super().__init__()
        self.schedule, self.noise, self.calls = schedule, Gaussian(), 0
        self.means = torch.tensor(self.MEANS, dtype=torch.float64)
        self.variances = torch.tensor(self.VARIANCES, dtype=torch.float64)

    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        self.calls += 1
        gap = x_t[:, None] - float(now.alpha) * self.means
        power = float(now.alpha) ** 2 * self.variances + float(now.sigma) ** 2  # (K)
        shares = (-gap.square().sum(2) / (2 * power) - power.log()).softmax(1)
        gain = float(now.alpha) * self.variances / power
        return Estimate((shares[:, :, None] * (self.means + gain[:, None] * gap)).sum(1), {})


class Spanning(TimeGrid):
    """Times over a range of half the log-SNR, where noise and data are about equally strong."""

    span: tuple[float, float]

    def __init__(self, num_steps: int):
        self.num_steps = num_steps


def _even(span: tuple[float, float], num_steps: int) -> Tensor:
    return torch.linspace(*span, num_steps + 1, dtype=torch.float64)


class Smooth(Spanning):
    """Half way between even steps in the log-SNR and even steps in t."""

    span = (-1.0, 2.0)

    def __call__(self, schedule: Schedule, t_start: float = 1.0) -> list[float]:
        even = _even(self.span, self.num_steps)
        first, last = schedule.time(2 * even[[0, -1]]).tolist()
        own = schedule.log_snr(_even((first, last), self.num_steps)) / 2
        return schedule.time(even + own).tolist()


class EvenSigma(Spanning):
    """Even in sigma / alpha."""

    span = (0.0, 1.0)

    def __call__(self, schedule: Schedule, t_start: float = 1.0) -> list[float]:
        first, last = (math.exp(-half) for half in self.span)
        return schedule.time(-2 * _even((first, last), self.num_steps).log()).tolist()


class Ends(Spanning):
    """The two ends alone."""

    span = Smooth.span

    def __call__(self, schedule: Schedule, t_start: float = 1.0) -> list[float]:
        return schedule.time(2 * torch.tensor(self.span, dtype=torch.float64)).tolist()


class Solver(NamedTuple):
    """A method, its proved order with its own start, and that with exact slopes at `num_starts` points before."""

    name: str
    method: Callable[[TimeGrid], Sampler]
    own: int
    exact: int | None = None
    num_starts: int = 0


def adams(grid: TimeGrid) -> Sampler:
    """A method without a name: polynomials in tau on the straight path."""
    return Adams(grid, Straight(), InTau(), 3, corrector=3)


# The first step of a multistep method knows one slope, and its error, of the square of its length, happens once: that
# makes order 2 of the whole, or order 3 where a corrector mends it by the slope at its end.
SOLVERS = [
    Solver("euler = ddim", DDIM, 1),
    Solver("heun", heun, 2),
    Solver("midpoint", midpoint, 2),
    Solver("dpm_2", dpm_2, 2),
    Solver("dpm_3", dpm_3, 3),
    Solver("dpmpp_2s", dpmpp_2s, 2),
    Solver("dpmpp_3s", dpmpp_3s, 3),
    Solver("lms, order 2", partial(lms, order=2), 2),
    Solver("lms, order 3", partial(lms, order=3), 2, 3, 2),
    Solver("lms, order 4", partial(lms, order=4), 2, 4, 3),
    Solver("deis, order 2", partial(deis, order=2), 2),
    Solver("deis, order 3", partial(deis, order=3), 2, 3, 2),
    Solver("dpm_multistep, order 2", partial(dpm_multistep, order=2), 2),
    Solver("dpm_multistep, order 3", partial(dpm_multistep, order=3), 2, 3, 2),
    Solver("dpmpp_2m", dpmpp_2m, 2),
    Solver("dpmpp_3m", dpmpp_3m, 2, 3, 2),
    Solver("unipc, order 1", partial(unipc, order=1), 2),
    Solver("unipc, order 2", partial(unipc, order=2), 3, 3, 2),
    Solver("unipc, order 3", partial(unipc, order=3), 3, 4, 3),
    Solver("adams in tau", adams, 3, 3, 3),
    Solver("abm", abm, 3, 3, 2),
    Solver("ipndm, order 4", partial(ipndm, order=4), 2, 2, 3),
    Solver("pndm", PNDM, 2, 2, 3),
]
# Adams and Bashforth's weights for even steps keep only two moments of the slope on others: there iPNDM and PNDM are of
# order 2. PNDM's first steps look at the middle in t; where that is not the middle in sigma / alpha they leave order 3.
ON_EVEN_STEPS = [Solver("ipndm, order 4", partial(ipndm, order=4), 2, 4, 3), Solver("pndm", PNDM, 3, 4, 3)]
ON_STRAIGHT_STEPS = [Solver("pndm", PNDM, 4, 4, 3)]
STRAIGHT: dict[str, Schedule] = {"EDM, rho = 1": EDM(rho=1.0)}


def starts(half: float) -> Tensor:
    """x / alpha (B, 2) at half the log-SNR, about as likely as data with their noise."""
    generator = torch.Generator().manual_seed(3)
    return math.hypot(1, math.exp(-half)) * torch.randn(8, 2, dtype=torch.float64, generator=generator)


def flow(denoiser: Denoiser, z: Tensor, start: float, end: float) -> Tensor:
    """The exact x / alpha (B, 2) at half log-SNR `end` from that at `start`: d z = (x_0 - z) d half."""

    def slope(half: float, values: np.ndarray) -> np.ndarray:
        r = math.hypot(1, math.exp(-half))
        now = Point(math.nan, 1 / r, math.exp(-half) / r, half, math.nan)
        here = torch.from_numpy(values).reshape(z.shape)
        return (denoiser(here / r, now, {}).x_0 - here).flatten().numpy()

    solution = solve_ivp(slope, (start, end), z.flatten().numpy(), "DOP853", rtol=3e-14, atol=1e-15)
    return torch.from_numpy(solution.y[:, -1]).reshape(z.shape)


def run(sampler: Sampler, denoiser: Denoiser, num_starts: int = 0) -> Tensor:
    """x / alpha (B, 2) at the end of the grid, from exact values and slopes at the first `num_starts` points."""
    points = denoiser.schedule.points(sampler.time_grid(denoiser.schedule))
    z = starts(float(points[0].half))
    history: History = ()
    for now, next in pairwise(points[: num_starts + 1]):
        x = z * now.alpha
        history = ((now, slope(sampler, x, denoiser(x, now, {}).x_0, now)), *history)
        z = flow(denoiser, z, float(now.half), float(next.half))
    x = z * points[num_starts].alpha
    denoise = Denoise(denoiser, {})
    for now, next in pairwise(points[num_starts:]):
        transition, history = sampler.step(denoise, x, now, next, NoNoise(), history)
        x = transition.mean
    return x / points[-1].alpha


def slope(sampler: Sampler, x: Tensor, x_0: Tensor, now: Point) -> Tensor:
    """What a multistep method remembers of a point."""
    assert isinstance(sampler, Adams | PNDM)
    return sampler.coordinate.slope(x, x_0, now)


def exact_end(denoiser: Denoiser, span: tuple[float, float]) -> Tensor:
    """The exact x / alpha (B, 2) at the end of a range."""
    return flow(denoiser, starts(span[0]), *span)


def rms(difference: Tensor) -> float:
    """Root of the mean square."""
    return float(difference.square().mean().sqrt())


def errors(
    method: Callable[[TimeGrid], Sampler],
    grid: type[Spanning],
    schedule: Schedule,
    counts: Sequence[int],
    num_starts: int = 0,
) -> Iterator[float]:
    """The error of x / alpha at the end for each number of steps, as long as it is not rounding."""
    denoiser = Mixture(schedule)
    exact = exact_end(denoiser, grid.span)
    for count in counts:
        error = rms(run(method(grid(count)), denoiser, num_starts) - exact)
        if error < FLOOR:
            return
        yield error


def measured(solver: Solver, grid: type[Spanning], schedule: Schedule, counts: Sequence[int], num_starts: int) -> float:
    """The order between the last two numbers of steps whose errors are not rounding."""
    *_, last, this = errors(solver.method, grid, schedule, counts, num_starts)
    return math.log2(last / this)


def orders(
    solvers: Sequence[Solver], grid: type[Spanning], schedules: dict[str, Schedule], counts: Sequence[int]
) -> bool:
    """Prints a table, and says whether all orders are the proved ones."""
    columns = [*("proved", *schedules), *("proved, exact start", *schedules)]
    print(f"| solver | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}", flush=True)
    right = True
    for solver in solvers:
        cells: list[str] = []
        for proved, num_starts in ((solver.own, 0), (solver.exact, solver.num_starts)):
            if proved is None:
                cells += [""] * (1 + len(schedules))
                continue
            found = [measured(solver, grid, schedule, counts, num_starts) for schedule in schedules.values()]
            right &= all(abs(order - proved) <= BOUND for order in found)
            cells += [str(proved), *(f"{order:.2f}" for order in found)]
        print(f"| {solver.name} | {' | '.join(cells)} |", flush=True)
    print()
    return right


def tolerances(schedules: dict[str, Schedule]) -> None:
    """Prints the error of the adaptive solver against its tolerance, with its calls."""
    print(f"| solver | tolerance | {' | '.join(f'{name}: error | calls' for name in schedules)} |")
    print(f"|---|---|{'---|' * (2 * len(schedules))}")
    for solver in ("bosh3", "dopri5", "dopri8"):
        for tolerance in (1e-2, 1e-4, 1e-6, 1e-8):
            cells: list[str] = []
            for schedule in schedules.values():
                denoiser = Mixture(schedule)
                exact, denoiser.calls = exact_end(denoiser, Ends.span), 0
                error = rms(run(Adaptive(Ends(1), tolerance, tolerance, solver), denoiser) - exact)
                cells += [f"{error:.1e}", str(denoiser.calls)]
            print(f"| {solver} | {tolerance:.0e} | {' | '.join(cells)} |", flush=True)
    print()


def from_to(span: tuple[float, float]) -> str:
    """A range in words."""
    return f"log(alpha / sigma) from {span[0]:g} to {span[1]:g}"


def main() -> None:
    """Prints the tables, and fails if an order is not the proved one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=COUNTS, help="numbers of steps, each double the last")
    counts, begun = parser.parse_args().counts, time.perf_counter()
    torch.set_num_threads(1)
    print(f"{datetime.date.today()}, {platform.machine()} {platform.system()}, torch {torch.__version__}, float64\n")
    print(f"Order of the error of x, by the last two of {counts} steps above rounding; {from_to(Smooth.span)}.\n")
    right = orders(SOLVERS, Smooth, SCHEDULES, counts)
    print(f"On steps even in sigma / alpha; {from_to(EvenSigma.span)}.\n")
    right &= orders(ON_EVEN_STEPS, EvenSigma, SCHEDULES, counts)
    print("The same where sigma / alpha is proportional to t.\n")
    right &= orders(ON_STRAIGHT_STEPS, EvenSigma, STRAIGHT, counts)
    print(f"Adaptive steps: error of x and calls, {from_to(Ends.span)}.\n")
    tolerances(SCHEDULES)
    print(f"{time.perf_counter() - begun:.0f} seconds. All orders as proved: {'yes' if right else 'no'}.")
    sys.exit(int(not right))


if __name__ == "__main__":
    main()
