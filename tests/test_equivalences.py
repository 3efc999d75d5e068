"""One process in several notations gives the same samples."""

from __future__ import annotations

import itertools

import pytest
import torch
from analytic import ALL_SCHEDULES, mixture
from torch import Tensor

from inkdrop.denoiser import Denoiser
from inkdrop.noises import Gaussian, NoiseSource
from inkdrop.randomness import Generators
from inkdrop.samplers import DDIM, Ancestral, Sampler, heun
from inkdrop.schedules import Schedule
from inkdrop.time_grids import TimeGrid, Trailing

LOG_SNRS = torch.linspace(-9, 9, 40, dtype=torch.float64)
COUNT = 64


class AtLogSNRs(TimeGrid):
    """The times at which the log-SNR has given values, then 0."""

    def __call__(self, schedule: Schedule, t_start: float = 1.0) -> list[float]:
        return [*schedule.time(LOG_SNRS).tolist(), 0.0]


def samples(denoiser: Denoiser, sampler: Sampler) -> Tensor:
    generators = Generators.from_seeds(range(COUNT))
    eps = Gaussian()([2], generators.at("start"), torch.float64)
    return sampler(denoiser, eps, {}, NoiseSource(Gaussian(), generators))


@pytest.mark.parametrize("sampler", [DDIM(AtLogSNRs()), DDIM(AtLogSNRs(), 1.0), heun(AtLogSNRs())])
@pytest.mark.parametrize("name", ["ve", "edm", "sub_vp", "linear", "cosine", "shifted table", "interpolated"])
def test_every_schedule_gives_the_samples_of_vp_after_rescaling(name: str, sampler: Sampler) -> None:
    """x_t / alpha depends on sigma / alpha alone, so the noise of each move included, the data are the same."""
    ours = samples(mixture(ALL_SCHEDULES[name]), sampler)
    vp = samples(mixture(ALL_SCHEDULES["vp"]), sampler)
    assert (ours - vp).abs().max() < 1e-6
    assert vp.std() > 0.5


def test_ancestral_sampling_too() -> None:
    vp, ve = (samples(mixture(ALL_SCHEDULES[name]), Ancestral(AtLogSNRs())) for name in ("vp", "ve"))
    assert (vp - ve).abs().max() < 1e-6


@pytest.mark.parametrize("num_steps", [5, 50])
def test_eulers_method_on_the_straight_path_is_ddim(num_steps: int) -> None:
    """dx/dt = eps - x_0 by Euler's method, written out, against DDIM on the schedule of flow matching."""
    denoiser = mixture(ALL_SCHEDULES["linear"])
    x = Gaussian()([2], Generators.from_seeds(range(COUNT)).at("start"), torch.float64)
    times = torch.linspace(1, 0, num_steps + 1, dtype=torch.float64).tolist()
    for t, s in itertools.pairwise(times):
        x_0 = denoiser(x, denoiser.schedule.points([t])[0], {}).x_0
        velocity = (x - (1 - t) * x_0) / t - x_0
        x = x + (s - t) * velocity
    assert (x - samples(denoiser, DDIM(Trailing(num_steps)))).abs().max() < 1e-10
