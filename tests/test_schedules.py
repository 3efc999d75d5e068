"""Schedules against closed forms, brute force and diffusers."""

import itertools
import math

import pytest
import torch
from analytic import SCHEDULES
from diffusers import DDPMScheduler

from inkdrop.samplers import forward_kernel, towards
from inkdrop.schedules import VP, LinearInterpolation, Schedule, Table, cosine, linear_beta

EVERY = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())
INNER = torch.linspace(0.0007, 0.9995, 997, dtype=torch.float64)


@EVERY
def test_log_snr_falls_and_inverts(schedule: Schedule) -> None:
    log_snr = schedule.log_snr(INNER)
    assert (log_snr.diff() < 0).all()
    assert (schedule.time(log_snr) - INNER).abs().max() < 1e-9


@EVERY
def test_ends(schedule: Schedule) -> None:
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert schedule.alpha(ends)[0] == 1
    assert schedule.sigma(ends)[0] == 0
    assert schedule.log_snr(ends)[0] == math.inf
    assert schedule.sigma(ends)[1] > 0.999
    assert schedule.alpha(ends)[1] < 0.01


@EVERY
def test_log_snr_rate_is_the_derivative(schedule: Schedule) -> None:
    t = torch.linspace(0.0105, 0.9895, 980, dtype=torch.float64)  # inside the intervals of the tables
    width = 1e-6
    slope = (schedule.log_snr(t + width) - schedule.log_snr(t - width)) / (2 * width)
    assert torch.allclose(schedule.log_snr_rate(t), slope, rtol=1e-5)


@EVERY
def test_points_are_floats_equal_to_the_tensors(schedule: Schedule) -> None:
    times = [0.0, 0.25, 0.5, 1.0]
    columns = schedule.point(torch.tensor(times))
    for i, point in enumerate(schedule.points(times)):
        assert all(type(value) is float for value in point)
        assert point == tuple(float(column[i]) for column in columns)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (linear_beta(1000, 1e-4, 0.02), {"beta_schedule": "linear"}),
        (cosine(1000), {"beta_schedule": "squaredcos_cap_v2"}),
    ],
    ids=["linear", "cosine"],
)
def test_tables_equal_those_of_diffusers(ours: Table, theirs: dict[str, str]) -> None:
    alpha_bar = DDPMScheduler(1000, **theirs).alphas_cumprod.double()
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    assert torch.allclose(ours.alpha(t) ** 2, alpha_bar, rtol=2e-4, atol=1e-9)  # theirs are summed in float32
    assert torch.equal(ours.c_noise(t).round(), torch.arange(1000, dtype=torch.float64))


def test_table_is_the_product_of_its_betas() -> None:
    betas = [0.1, 0.2, 0.4]
    table = Table(betas)
    t = torch.tensor([1 / 3, 2 / 3, 1], dtype=torch.float64)
    expected = torch.tensor([0.9, 0.9 * 0.8, 0.9 * 0.8 * 0.6], dtype=torch.float64)
    assert torch.allclose(table.alpha(t) ** 2, expected, rtol=1e-14)
    assert [table.snap(each) for each in (0.0, 0.3, 0.6, 1.0)] == [1 / 3, 1 / 3, 2 / 3, 1]


@pytest.mark.parametrize("schedule", [VP(), *(SCHEDULES[name] for name in ("linear_beta", "cosine"))])
def test_variance_is_preserved(schedule: Schedule) -> None:
    assert torch.allclose(schedule.alpha(INNER) ** 2 + schedule.sigma(INNER) ** 2, torch.ones_like(INNER), rtol=1e-14)


def test_closed_forms() -> None:
    t = torch.tensor([0.3], dtype=torch.float64)
    fine = torch.linspace(0, 0.3, 100_001, dtype=torch.float64)
    area = torch.trapezoid(0.1 + fine * 19.9, fine)
    assert torch.allclose(VP(0.1, 20.0).alpha(t), torch.exp(-area / 2), rtol=1e-9)
    assert LinearInterpolation().alpha(t) == 0.7


@EVERY
def test_one_step_kernels_compose_to_the_marginal(schedule: Schedule) -> None:
    """x_0 through all kernels q(x_t | x_s) in a row is N(alpha x_0, sigma^2)."""
    points = schedule.points([i / 1000 for i in range(1000)])  # t = 1 may have no signal left
    mean, variance = torch.ones(1, dtype=torch.float64), 0.0
    for now, after in itertools.pairwise(points):
        mean, std = forward_kernel(mean, now, after)
        variance = (after.alpha / now.alpha) ** 2 * variance + std**2
        assert mean.item() == pytest.approx(after.alpha, rel=1e-6)
        assert variance == pytest.approx(after.sigma**2, rel=1e-6)


@EVERY
def test_posterior_is_that_of_bayes(schedule: Schedule) -> None:
    """q(x_s | x_t, x_0) from the product of two Gaussian densities in x_s."""
    x_t, x_0 = torch.tensor([0.7, -2.0]).double(), torch.tensor([-0.3, 1.5]).double()
    for s, t in [(0.001, 0.002), (0.1, 0.4), (0.5, 0.501), (0.3, 0.999)]:
        after, now = schedule.points([s, t])
        _, kernel_std = forward_kernel(x_t, after, now)
        ratio = now.alpha / after.alpha
        precision = 1 / after.sigma**2 + ratio**2 / kernel_std**2
        mean = (after.alpha * x_0 / after.sigma**2 + ratio * x_t / kernel_std**2) / precision
        transition = towards(x_t, x_0, now, after, eta=1.0)
        assert torch.allclose(transition.mean, mean, rtol=1e-6, atol=1e-9)
        assert transition.std == pytest.approx(precision**-0.5, rel=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: linear_beta(10, 0.02, 1e-4), "beta_start"),
        (lambda: VP(20.0, 0.1), "beta_min"),
        (lambda: Table([0.1, 1.0]), "betas"),
        (lambda: Table([0.1, math.nan]), "betas"),
        (lambda: Table([]), "betas"),
    ],
)
def test_impossible_schedules_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
