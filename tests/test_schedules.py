"""Schedules against closed forms, brute force and diffusers."""

import itertools
import math

import pytest
import torch
from analytic import ALL_SCHEDULES, SCHEDULES
from cases import every
from diffusers import DDPMScheduler
from scipy import stats

from inkdrop.samplers import forward_kernel, towards
from inkdrop.schedules import (
    EDM,
    VE,
    VP,
    Interpolated,
    Laplace,
    LinearInterpolation,
    Schedule,
    Shifted,
    SubVP,
    Table,
    ZeroTerminalSNR,
    cosine,
    linear_beta,
    scaled_linear,
    sigmoid,
    sigmoid_beta,
    sqrt,
)
from inkdrop.time_grids import Linspace

NESTED: dict[str, Schedule] = {
    "shifted interpolated": Shifted(Interpolated(VP(), cosine(1000)), 2.0),
    "shifted interpolated shifts": Shifted(Interpolated(Shifted(VP(), 0.5), Shifted(VP(), 4.0)), 3.0),
    "interpolated to less noise": Shifted(Interpolated(VP(), cosine(1000)), 0.5),
    "interpolated zero terminal SNR": Interpolated(VP(), ZeroTerminalSNR(cosine(1000))),
    "shifted zero terminal SNR": Shifted(ZeroTerminalSNR(linear_beta(1000, 1e-4, 0.02)), 2.0),
    "shifted zero terminal SNR of vp": Shifted(ZeroTerminalSNR(VP()), 0.3),
    "zero terminal SNR of a shift": ZeroTerminalSNR(Shifted(VP(), 2.0)),
    "zero terminal SNR of a shifted interpolation": ZeroTerminalSNR(Shifted(Interpolated(VP(), cosine(1000)), 2.0)),
    "interpolated zero terminal SNR of a shifted interpolation": Interpolated(
        ZeroTerminalSNR(Shifted(Interpolated(VP(), VP(0.2)), 2.0)), ZeroTerminalSNR(VP(0.3))
    ),
    "shifted twice": Shifted(Shifted(cosine(1000), 2.0), 3.0),
    "shifted laplace": Shifted(Laplace(), 2.0),
    "shifted ve": Shifted(VE(), 2.0),
    "shifted sub_vp": Shifted(SubVP(), 2.0),
}
EVERY = every(ALL_SCHEDULES)
AND_NESTED = every({**ALL_SCHEDULES, **NESTED})
INNER = torch.linspace(0.0007, 0.9995, 997, dtype=torch.float64)


@pytest.mark.slow
@AND_NESTED
def test_log_snr_falls_and_inverts(schedule: Schedule) -> None:
    log_snr = schedule.log_snr(INNER)
    assert (log_snr.diff() < 0).all()
    assert (schedule.time(log_snr) - INNER).abs().max() < 1e-9


@AND_NESTED
def test_log_snr_is_that_of_signal_and_noise(schedule: Schedule) -> None:
    expected = 2 * (schedule.alpha(INNER).log() - schedule.sigma(INNER).log())
    assert torch.allclose(schedule.log_snr(INNER), expected, rtol=0, atol=1e-8)


@pytest.mark.slow
@AND_NESTED
def test_nothing_of_the_data_is_left_where_the_log_snr_says_so(schedule: Schedule) -> None:
    for times in ([1.0], [0.3, 0.8, 1.0]):  # the last bit of an exponential depends on its neighbours in memory
        end = schedule.points(times)[-1]
        assert (end.alpha == 0) == (end.half == -math.inf)
        if end.alpha == 0:
            assert end.sigma == pytest.approx(1, abs=1e-14)


@pytest.mark.slow
@AND_NESTED
def test_ends(schedule: Schedule) -> None:
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert schedule.alpha(ends)[0] == 1
    assert schedule.sigma(ends)[0] == 0
    assert schedule.log_snr(ends)[0] == math.inf
    assert schedule.log_snr(ends)[1] < -5
    assert schedule.log_snr_rate(ends[1:]) < 0


@every(SCHEDULES)
def test_little_signal_is_left_at_the_end(schedule: Schedule) -> None:
    end = torch.ones(1, dtype=torch.float64)
    assert schedule.sigma(end) > 0.999
    assert schedule.alpha(end) < 0.01


@pytest.mark.slow
@AND_NESTED
def test_rates_are_the_derivatives(schedule: Schedule) -> None:
    t = torch.linspace(0.0105, 0.9895, 980, dtype=torch.float64)  # inside the intervals of the tables
    width = 1e-6
    slope = (schedule.log_snr(t + width) - schedule.log_snr(t - width)) / (2 * width)
    assert torch.allclose(schedule.log_snr_rate(t), slope, rtol=1e-5)
    slope = (schedule.alpha(t + width).log() - schedule.alpha(t - width).log()) / (2 * width)
    assert torch.allclose(schedule.log_alpha_rate(t), slope, rtol=1e-5, atol=1e-7)
    end = torch.ones(1, dtype=torch.float64)
    assert (schedule.log_alpha_rate(end) == -math.inf) == (schedule.alpha(end) == 0)
    assert schedule.log_alpha_rate(end) <= 0
    with torch.inference_mode():
        assert torch.equal(schedule.log_alpha_rate(t.clone()), schedule.log_alpha_rate(t))


def test_an_alpha_that_changes_without_a_gradient_is_not_taken_for_constant() -> None:
    class Looked(LinearInterpolation):
        def alpha(self, t: torch.Tensor) -> torch.Tensor:
            return 1 - t.detach()

    with pytest.raises(ValueError, match="the alpha of Looked has no gradient"):
        Looked().log_alpha_rate(INNER)


@every({str(number): number for number in (*range(1, 401), 1000, 4000)})
def test_a_step_of_a_table_ends_its_own_interval(num_timesteps: int) -> None:
    betas = torch.linspace(1e-4, 0.2, num_timesteps, dtype=torch.float64)
    t = torch.arange(1, num_timesteps + 1, dtype=torch.float64) / num_timesteps
    expected = torch.log1p(-betas) / 2 * num_timesteps
    assert torch.allclose(Table(betas).log_alpha_rate(t), expected, rtol=1e-9)
    alpha = torch.exp(torch.log1p(-betas).cumsum(0) / 2)
    assert torch.allclose(Table(betas).log_snr_rate(t), 2 * expected / (1 - alpha**2), rtol=1e-9)


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
        (
            scaled_linear(1000, 0.00085, 0.012),
            {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        ),
        (sigmoid_beta(1000, 1e-4, 0.02), {"beta_schedule": "sigmoid"}),
        (
            ZeroTerminalSNR(linear_beta(1000, 1e-4, 0.02)),
            {"beta_schedule": "linear", "rescale_betas_zero_snr": True},
        ),
    ],
    ids=["linear", "cosine", "scaled_linear", "sigmoid", "zero terminal SNR"],
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


VARIANCE_PRESERVING = [name for name in ALL_SCHEDULES if name not in ("linear", "shifted", "sub_vp", "ve", "edm")]


@every({name: ALL_SCHEDULES[name] for name in VARIANCE_PRESERVING})
def test_variance_is_preserved(schedule: Schedule) -> None:
    assert torch.allclose(schedule.alpha(INNER) ** 2 + schedule.sigma(INNER) ** 2, torch.ones_like(INNER), rtol=1e-14)


def test_closed_forms() -> None:
    t = torch.tensor([0.3], dtype=torch.float64)
    fine = torch.linspace(0, 0.3, 100_001, dtype=torch.float64)
    beta = 0.1 + fine * 19.9
    area = torch.trapezoid(beta, fine)
    assert torch.allclose(VP(0.1, 20.0).alpha(t), torch.exp(-area / 2), rtol=1e-9)
    assert torch.allclose(SubVP(0.1, 20.0).alpha(t), torch.exp(-area / 2), rtol=1e-9)
    assert torch.allclose(SubVP(0.1, 20.0).sigma(t), 1 - torch.exp(-area), rtol=1e-9)
    assert LinearInterpolation().alpha(t) == 0.7
    # Song's g(t)^2 = d sigma^2 / dt, integrated from 0.
    diffusion = (0.01 * 5000**fine) ** 2 * 2 * math.log(5000)
    assert torch.allclose(VE(0.01, 50.0).sigma(t) ** 2, torch.trapezoid(diffusion, fine), rtol=1e-8)


def test_sub_vp_variance_solves_its_sde() -> None:
    """d var/dt = -beta var + g^2 with Song's g^2 = beta (1 - exp(-2 B)), by small steps of Euler's method."""
    fine = torch.linspace(0, 0.5, 400_001, dtype=torch.float64)
    beta = 0.1 + fine * 19.9
    decay = torch.cat([torch.zeros(1), torch.cumulative_trapezoid(beta, fine)])
    squared_g = beta * (1 - torch.exp(-2 * decay))
    variance = torch.exp(-decay[-1]) * torch.trapezoid(torch.exp(decay) * squared_g, fine)
    assert SubVP().sigma(fine[-1:]).item() ** 2 == pytest.approx(variance.item(), rel=1e-7)


def test_even_times_of_edm_are_the_published_steps() -> None:
    """Karras et al. 2022, equation 5, and the network is told log(sigma) / 4."""
    n, rho = 18, 7
    published = [(80 ** (1 / rho) + i / (n - 1) * (0.002 ** (1 / rho) - 80 ** (1 / rho))) ** rho for i in range(n)]
    points = EDM().points(Linspace(n)(EDM()))
    assert [point.sigma for point in points[:-1]] == pytest.approx(published, rel=1e-9)
    assert [point.c_noise for point in points[:-1]] == pytest.approx([math.log(s) / 4 for s in published], rel=1e-9)
    assert points[-1].sigma == 0


def test_log_snr_of_uniform_times_has_a_laplace_density() -> None:
    t = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    log_snr = Laplace(0.7, 0.5).log_snr(t).numpy()
    assert stats.kstest(log_snr, stats.laplace(0.7, 0.5).cdf).statistic < 1e-4


def test_published_alpha_bars() -> None:
    t = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    ours = sqrt(2000).alpha(t) ** 2
    assert torch.allclose(ours, (1 - (t + 1e-4).sqrt()) / (1 - 0.0001**0.5), rtol=1e-9)

    def rise(t: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid((-3 + 6 * t) / 0.9)

    one = torch.ones(1, dtype=torch.float64)
    expected = (rise(one) - rise(t)) / (rise(one) - rise(0 * one))
    assert torch.allclose(sigmoid(1000, temperature=0.9).alpha(t) ** 2, expected, rtol=1e-9)


def test_shifting_multiplies_noise_by_the_factor_and_is_that_of_stable_diffusion_3() -> None:
    for name in ("vp", "cosine", "ve"):
        inner = ALL_SCHEDULES[name]
        shifted = Shifted(inner, 3.0)
        ratio = shifted.sigma(INNER) / shifted.alpha(INNER)
        assert torch.allclose(ratio, 3 * inner.sigma(INNER) / inner.alpha(INNER), rtol=1e-9), name
    straight = Shifted(LinearInterpolation(), 3.0)
    assert torch.allclose(straight.sigma(INNER), 3 * INNER / (1 + 2 * INNER), rtol=1e-12)
    assert torch.allclose(straight.alpha(INNER) + straight.sigma(INNER), torch.ones_like(INNER), rtol=1e-14)
    assert torch.allclose(straight.c_noise(INNER), 1000 * straight.sigma(INNER), rtol=1e-12)


def test_interpolation_is_between_its_two_ends() -> None:
    start, end = VP(), cosine(1000)
    both = Interpolated(start, end)
    t = torch.tensor([0.2, 0.6], dtype=torch.float64)
    expected = (1 - t) * start.log_snr(t) + t * end.log_snr(t)
    assert torch.allclose(both.log_snr(t), expected, rtol=1e-14)
    assert both.log_snr(torch.ones(1).double()) == end.log_snr(torch.ones(1).double())
    beyond = torch.tensor([1.0001, 1.2], dtype=torch.float64)
    assert torch.equal(both.log_snr(beyond), end.log_snr(beyond))
    assert torch.equal(both.log_snr_rate(beyond), end.log_snr_rate(beyond))
    assert torch.allclose(both.time(end.log_snr(beyond)), beyond, rtol=1e-12)


def test_zero_terminal_snr_leaves_nothing() -> None:
    last = torch.ones(1, dtype=torch.float64)
    for name in ("linear_beta", "vp", "scaled_linear"):
        rescaled = ZeroTerminalSNR(ALL_SCHEDULES[name])
        assert rescaled.alpha(last) == 0
        assert rescaled.sigma(last).item() == pytest.approx(1, abs=1e-14)
        assert rescaled.snap(0.3004) == ALL_SCHEDULES[name].snap(0.3004)
        assert torch.equal(rescaled.c_noise(INNER), ALL_SCHEDULES[name].c_noise(INNER))


@pytest.mark.slow
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
        (lambda: SubVP(20.0, 0.1), "beta_min"),
        (lambda: VE(1.0, 0.5), "sigma_min"),
        (lambda: EDM(1.0, 0.5), "sigma_min"),
        (lambda: scaled_linear(10, 0.02, 1e-4), "beta_start"),
        (lambda: sigmoid_beta(10, 0.02, 1e-4), "beta_start"),
        (lambda: sigmoid(10, 3.0, -3.0), "start"),
        (lambda: ZeroTerminalSNR(VE()), "does not preserve the variance"),
        (lambda: Interpolated(Shifted(VP(), 1e6), VP()), "does not decrease strictly"),
        (lambda: Table([0.1, 1.0]), "betas"),
        (lambda: Table([0.1, math.nan]), "betas"),
        (lambda: Table([]), "betas"),
    ],
)
def test_impossible_schedules_are_refused(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]
