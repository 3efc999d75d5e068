"""Rules for the integral of a slope, against numerical integration, and what the two of our own are for."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
from analytic import SCHEDULES, BatchGaussian, mixture, sample, sliced_w1
from scipy.integrate import quad

from inkdrop.samplers import Adams, abm, adams_sde, dpmpp_3m_sde
from inkdrop.samplers.coordinates import Coordinate, Data, Noise, Straight
from inkdrop.samplers.quadrature import InLogSNR, InShare, InTau, Rule, ToTheEnd
from inkdrop.time_grids import Centred

START, END, NODES = 0.3, 1.4, (0.3, -0.5, -1.6)  # of half the log-SNR
COORDINATES = [Noise(), Data(), Data(1.0), Straight()]


def share(half: float) -> float:
    return 1 / (1 + math.exp(half))


@pytest.mark.parametrize("coordinate", COORDINATES, ids=lambda each: type(each).__name__)
@pytest.mark.parametrize(
    ("rule", "variable"),
    [(InTau(), None), (InLogSNR(), float), (ToTheEnd(), float), (InShare(), share)],
    ids=lambda each: type(each).__name__,
)
def test_polynomials_in_the_variable_of_a_rule_are_integrated_exactly(
    rule: Rule, variable: Callable[[float], float] | None, coordinate: Coordinate
) -> None:
    variable = variable or coordinate.tau
    ends = [rule.abscissa(coordinate, half) for half in (START, END)]
    nodes = tuple(rule.abscissa(coordinate, half) for half in NODES)
    weights = rule.weights(coordinate, *ends, nodes)
    for power in range(3):

        def integrand(half: float, power: int = power) -> float:
            return variable(half) ** power * coordinate.rate(half)

        exact, _ = quad(integrand, START, END, epsabs=1e-12)
        assert sum(w * variable(h) ** power for w, h in zip(weights, NODES, strict=True)) == pytest.approx(exact, 1e-8)


def test_the_move_to_the_data_is_exact_for_a_line_where_little_noise_is_left() -> None:
    weights = ToTheEnd().weights(Straight(), 3.1, math.inf, (3.1, 2.0))
    tau, before = share(3.1), share(2.0)
    assert sum(weights) == pytest.approx(-tau)
    assert weights[0] * tau + weights[1] * before == pytest.approx(-(tau**2) / 2)


def test_from_more_noise_it_goes_on_as_it_is() -> None:
    assert ToTheEnd().weights(Straight(), 2.9, math.inf, (2.9, 2.0)) == pytest.approx((-share(2.9),))


@pytest.mark.parametrize("name", ["vp", "linear"])
def test_so_that_few_steps_come_nearer(name: str) -> None:
    denoiser = mixture(SCHEDULES[name])
    fine = sample(denoiser, abm(Centred(200, 0.47, 1.5)), 200)
    grid = Centred(6, 0.47, 1.5)
    samplers = abm(grid), Adams(grid, Straight(), InLogSNR(), 2, 3)
    with_order, without = ((sample(denoiser, each, 200) - fine).square().mean() for each in samplers)
    assert with_order < 0.7 * without


def test_ten_steps_of_adams_sde_are_nearer_to_the_law_than_those_of_3m() -> None:
    denoiser = mixture(SCHEDULES["vp"], BatchGaussian())
    exact = denoiser.draw(6000, 1)
    ours, theirs = (
        sliced_w1(sample(denoiser, method(Centred(10, 0.47, 1.5)), 6000), exact) for method in (adams_sde, dpmpp_3m_sde)
    )
    assert ours < theirs / 2.5
