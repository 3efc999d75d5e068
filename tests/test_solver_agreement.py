"""Solvers against the schedulers of diffusers on the same denoiser, grid and noise."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from analytic import SCHEDULES, GivenNoise, mixture
from solver_runs import (
    COUNT,
    NUM_STEPS,
    SCHEDULE,
    TO_THE_END,
    WARNINGS,
    Halved,
    Levels,
    difference,
    eps_of,
    increments,
    levels_of,
    on_the_table,
    ours,
    pndm,
    point,
    prepared,
    start,
    theirs,
)

from inkdrop.samplers import (
    DDIM,
    PNDM,
    Adams,
    Ancestral,
    Sampler,
    deis,
    dpm_2,
    dpm_multistep,
    dpmpp_2m,
    dpmpp_2s,
    heun,
    ipndm,
    lms,
    unipc,
)
from inkdrop.samplers.coordinates import Data, Noise
from inkdrop.samplers.quadrature import InLogSNR, Middle
from inkdrop.time_grids import Leading, TimeGrid

pytestmark = WARNINGS


def every(step: int, levels: list[float]) -> list[float]:
    """Each `step`-th level from the first on, and the last."""
    return [*levels[:-1:step], levels[-1]]


Method = Callable[[TimeGrid], Sampler]
# The scheduler, its options, calls per step, and our method. Where the last step goes to sigma = 0, both make it of
# order 1; the methods for eps have to stop at the smallest noise level of the table instead.
AGREEING: dict[str, tuple[str, dict[str, Any], int, Method]] = {
    "euler": ("EulerDiscreteScheduler", {}, 1, DDIM),
    "euler, karras": ("EulerDiscreteScheduler", {"use_karras_sigmas": True}, 1, DDIM),
    "heun": ("HeunDiscreteScheduler", {}, 2, heun),
    "heun, karras": ("HeunDiscreteScheduler", {"use_karras_sigmas": True}, 2, heun),
    "dpm-2": ("KDPM2DiscreteScheduler", {}, 2, dpm_2),
    "lms": ("LMSDiscreteScheduler", {}, 1, partial(lms, order=4)),
    "dpm++ 1": ("DPMSolverMultistepScheduler", {"solver_order": 1}, 1, DDIM),
    "dpm++ 2m": ("DPMSolverMultistepScheduler", {}, 1, dpmpp_2m),
    "dpm++ 2m, karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}, 1, dpmpp_2m),
    "dpm++ 2m, heun": (
        "DPMSolverMultistepScheduler",
        {"solver_type": "heun"},
        1,
        lambda grid: Adams(grid, Data(), InLogSNR(), 2),
    ),
    "dpm++ 3m, its second difference halved": (
        "DPMSolverMultistepScheduler",
        {"solver_order": 3, "solver_type": "heun"},
        1,
        lambda grid: Adams(grid, Data(), Halved(), 3),
    ),
    "dpm 2m": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "dpmsolver", **TO_THE_END},
        1,
        partial(dpm_multistep, order=2),
    ),
    "dpm 3m, its second difference halved": (
        "DPMSolverMultistepScheduler",
        {"algorithm_type": "dpmsolver", "solver_order": 3, "solver_type": "heun", **TO_THE_END},
        1,
        lambda grid: Adams(grid, Noise(), Halved(), 3),
    ),
    "dpm++ 2s": ("DPMSolverSinglestepScheduler", {"use_exponential_sigmas": True}, 2, dpmpp_2s),
    "unipc 2": ("UniPCMultistepScheduler", {}, 1, partial(unipc, order=2)),
    "unipc 3": ("UniPCMultistepScheduler", {"solver_order": 3, **TO_THE_END}, 1, partial(unipc, order=3)),
    "unipc 2 of eps": (
        "UniPCMultistepScheduler",
        {"predict_x0": False, **TO_THE_END},
        1,
        lambda grid: Adams(grid, Noise(), Middle(), 2, corrector=3),
    ),
    "deis 1": ("DEISMultistepScheduler", {"solver_order": 1}, 1, DDIM),
    "deis 2": ("DEISMultistepScheduler", {}, 1, partial(deis, order=2)),
    "deis 3": ("DEISMultistepScheduler", {"solver_order": 3}, 1, partial(deis, order=3)),
}


@pytest.mark.parametrize("name", AGREEING)
def test_trajectories_equal_those_of_diffusers(name: str) -> None:
    scheduler_name, options, calls, method = AGREEING[name]
    scheduler = prepared(scheduler_name, **options)
    denoiser = mixture(SCHEDULE)
    their = theirs(scheduler, denoiser)
    our = ours(method(Levels(every(calls, levels_of(scheduler)))), denoiser)
    assert difference(our, their) < 1e-4


@pytest.mark.parametrize("solver_type", ["midpoint", "heun"])
def test_2m_sde_equals_that_of_diffusers_on_the_same_brownian_path(solver_type: str) -> None:
    scheduler = prepared("DPMSolverMultistepScheduler", algorithm_type="sde-dpmsolver++", solver_type=solver_type)
    denoiser, grid = mixture(SCHEDULE), Levels(levels_of(scheduler))
    rule = {"midpoint": Middle(), "heun": InLogSNR()}[solver_type]
    their = theirs(scheduler, denoiser, increments(grid))
    assert difference(ours(Adams(grid, Data(eta=1.0), rule, 2), denoiser), their) < 1e-4


@pytest.mark.parametrize("method", [partial(DDIM, eta=1.0), Ancestral], ids=["ddim", "ancestral"])
def test_euler_ancestral_equals_that_of_diffusers(method: Method) -> None:
    scheduler, denoiser = prepared("EulerAncestralDiscreteScheduler"), mixture(SCHEDULE)
    their = theirs(scheduler, denoiser, generator=torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    noises = [torch.randn(COUNT, 2, dtype=torch.float64, generator=generator) for _ in range(NUM_STEPS - 1)]
    our = ours(method(Levels(levels_of(scheduler))), denoiser, GivenNoise(noises))
    assert not noises
    assert difference(our, their) < 1e-4


def test_pndm_equals_that_of_diffusers() -> None:
    denoiser = mixture(SCHEDULES["linear_beta"])
    our = ours(PNDM(Leading(20)), denoiser)
    assert difference(our, on_the_table(pndm("leading", 20), denoiser)) < 1e-4


def test_ipndm_equals_that_of_diffusers() -> None:
    """On a grid of ours: its own begins at alpha = 0, where it takes x_0 for 0 and drops what the network says."""
    levels = [*np.geomspace(80.0, 0.01, NUM_STEPS).tolist(), 0.0]
    scheduler = diffusers.IPNDMScheduler(trained_betas=[point(level).sigma for level in levels])
    scheduler.set_timesteps(NUM_STEPS)
    denoiser, x, their = mixture(SCHEDULE), start() * point(80.0).sigma, []
    for level, timestep in zip(levels[:-1], scheduler.timesteps, strict=True):
        now = point(level)
        their.append((level, x))
        v = (eps_of(denoiser, x, level) - now.sigma * x) / now.alpha
        x = scheduler.step(v, timestep, x).prev_sample
    assert difference(ours(ipndm(Levels(levels), order=4), denoiser), [*their, (0.0, x)]) < 1e-4
