"""Time grids against diffusers' spacings."""

import itertools

import pytest
from analytic import SCHEDULES
from diffusers import DDIMScheduler

from inkdrop.time_grids import Leading, Linspace, TimeGrid, Trailing

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
    assert len(Trailing(1001)(SCHEDULES["vp"])) == 1002
