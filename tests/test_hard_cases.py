"""The hard cases that the core interfaces must carry, each a small but real method on a mixture.

None of them touches the sampling loop: churn, restart and resampling are time grids, a corrector is `stay`, a condition
on a part of x is a constraint, what remembers or limits estimates wraps the denoiser, a learned variance is an extra.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pytest
import torch
from analytic import SCHEDULES, BatchGaussian, ExactDenoiser, mixture, sample, sliced_w1, source
from torch import Tensor

from inkdrop.constraints import Constraint, Transition
from inkdrop.denoiser import Condition, Denoiser, Estimate, Wrapper
from inkdrop.deviations import large, small
from inkdrop.guidance import Clip
from inkdrop.noises import Draw
from inkdrop.samplers import DDIM, Ancestral, PredictorCorrector, Sampler, heun, towards
from inkdrop.schedules import VP, Point, Scalar, Schedule
from inkdrop.time_grids import Churn, Restart, Trailing

COUNT = 6000


# Up-moves ------------------------------------------------------------------------------------------------------------


def w1(denoiser: ExactDenoiser, sampler: Sampler) -> float:
    return sliced_w1(sample(denoiser, sampler, COUNT), denoiser.draw(COUNT, 1))


@pytest.mark.slow
def test_heun_with_churn_keeps_the_law() -> None:
    denoiser = mixture(SCHEDULES["vp"], BatchGaussian())
    floor = sliced_w1(denoiser.draw(COUNT, 2), denoiser.draw(COUNT, 1))
    assert w1(denoiser, heun(Churn(Trailing(60), s_churn=12.0))) < floor + 0.02


def test_restart_mends_a_coarse_grid() -> None:
    denoiser = mixture(SCHEDULES["vp"], BatchGaussian(), spread=3)
    plain, restarted = w1(denoiser, DDIM(Trailing(8))), w1(denoiser, DDIM(Restart(Trailing(8), 0.33, 4.0, 1, 5)))
    assert restarted < 0.95 * plain


# Staying -------------------------------------------------------------------------------------------------------------


def test_langevin_correction_mends_a_coarse_grid() -> None:
    denoiser = mixture(SCHEDULES["vp"], BatchGaussian())
    plain = w1(denoiser, PredictorCorrector(Trailing(8), DDIM, 0, 0.4))
    assert plain == pytest.approx(w1(denoiser, DDIM(Trailing(8))))
    assert w1(denoiser, PredictorCorrector(Trailing(8), DDIM, 4, 0.4)) < 0.8 * plain


# Starting from data, and going back ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_starting_from_noised_data_keeps_the_law_and_the_neighbourhood() -> None:
    denoiser = mixture(VP(t_min=1e-4), BatchGaussian())
    data = denoiser.draw(COUNT, 5)
    floor = sliced_w1(denoiser.draw(COUNT, 2), denoiser.draw(COUNT, 1))
    distances = []
    for t_start in (0.1, 0.3, 1.0):
        edited = sample(denoiser, Ancestral(Trailing(120)), COUNT, data=data, t_start=t_start)
        assert sliced_w1(edited, denoiser.draw(COUNT, 1)) < floor + 0.025
        distances.append((edited - data).norm(dim=1).mean().item())
    assert distances[0] < distances[1] < distances[2]


@pytest.mark.many
@pytest.mark.parametrize("name", ["vp", "linear_beta", "linear"])
@pytest.mark.parametrize(
    ("sampler", "error"), [(DDIM(Trailing(200)), 0.06), (heun(Trailing(200)), 5e-3)], ids=["ddim", "heun"]
)
@pytest.mark.parametrize("t_end", [0.5, 1.0])
def test_inversion_comes_back(sampler: Sampler, error: float, t_end: float, name: str) -> None:
    denoiser = mixture(SCHEDULES[name])
    x_0 = denoiser.draw(64)
    eps = sampler.invert(denoiser, x_0, {}, t_end)
    back = sampler(denoiser, eps, {}, source(64, denoiser.noise), t_start=t_end)
    assert (back - x_0).abs().mean() < error
    if t_end == 1.0:
        assert 0.85 < eps.std() < 1.15


def test_inversion_of_a_stochastic_method_is_refused() -> None:
    for sampler in (DDIM(Trailing(5), eta=0.5), Ancestral(Trailing(5))):
        with pytest.raises(ValueError, match="eta = 0"):
            sampler.invert(mixture(SCHEDULES["vp"]), torch.zeros(1, 2).double(), {})


# Wrappers and extras -------------------------------------------------------------------------------------------------


class SelfConditioned(Wrapper):
    """Tells the denoiser its own last estimate under `concat`, zeros at first, following every choice of rows."""

    def __init__(self, denoiser: Denoiser):
        super().__init__(denoiser)
        self.last: Tensor | None = None

    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        last = torch.zeros_like(x_t) if self.last is None else self.last
        estimate = self.denoiser(x_t, now, {**cond, "concat": last})
        self.last = estimate.x_0
        return estimate

    def select(self, index: Tensor) -> None:
        super().select(index)
        self.last = None if self.last is None else self.last[index]


class Named(Denoiser):
    """Estimates carry the row's name, the second coordinate of x, so that a mix-up of rows shows."""

    def __init__(self, schedule: Schedule):
        super().__init__()
        self.schedule, self.noise, self.calls = schedule, BatchGaussian(), 0

    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        name = (x_t[:, 1] / now.alpha).round()
        expected = torch.zeros_like(name) if self.calls == 0 else name
        assert torch.equal(cond["concat"][:, 1], expected)
        assert torch.equal(cond["label"], name)
        self.calls += 1
        return Estimate(torch.stack([torch.zeros_like(name), name], 1), {})


class Reverse(Constraint):
    """Turns the batch round at every step, and leaves the names as they are noise-free."""

    def start(self, x: Tensor, points: Sequence[Point], noise: Draw) -> Tensor:
        return torch.stack([x[:, 0], points[0].alpha * torch.arange(len(x)).double()], 1)

    def apply(
        self, transition: Transition, now: Point, next: Point, noise: Draw, estimate: Estimate | None
    ) -> tuple[Tensor, Tensor | None]:
        index = torch.arange(len(transition.mean)).flip(0)
        names = transition.mean[:, 1] - transition.mean[:, 1] + next.alpha * self._names(transition, now, next)
        return torch.stack([transition.mean[:, 0], names], 1)[index], index

    def _names(self, transition: Transition, now: Point, next: Point) -> Tensor:
        return (transition.mean[:, 1] / next.alpha).round()


def test_self_conditioning_follows_its_rows_and_starts_afresh() -> None:
    schedule = SCHEDULES["vp"]
    labels = torch.arange(5).double()
    for _ in range(2):
        inner = Named(schedule)
        eps = torch.zeros(5, 2).double()
        DDIM(Trailing(6))(
            SelfConditioned(inner), eps, {"label": labels}, source(5, BatchGaussian()), constraint=Reverse()
        )
        assert inner.calls == 6


def test_clamp_limits_the_estimate_and_only_that() -> None:
    denoiser = mixture(SCHEDULES["vp"])
    clamped = Clip(-0.5, 0.5)(denoiser, None, {})  # type: ignore[arg-type]
    now = denoiser.schedule.points([0.2])[0]
    x = torch.randn(100, 2).double()
    plain = denoiser(x, now, {})
    assert plain.x_0.abs().max() > 0.5
    assert torch.equal(clamped(x, now, {}).x_0, plain.x_0.clamp(-0.5, 0.5))
    assert torch.equal(clamped(x, now, {}).extras["posterior_variance"], plain.extras["posterior_variance"])
    assert sample(clamped, DDIM(Trailing(10)), 50).abs().max() <= 0.5


def optimal(now: Point, next: Point, extras: Mapping[str, Tensor]) -> Scalar:
    """The deviation of the exact reverse step's law, from the variance of x_0 given x_t."""
    certain = small(now, next, extras)
    slope = towards(torch.zeros(1), torch.ones(1, dtype=torch.float64), now, next, 1.0).mean.item()
    return (certain**2 + slope**2 * extras["posterior_variance"]).sqrt()


def test_a_learned_variance_is_an_extra_of_the_estimate() -> None:
    denoiser = mixture(SCHEDULES["vp"], BatchGaussian())
    error = {deviation: w1(denoiser, Ancestral(Trailing(10), deviation)) for deviation in (small, large, optimal)}
    assert error[optimal] < error[large]
    assert error[optimal] < 0.7 * error[small]


def test_interpolated_variance_meets_small_and_large() -> None:
    """exp(v log large^2 + (1 - v) log small^2), the form a network learns v of."""
    now, next = SCHEDULES["linear_beta"].points([0.5, 0.4])
    for v, expected in ((0.0, small), (1.0, large)):
        log = v * math.log(large(now, next, {}) ** 2) + (1 - v) * math.log(small(now, next, {}) ** 2)
        assert math.exp(log / 2) == pytest.approx(expected(now, next, {}), rel=1e-13)
