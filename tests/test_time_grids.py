"""Time grids against diffusers' spacings."""

import itertools
import math
import random

import pytest
import torch
from analytic import ALL_SCHEDULES, SCHEDULES, BatchGaussian, mixture, sample, sliced_w1
from diffusers import DDIMScheduler, EDMEulerScheduler, FlowMatchEulerDiscreteScheduler, RePaintScheduler

from inkdrop.samplers import heun
from inkdrop.schedules import EDM, VP, Laplace, LinearInterpolation, Schedule, linear_beta
from inkdrop.time_grids import (
    Centred,
    Churn,
    Explicit,
    Karras,
    Leading,
    Linspace,
    LogSNR,
    Quadratic,
    Repeat,
    Resampled,
    Restart,
    Shifted,
    TimeGrid,
    Trailing,
)
from inkdrop.time_grids.base import descending

GRIDS = {"leading": Leading, "trailing": Trailing, "linspace": Linspace}


@pytest.mark.parametrize("num_steps", [10, 50, 1000])
@pytest.mark.parametrize("spacing", GRIDS)
def test_timesteps_equal_those_of_diffusers(spacing: str, num_steps: int) -> None:
    scheduler = DDIMScheduler(1000, timestep_spacing=spacing)
    scheduler.set_timesteps(num_steps)
    *times, last = GRIDS[spacing](num_steps)(SCHEDULES["linear_beta"])
    assert [round(t * 1000) - 1 for t in times] == scheduler.timesteps.tolist()
    assert last == 0


@pytest.mark.parametrize(("steps", "jump", "repeats"), [(20, 1, 10), (20, 3, 2), (25, 5, 4), (8, 2, 1), (10, 20, 5)])
def test_resampled_times_equal_those_of_diffusers(steps: int, jump: int, repeats: int) -> None:
    """Up-moves of diffusers go up step by step, which has the law of one up-move."""
    scheduler = RePaintScheduler(1000)
    scheduler.set_timesteps(steps, jump, repeats)
    theirs = scheduler.timesteps.tolist()
    turns = [t for a, t, b in zip([1001, *theirs], theirs, [*theirs[1:], -1], strict=False) if not a < t < b]
    *times, last = Resampled(Leading(steps), jump, repeats)(SCHEDULES["linear_beta"])
    assert [round(t * 1000) - 1 for t in times] == turns
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


def levels(schedule: Schedule, times: list[float]) -> list[float]:
    """sigma / alpha at times above 0."""
    log_snr = schedule.log_snr(torch.tensor([t for t in times if t > 0], dtype=torch.float64))
    return (-log_snr / 2).exp().tolist()


def even(values: list[float]) -> bool:
    """Whether neighbours are equally far apart."""
    gaps = [b - a for a, b in itertools.pairwise(values)]
    return gaps == pytest.approx([gaps[0]] * len(gaps), rel=1e-6)


@pytest.mark.parametrize("t_start", [1.0, 0.3])
def test_quadratic_steps_are_even_in_the_root_of_t(t_start: float) -> None:
    *times, last = Quadratic(12)(VP(), t_start)
    assert len(times) == 12
    assert (times[0], times[-1], last) == (pytest.approx(t_start), pytest.approx(VP().t_min), 0)
    assert even([t**0.5 for t in times])


def test_karras_steps_are_those_of_the_paper_and_of_diffusers() -> None:
    found = levels(EDM(), Karras(18, sigma_min=0.002, sigma_max=80.0)(EDM()))
    closed = [(80 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7 for i in range(18)]
    assert found == pytest.approx(closed, rel=1e-9)
    scheduler = EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0, rho=7.0)
    scheduler.set_timesteps(18)
    assert found == pytest.approx(scheduler.sigmas[:-1].tolist(), rel=1e-5)  # which are of float32


@pytest.mark.parametrize("rho", [1.0, 3.0])
def test_karras_steps_keep_within_their_ends_on_any_schedule(rho: float) -> None:
    first, *inner = levels(LinearInterpolation(), Karras(10, rho, sigma_min=0.1, sigma_max=5.0)(LinearInterpolation()))
    assert first == math.inf
    assert even([5.0 ** (1 / rho), *(level ** (1 / rho) for level in inner)])
    assert inner[-1] == pytest.approx(0.1)
    trained = levels(LinearInterpolation(), Karras(10, rho)(LinearInterpolation()))
    assert trained[-1] == pytest.approx(1e-3 / (1 - 1e-3))


@pytest.mark.parametrize(("name", "t_start"), [("linear", 1.0), ("vp", 1.0), ("edm", 0.8), ("linear", 0.4)])
def test_centred_steps_are_even_in_their_variable_and_closest_at_the_centre(name: str, t_start: float) -> None:
    schedule, centre, width = ALL_SCHEDULES[name], 0.3, 0.8
    times = Centred(15, centre, width)(schedule, t_start)
    assert len(times) == 16
    assert times[0] == t_start
    found = levels(schedule, [*times[:-1], schedule.t_min])  # 0 stands in the place of the smallest trained time
    logs = [math.log(min(level, 1000.0)) for level in found]
    assert even([math.asinh((log - math.log(centre)) / width) for log in logs])
    gaps = [a - b for a, b in itertools.pairwise(logs)]
    shortest = gaps.index(min(gaps))
    assert logs[shortest] > math.log(centre) - gaps[shortest]
    assert logs[shortest + 1] < math.log(centre) + gaps[shortest]


def test_explicit_times_are_those_from_t_start_on_and_on_the_steps_of_a_table() -> None:
    grid = Explicit([1.0, 0.7004, 0.7, 0.9, 0.0])
    assert grid(VP()) == [1.0, 0.7004, 0.7, 0.9, 0.0]
    assert grid(VP(), 0.8) == [0.7004, 0.7, 0.0]
    assert grid(SCHEDULES["linear_beta"]) == [1.0, 0.7, 0.7, 0.9, 0.0]
    with pytest.raises(ValueError, match=r"must be between 0.001 and 0.1"):
        grid(VP(), 0.1)
    with pytest.raises(ValueError, match="must contain a time above 0"):
        Explicit([0.0])


def test_churn_grows_by_a_limited_factor_within_its_range_and_never_above_the_start() -> None:
    plain = Karras(8)(EDM())
    assert Churn(Karras(8), s_churn=0.0)(EDM()) == plain
    times = Churn(Karras(8), s_churn=1e9)(EDM())
    pairs = [(a, b) for a, b in itertools.pairwise(times[:-1]) if b > a]
    assert len(pairs) == 7
    ratios = [top / bottom for bottom, top in (levels(EDM(), list(pair)) for pair in pairs)]
    assert ratios == pytest.approx(7 * [math.sqrt(2)])
    some = Churn(Karras(8), s_churn=1e9, s_min=0.05, s_max=10.0)(EDM())
    within = [level for level in levels(EDM(), plain) if 0.05 <= level <= 10.0]
    assert len(some) - len(plain) == len(within) < 7
    assert max(Churn(Linspace(50), s_churn=1e9)(VP(), 0.5)) == 0.5


@pytest.mark.parametrize("name", ["vp", "edm", "linear", "linear_beta", "cosine", "shifted table"])
def test_restart_goes_up_and_down_where_it_should(name: str) -> None:
    schedule = ALL_SCHEDULES[name]
    plain = Karras(10)(schedule)
    times = Restart(Karras(10), low=0.1, high=2.0, num_restarts=3, num_steps=4)(schedule)
    place = next(number for number, level in enumerate(levels(schedule, plain)) if level <= 0.1)
    assert times[: place + 1] == plain[: place + 1]
    assert times[place + 1 + 3 * 5 :] == plain[place + 1 :]
    for loop in range(3):
        way = times[place + 5 * loop : place + 5 * loop + 6]
        assert way[0] == way[-1] == plain[place]
        assert way[1] > way[2] > way[3] > way[4] > way[5]
        top = levels(schedule, way[1:])
        assert top[0] == pytest.approx(2.0, rel=1e-6 if schedule.num_timesteps is None else 0.02)
        if schedule.num_timesteps is None:
            assert even([level ** (1 / 7) for level in top])


def test_restart_refuses_ways_without_room() -> None:
    table = SCHEDULES["linear_beta"]
    with pytest.raises(ValueError, match="num_steps=30 of a restart exceeds the schedule's number of steps between"):
        Restart(Linspace(500), 0.1, 0.12, 1, 30)(table)
    with pytest.raises(ValueError, match=r"high=0.11 must be above 0.25, where the grid restarts"):
        Restart(Explicit([1.0, 0.2]), 0.1, 0.11, 1, 3)(LinearInterpolation())
    with pytest.raises(ValueError, match=r"low=2.0 must be below time_grid.high=1.0"):
        Restart(Linspace(5), 2.0, 1.0, 1, 3)
    assert Restart(Linspace(20), 0.5, 2.0, 1, 3)(table, 0.1) == Linspace(20)(table, 0.1)  # it begins below `low`


def test_repeat_stays_at_all_but_the_ends() -> None:
    assert Repeat(Explicit([1.0, 0.6, 0.3]), 2)(VP()) == [1.0, 0.6, 0.6, 0.6, 0.3, 0.3, 0.3, 0.0]
    assert Repeat(Trailing(7), 0)(VP()) == Trailing(7)(VP())


# Nearest steps of ten, and what they become: each of a crowd takes the next free step above, and below where the first
# stands in the way.
CROWDS = [
    ([1.0, 0.7, 0.2], [10, 7, 2]),
    ([1.0, 0.52, 0.51, 0.49, 0.2], [10, 7, 6, 5, 2]),
    ([1.0, 0.62, 0.51, 0.49, 0.2], [10, 7, 6, 5, 2]),
    ([1.0, 0.99, 0.98, 0.5], [10, 9, 8, 5]),
    ([0.32, 0.2, 0.12], [3, 2, 1]),
    ([0.31, 0.3, 0.29], [3, 2, 1]),
]


@pytest.mark.parametrize(("times", "places"), CROWDS)
def test_times_that_meet_on_a_table_are_spread(times: list[float], places: list[int]) -> None:
    assert descending(times, linear_beta(10, 1e-2, 0.5)) == [*(place / 10 for place in places), 0.0]


def test_spread_times_always_fall_or_are_refused() -> None:
    table, choose = linear_beta(12, 1e-2, 0.5), random.Random(0)
    for _ in range(300):
        times = sorted((choose.uniform(0.04, 1.0) for _ in range(choose.randint(1, 10))), reverse=True)
        nearest = [round(table.snap(t) * 12) for t in times]
        if nearest[0] < len(times):
            with pytest.raises(ValueError, match="exceeds the number of steps of the schedule in this range"):
                descending(times, table)
            continue
        places = [round(t * 12) for t in descending(times, table)]
        assert all(a > b for a, b in itertools.pairwise(places))
        assert places[0] <= nearest[0]
        # From a time that is moved to its nearest step all steps between are taken.
        for place, near in zip(places[:-1], nearest, strict=True):
            assert all(step in places for step in range(min(place, near), max(place, near) + 1))


def test_even_steps_meet_both_ends_exactly() -> None:
    """Also where the smallest trained time is close to 0, and never beyond t = 1, where alpha would be negative."""
    for num_steps in (2, 7, 1000):
        assert Linspace(num_steps)(Laplace())[-2] == Laplace().t_min
        assert max(Linspace(num_steps)(LinearInterpolation())) == 1.0


def test_leading_steps_above_the_start_are_refused() -> None:
    with pytest.raises(ValueError, match="above 1: choose time_grid=linspace"):
        Leading(6)(EDM())
    with pytest.raises(ValueError, match=r"lower time_grid.num_steps"):
        Leading(2000)(LinearInterpolation())
    assert Leading(1000)(LinearInterpolation())[0] == pytest.approx(1.0)


def test_explicit_times_begin_with_the_noisiest() -> None:
    with pytest.raises(ValueError, match=r"starts at 0\.25 and exceeds it later"):
        Explicit([0.25, 0.5, 1.0])


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
def test_shifted_times_are_those_of_diffusers_and_begin_at_the_start(shift: float) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])
    assert Shifted(Trailing(4), shift)(LinearInterpolation()) == pytest.approx(scheduler.sigmas.tolist(), abs=1e-6)
    later = Shifted(Trailing(3), shift)(LinearInterpolation(), 0.6)
    assert later[0] == pytest.approx(0.6)
    odds = [t / (1 - t) / shift for t in later[:-1]]  # those of even times
    even = [each / (1 + each) for each in odds]
    assert [each / even[0] for each in even] == pytest.approx([1, 2 / 3, 1 / 3])
    assert later[-1] == 0


def test_a_shift_without_a_time_for_it_is_refused() -> None:
    with pytest.raises(ValueError, match=r"all noise at t = 1, but VP has alpha=0\.00"):
        Shifted(Trailing(4), 3.0)(VP())
    with pytest.raises(ValueError, match=r"time_grid\.shift=1e-05 reaches t = .* raise it"):
        Shifted(Trailing(4), 1e-5)(LinearInterpolation())
