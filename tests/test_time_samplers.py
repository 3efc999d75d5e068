"""The laws of the training times."""

import pytest
import torch
from analytic import SCHEDULES
from scipy import stats

from inkdrop.randomness import Generators
from inkdrop.schedules import linear_beta
from inkdrop.time_samplers import DiscreteUniform, Uniform

GENERATORS = Generators.from_seeds(range(20_000)).at("time")


@pytest.mark.parametrize("name", ["vp", "linear_beta"])
def test_uniform_covers_the_schedule_down_to_its_smallest_time(name: str) -> None:
    schedule = SCHEDULES[name]
    t = Uniform()(schedule, GENERATORS)
    assert t.dtype == torch.float64
    assert t.min() >= schedule.t_min
    assert stats.kstest(t.numpy(), "uniform", (schedule.t_min, 1 - schedule.t_min)).pvalue > 0.01


def test_discrete_draws_every_step_equally_often() -> None:
    t = DiscreteUniform()(linear_beta(10, 1e-3, 0.5), GENERATORS)
    steps, counts = torch.unique((t * 10).round().long(), return_counts=True)
    assert steps.tolist() == list(range(1, 11))
    assert torch.allclose(t, (t * 10).round() / 10, atol=1e-15)
    assert stats.chisquare(counts.numpy()).pvalue > 0.01


def test_a_closed_form_has_no_steps_to_draw() -> None:
    with pytest.raises(ValueError, match="time_sampler=uniform"):
        DiscreteUniform()(SCHEDULES["vp"], GENERATORS)
