"""Time grids against diffusers' spacings."""

import itertools

import pytest
import torch
from analytic import ALL_SCHEDULES, SCHEDULES, BatchGaussian, mixture, sample, sliced_w1
from diffusers import DDIMScheduler

from inkdrop.samplers import heun
from inkdrop.schedules import EDM
from inkdrop.time_grids import Churn, Leading, Linspace, LogSNR, TimeGrid, Trailing

GRIDS = {"leading": Leading, "trailing": Trailing, "linspace": Linspace}


@pytest.mark.parametrize("num_steps", [10, 50, 1000])
@pytest.mark.parametrize("spacing", GRIDS)
def test_timesteps_equal_those_of_diffusers(spacing: str, num_steps: int) -> None:
    scheduler = DDIMScheduler(1000, timestep_spacing=spacing)
    scheduler.set_timesteps(num_steps)
    *times, last = GRIDS[spacing](num_steps)(SCHEDULES["linear_beta"])
    assert [round(t * 1000) - 1 for t in times] == scheduler.timesteps.tolist()
    assert last == 0


@pytest.mark.parametrize("grid", [Leading(7), Trailing(7), Linspace(7)], ids=["leading", "trailing", "linspace"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_grids_descend_from_t_start_to_zero(grid: TimeGrid, name: str) -> None:
    for t_start in (1.0, 0.4):
        times = grid(SCHEDULES[name], t_start)
        assert len(times) == 8
        assert all(a > b for a, b in itertools.pairwise(times))
        assert times[-1] == 0
        assert times[0] <= t_start + 1e-12
    assert grid(SCHEDULES["vp"])[0] == (1.0 if not isinstance(grid, Leading) else pytest.approx(6 / 7 + 1e-3))


def test_more_steps_than_the_table_has_are_refused() -> None:
    with pytest.raises(ValueError, match="num_steps=1001"):
        Trailing(1001)(SCHEDULES["linear_beta"])
    assert len(Trailing(1000)(SCHEDULES["vp"])) == 1001


def test_times_below_those_of_training_are_refused() -> None:
    assert EDM().t_min == pytest.approx(0.22, abs=0.01)
    with pytest.raises(ValueError, match="time_grid=linspace"):
        Trailing(50)(EDM())
    assert min(Linspace(50)(EDM())[:-1]) == pytest.approx(EDM().t_min)


@pytest.mark.parametrize("name", ["cosine", "vp", "linear", "edm", "laplace", "ve"])
def test_even_steps_in_the_log_snr(name: str) -> None:
    schedule = ALL_SCHEDULES[name]
    first, *times, last = LogSNR(20, highest=6.0, lowest=-7.0)(schedule)
    assert (first, last) == (1.0, 0.0)
    start = max(float(schedule.log_snr(torch.ones(1).double())), -7.0)
    values = schedule.log_snr(torch.tensor(times, dtype=torch.float64))
    tolerance = 0.05 if schedule.num_timesteps else 1e-6  # a table is met on its own steps
    assert torch.allclose(values, torch.linspace(start, 6, 20).double()[1:], atol=tolerance)


def test_churn_raises_the_noise_level_by_its_factor() -> None:
    times = Churn(Linspace(10), s_churn=3.0)(EDM())
    levels = EDM().sigma(torch.tensor(times[:-1], dtype=torch.float64)).tolist()
    ratios = [b / a for a, b in itertools.pairwise(levels) if b > a]
    assert ratios == pytest.approx(9 * [1.3], abs=1e-12)  # all but the first step, which begins at the highest level


def test_heun_on_the_cosine_table_needs_such_steps() -> None:
    """Even times overshoot at t = 1, where the cosine's log-SNR runs away; even log-SNRs give the law."""
    denoiser = mixture(ALL_SCHEDULES["cosine"], BatchGaussian())
    exact = denoiser.draw(4000)
    distance = sliced_w1(sample(denoiser, heun(LogSNR(20)), 4000), exact)
    assert distance < 0.06
    assert sliced_w1(sample(denoiser, heun(Trailing(20)), 4000), exact) > 2 * distance
