"""Accuracy of solvers for equal numbers of network calls: `python benchmarks/solvers.py` prints the tables.

Deterministic: root mean square distance to the exact solution of the probability-flow ODE, on mixtures that nothing was
chosen on (`--tuning`: on those that choices were made on). For each mixture, schedule and number of calls the best of
all peer configurations stands against one default; geometric means of the ratios are over mixtures. `--stochastic`:
sliced W2 to the exact law. `--calibrated`: fitted steps at 4 to 6 calls. `--overhead`: time of a step of whole
samplers, with a trivial network through the denoiser of a model. `solver_peers.py` says what peers need.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from statistics import geometric_mean, mean, stdev
from typing import Any

import solver_peers
import torch
from solver_problems import SCHEDULES, Mixture, Problem, held_out, problems, tuning
from torch import Tensor, nn

from inkdrop.calibration import calibrate
from inkdrop.denoiser import NetworkDenoiser
from inkdrop.noises import Gaussian, Noise, NoiseSource
from inkdrop.predictions import NoisePrediction
from inkdrop.randomness import Generators
from inkdrop.samplers import DDIM, Calibrated, Sampler, abm, adams_sde, dpmpp_2m, unipc
from inkdrop.schedules import linear_beta
from inkdrop.time_grids import Centred, Explicit, LogSNR, Trailing

centred = partial(Centred, centre=0.47, width=1.5)  # as in conf/time_grid/centred.yaml
CALLS = (5, 8, 10, 15, 20, 30, 50)
GROUPS: dict[str, tuple[int, ...]] = {"5, 8": (5, 8), "10 to 50": (10, 15, 20, 30, 50)}
Cell = tuple[str, str, int]  # mixture, schedule, calls
Sample = Callable[[int, int], Tensor]  # (calls, seed) -> x_0


def main() -> None:
    """Prints the tables that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tuning", action="store_true", help="the mixtures that choices were made on")
    parser.add_argument("--only", nargs="+", metavar="MIXTURE", help="these mixtures alone")
    parser.add_argument("--schedules", nargs="+", choices=list(SCHEDULES), default=list(SCHEDULES))
    parser.add_argument("--all", action="store_true", help="every peer configuration in 64 dimensions too (hours)")
    parser.add_argument("--count", type=int, default=256, help="trajectories in 64 dimensions; twice as many in 2")
    parser.add_argument("--stochastic", action="store_true")
    parser.add_argument("--calibrated", action="store_true")
    parser.add_argument("--num-samples", type=int, default=10_000, help="of a stochastic sampler; in the plane x 10")
    parser.add_argument("--seeds", type=int, default=24, help="of a stochastic sampler, at most")
    parser.add_argument("--overhead", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    mixtures = tuning() if options.tuning else held_out()
    if unknown := set(options.only or []) - set(mixtures):
        parser.error(f"no mixture is called {unknown.pop()!r}: there are {', '.join(map(repr, mixtures))}")
    mixtures = {name: mixture for name, mixture in mixtures.items() if not options.only or name in options.only}
    if options.overhead:
        print_overhead()
    elif options.calibrated:
        print_calibrated(problems(mixtures, options.schedules, options.count, seed=7))
    elif options.stochastic:
        print_stochastic(mixtures, options.schedules, options.num_samples, options.seeds)
    else:
        print_deterministic(problems(mixtures, options.schedules, options.count, seed=7), options.all)


# Deterministic --------------------------------------------------------------------------------------------------------


def peer_errors(
    problem: Problem, kind: str, complete: bool, budgets: Sequence[int] = CALLS
) -> dict[tuple[str, int], float]:
    """Root mean square error of each peer configuration and number of calls, of those that keep to the number."""
    errors = {}
    for name, (first, solve) in solver_peers.configurations(kind, *problem.ends).items():
        if complete or problem.eps.shape[1] == 2 or solver_peers.contends(name):
            for calls in budgets:
                problem.mixture.calls = 0
                error = problem.error(solve(problem.denoise, first * problem.eps, calls))
                if problem.mixture.calls <= calls and math.isfinite(error):
                    errors[name, calls] = error
    return errors


def best(errors: dict[tuple[str, int], float], calls: int, allowed: Callable[[str], bool]) -> tuple[float, str]:
    """The smallest error among the allowed configurations, and its name."""
    return min((error, name) for (name, number), error in errors.items() if number == calls and allowed(name))


class OneStream(Noise):
    """Normal noise for the whole batch from the stream of its first row."""

    def __call__(self, shape: Iterable[int], generators: Generators, dtype: torch.dtype = torch.float32) -> Tensor:
        generator = torch.Generator().manual_seed(int(generators.keys[0]))
        return torch.randn(len(generators), *shape, dtype=dtype, generator=generator)


def ours(sampler: Sampler, problem: Problem, seed: int = 0) -> Tensor:
    """x_0 (B, D) by one of our samplers."""
    problem.mixture.schedule = problem.schedule
    seeds = Generators.from_seeds(range(seed * 10**6, seed * 10**6 + len(problem.eps)))
    return sampler(problem.mixture, problem.eps, {}, NoiseSource(OneStream(), seeds))


def print_deterministic(exact: dict[tuple[str, str], Problem], complete: bool) -> None:
    """The table of each cell, then the geometric means."""
    ratios: dict[Cell, float] = {}
    strict: dict[Cell, float] = {}
    print("RMSE of the default x 1e-3 and its ratio to the best peer; the last column names the best at 10 calls\n")
    _row("mixture", "schedule", *CALLS, "best peer at 10")
    _row(*["---"] * (3 + len(CALLS)))
    for (name, kind), problem in exact.items():
        errors = peer_errors(problem, kind, complete)
        cells = []
        for calls in CALLS:
            error = problem.error(ours(abm(centred(calls)), problem))
            ratios[name, kind, calls] = error / best(errors, calls, solver_peers.published)[0]
            strict[name, kind, calls] = error / best(errors, calls, lambda _: True)[0]
            cells.append(f"{error * 1e3:.3g}, {ratios[name, kind, calls]:.2f}")
        _row(name, kind, *cells, best(errors, 10, solver_peers.published)[1])
    print("\nGeometric mean of the ratios; in brackets, with combinations that no peer proposes among the peers\n")
    print_means({**{str(calls): (calls,) for calls in CALLS}, **GROUPS}, ratios, strict)


def print_calibrated(exact: dict[tuple[str, str], Problem]) -> None:
    """Few calibrated steps, fitted to other trajectories, against the best peer."""
    budgets = (4, 5, 6)
    ratios: dict[Cell, float] = {}
    print("RMSE x 1e-3 of calibrated steps, and its ratio to the best peer\n")
    _row("mixture", "schedule", *budgets)
    _row(*["---"] * (2 + len(budgets)))
    for (name, kind), problem in exact.items():
        errors = peer_errors(problem, kind, False, budgets)
        cells = []
        for calls in budgets:
            error = problem.error(ours(_fitted(problem, calls), problem))
            ratios[name, kind, calls] = error / best(errors, calls, solver_peers.published)[0]
            cells.append(f"{error * 1e3:.3g}, {ratios[name, kind, calls]:.2f}")
        _row(name, kind, *cells)
    print("\nGeometric mean of the ratios\n")
    print_means({str(calls): (calls,) for calls in budgets}, ratios)


def _fitted(problem: Problem, calls: int) -> Sampler:
    """A calibration on as many numbers as the command takes, from seeds that the table does not have."""
    dim = problem.eps.shape[1]
    problem.mixture.schedule = problem.schedule
    eps = OneStream()([dim], Generators.from_seeds(range(10**9, 10**9 + max(128, -(-16384 // dim)))), torch.float64)
    found = calibrate(problem.mixture, eps, {}, lambda steps: abm(centred(steps)), calls)
    return Calibrated(Explicit(found.times), found.coefficients)


def print_means(groups: Mapping[str, Sequence[int]], ratios: dict[Cell, float], *others: dict[Cell, float]) -> None:
    """Geometric means over mixtures for groups of numbers of calls, those of other ratios in brackets."""
    kinds = list(dict.fromkeys(kind for _, kind, _ in ratios))
    _row("calls", *kinds, "all")
    _row(*["---"] * (2 + len(kinds)))
    for label, numbers in groups.items():
        cells = []
        for chosen in (*([kind] for kind in kinds), kinds):
            first, *more = (
                geometric_mean(r for (_, kind, calls), r in each.items() if kind in chosen and calls in numbers)
                for each in (ratios, *others)
            )
            cells.append(f"{first:.2f}" + "".join(f" ({other:.2f})" for other in more))
        _row(label, *cells)


def _row(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


# Stochastic -----------------------------------------------------------------------------------------------------------


class SlicedW2:
    """The root mean square over directions of the 2-Wasserstein distance of a mixture's samples to its exact law."""

    def __init__(self, mixture: Mixture, count: int, directions: int = 64):
        generator = torch.Generator().manual_seed(0)
        axes = torch.randn(mixture.means.shape[1], directions, generator=generator, dtype=torch.float64)
        self.axes = axes / axes.norm(dim=0)
        self.quantiles = mixture.quantiles(self.axes, count)

    def __call__(self, x_0: Tensor) -> float:
        """Of as many samples (N, D) as there are quantiles."""
        return float(((x_0 @ self.axes).sort(0).values - self.quantiles).square().mean().sqrt())


def _distances(
    samplers: Mapping[str, Callable[[int], Tensor]], distance: SlicedW2, most: int
) -> dict[str, list[float]]:
    """Distances of each sampler's seeds, from 4 to `most`, until their standard error is below 4%.

    What is twice as far as the nearest with the first seed is left out.
    """
    values = {name: [distance(sample(0))] for name, sample in samplers.items()}
    nearest = min(values.values())[0]
    values = {name: found for name, found in values.items() if found[0] <= 2 * nearest}
    for name, found in values.items():
        while len(found) < most and (len(found) < 4 or standard_error(found) > 0.04 * mean(found)):
            found.append(distance(samplers[name](len(found))))
    return values


def standard_error(values: Sequence[float]) -> float:
    """Of the mean."""
    return stdev(values) / math.sqrt(len(values))


def stochastic_samples(mixture: Mixture, kind: str, count: int) -> dict[str, Sample]:
    """The samplers of the table by name, ours first."""

    def problem(seed: int, number: int = count) -> Problem:
        generator = torch.Generator().manual_seed(seed)
        eps = torch.randn(number, mixture.means.shape[1], generator=generator, dtype=torch.float64)
        return Problem(mixture, SCHEDULES[kind], eps)

    samplers: dict[str, Sample] = {"inkdrop": lambda calls, seed: ours(adams_sde(centred(calls)), problem(seed), seed)}
    for name, (first, solve) in solver_peers.stochastic(kind, *problem(0, 1).ends).items():

        def peer(calls: int, seed: int, first: float = first, solve: Callable[..., Tensor] = solve) -> Tensor:
            torch.manual_seed(seed)
            drawn = problem(seed)
            return solve(drawn.denoise, first * drawn.eps, calls)

        samplers[name] = peer
    return samplers


def print_stochastic(mixtures: dict[str, Mixture], schedules: Sequence[str], count: int, seeds: int) -> None:
    """Sliced W2 at 10 and 20 calls and of exact samples, each with its standard error over seeds."""
    ratios: dict[Cell, float] = {}
    print(f"Sliced W2 x 1e-3 of {count} samples, ten times as many in the plane\n")
    _row("mixture", "schedule", "calls", "exact samples", "inkdrop", "best peer", "its SW2", "ratio")
    _row(*["---"] * 8)
    for name, mixture in mixtures.items():
        number = 10 * count if mixture.means.shape[1] == 2 else count
        distance = SlicedW2(mixture, number)
        exact = _with_error(_distances({"exact": partial(mixture.draw, number)}, distance, seeds)["exact"])
        for kind in schedules:
            samplers = stochastic_samples(mixture, kind, number)
            for calls in (10, 20):
                bound = {label: partial(sample, calls) for label, sample in samplers.items()}
                ours = _distances({"inkdrop": bound.pop("inkdrop")}, distance, seeds)["inkdrop"]
                values = _distances(bound, distance, seeds)
                peer = min(values, key=lambda label: mean(values[label]))
                ratios[name, kind, calls] = mean(ours) / mean(values[peer])
                shown = (_with_error(ours), peer, _with_error(values[peer]), f"{ratios[name, kind, calls]:.2f}")
                _row(name, kind, calls, exact, *shown)
    print("\nGeometric mean of the ratios\n")
    print_means({"10": (10,), "20": (20,)}, ratios)


def _with_error(values: list[float]) -> str:
    return f"{mean(values) * 1e3:.2f} +- {standard_error(values) * 1e3:.2f}"


# Overhead -------------------------------------------------------------------------------------------------------------


class Tenth(nn.Module):
    """A network that puts out a tenth of its input."""

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        return 0.1 * x


SAMPLERS: dict[str, tuple[int, Callable[[int], Sampler]]] = {  # name -> steps, sampler
    "inkdrop DDIM": (50, lambda steps: DDIM(Trailing(steps))),
    "inkdrop DPM++2M": (20, lambda steps: dpmpp_2m(LogSNR(steps))),
    "inkdrop UniPC3": (20, lambda steps: unipc(LogSNR(steps), 3)),
    "inkdrop abm": (20, lambda steps: abm(centred(steps))),
}
PEERS: dict[str, tuple[int, str, dict[str, Any]]] = {  # name -> steps, scheduler of diffusers, its options
    "diffusers DDIM": (50, "DDIMScheduler", {}),
    "diffusers Euler": (50, "EulerDiscreteScheduler", {}),
    "diffusers DPM++2M": (20, "DPMSolverMultistepScheduler", {"solver_order": 2}),
    "diffusers UniPC": (20, "UniPCMultistepScheduler", {"solver_order": 2}),
}


def print_overhead(rounds: int = 25) -> None:
    """CPU microseconds, interleaved, each twice and the second time told, the least of all rounds.

    The network is included, and its own time the last row. Of a step of a whole run, with what each does once per run;
    and of a further step, by a run three times as long.
    """
    x = torch.randn(4, 3, 32, 32)
    builds: dict[str, tuple[int, Callable[[int], Callable[[], object]]]] = {
        **{name: (steps, partial(_ours, x, build)) for name, (steps, build) in SAMPLERS.items()},
        **{name: (steps, partial(_peer, x, kind, given)) for name, (steps, kind, given) in PEERS.items()},
        "the network alone": (50, lambda steps: lambda: [Tenth()(x, x[:, 0, 0, 0]) for _ in range(steps)]),
    }
    runs = {(name, k): build(k * steps) for k in (1, 3) for name, (steps, build) in builds.items()}
    least = dict.fromkeys(runs, math.inf)
    for _ in range(rounds):
        for key, run in runs.items():
            run()  # so that no one's code is still far from the processor
            begin = time.process_time()
            run()
            least[key] = min(least[key], (time.process_time() - begin) * 1e6)
    _row("sampler", "steps", "us a step", "us a further step")
    _row("---", "---", "---", "---")
    for name, (steps, _) in builds.items():
        further = (least[name, 3] - least[name, 1]) / (2 * steps)
        _row(name, steps, f"{least[name, 1] / steps:.1f}", f"{further:.1f}")


def _ours(x: Tensor, build: Callable[[int], Sampler], steps: int) -> Callable[[], object]:
    sampler = build(steps)
    denoiser = NetworkDenoiser(Tenth(), linear_beta(1000, 1e-4, 0.02), NoisePrediction())
    source = NoiseSource(Gaussian(), Generators.from_seeds(range(len(x))))
    return lambda: sampler(denoiser, x, {}, source)


def _peer(x: Tensor, name: str, given: dict[str, Any], steps: int) -> Callable[[], object]:
    """A loop over a scheduler, as diffusers' documentation writes it."""
    import diffusers

    network = Tenth()
    scheduler = getattr(diffusers, name)(beta_start=1e-4, beta_end=0.02, beta_schedule="linear", **given)

    def run() -> Tensor:
        scheduler.set_timesteps(steps)
        y = scheduler.init_noise_sigma * x
        for t in scheduler.timesteps:
            noise = network(scheduler.scale_model_input(y, t), t.expand(len(y)))
            y = scheduler.step(noise, t, y).prev_sample
        return y

    return run


if __name__ == "__main__":
    main()
