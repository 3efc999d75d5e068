"""Every deterministic solver converges with its proved order, by the command that prints the table of orders."""

from __future__ import annotations

import math

import orders
import pytest
import torch
from analytic import SCHEDULES, ExactDenoiser, gaussian
from orders import ON_EVEN_STEPS, ON_STRAIGHT_STEPS, SOLVERS, STRAIGHT, Ends, EvenSigma, Mixture, Smooth, Solver

from inkdrop.samplers import Adaptive
from inkdrop.schedules import Schedule

COUNTS = [128, 256]
# On the even beta of VP these reach their order later.
LATER = {("unipc, order 3", "VP"): [1024, 2048]}
EVERYWHERE = ("euler = ddim", "heun", "dpm_3", "dpmpp_2m", "dpmpp_3m", "deis, order 3", "unipc, order 3", "abm")
CASES = [(s, name) for s in SOLVERS for name in orders.SCHEDULES if name == "EDM" or s.name in EVERYWHERE]


@pytest.fixture(autouse=True)
def _exact_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The exact end of a range is the same for all solvers and schedules."""
    monkeypatch.setattr(orders, "exact_end", lambda denoiser, span: EXACT[span])


EXACT = {grid.span: orders.exact_end(Mixture(orders.SCHEDULES["VP"]), grid.span) for grid in (Smooth, EvenSigma)}


def named(value: object) -> str:
    return value.name if isinstance(value, Solver) else str(value)


@pytest.mark.many
@pytest.mark.parametrize(("solver", "name"), CASES, ids=named)
def test_order_with_its_own_start(solver: Solver, name: str) -> None:
    counts = LATER.get((solver.name, name), COUNTS)
    order = orders.measured(solver, Smooth, orders.SCHEDULES[name], counts, 0)
    assert order == pytest.approx(solver.own, abs=0.05 if solver.exact is None else 0.2)


@pytest.mark.many
@pytest.mark.parametrize(("solver", "name"), [(s, name) for s, name in CASES if s.exact], ids=named)
def test_order_with_exact_starting_values(solver: Solver, name: str) -> None:
    counts = LATER.get((solver.name, name), COUNTS)
    order = orders.measured(solver, Smooth, orders.SCHEDULES[name], counts, solver.num_starts)
    assert order == pytest.approx(solver.exact, abs=0.2)


@pytest.mark.many
@pytest.mark.parametrize(
    ("solver", "schedule"),
    [(s, schedule) for s in ON_EVEN_STEPS for schedule in orders.SCHEDULES.values()]
    + [(s, schedule) for s in ON_STRAIGHT_STEPS for schedule in STRAIGHT.values()],
    ids=lambda value: named(value) if isinstance(value, Solver) else type(value).__name__,
)
def test_orders_on_steps_even_in_sigma(solver: Solver, schedule: Schedule) -> None:
    assert orders.measured(solver, EvenSigma, schedule, COUNTS, 0) == pytest.approx(solver.own, abs=0.2)
    assert orders.measured(solver, EvenSigma, schedule, COUNTS, 3) == pytest.approx(solver.exact, abs=0.1)


def test_the_mixture_and_its_flow_are_exact() -> None:
    """The denoiser is that of the other tests; the flow of normal data keeps x / sqrt(alpha^2 v + sigma^2)."""
    ours = Mixture(SCHEDULES["vp"])
    covariances = ours.variances[:, None, None] * torch.eye(2).double()
    theirs = ExactDenoiser(ours.schedule, torch.full((3,), 1 / 3), ours.means, covariances)
    x = torch.randn(20, 2, dtype=torch.float64)
    for now in ours.schedule.points([0.05, 0.4, 0.9]):
        assert torch.allclose(ours(x, now, {}).x_0, theirs(x, now, {}).x_0, atol=1e-6)  # its weights are of float32
    normal, (first, last) = gaussian(ours.schedule, torch.zeros(2), 0.25 * torch.eye(2)), Smooth.span
    grown = math.sqrt((0.25 + math.exp(-2 * last)) / (0.25 + math.exp(-2 * first)))
    assert torch.allclose(orders.flow(normal, x, first, last), grown * x, rtol=0, atol=1e-13)


@pytest.mark.parametrize("solver", ["dopri5", "dopri8", "bosh3"])
def test_adaptive_steps_keep_to_their_tolerance(solver: str) -> None:
    found, calls = [], []
    for tolerance in (1e-3, 1e-5, 1e-7):
        denoiser = Mixture(orders.SCHEDULES["flow"])
        x = orders.run(Adaptive(Ends(1), tolerance, tolerance, solver), denoiser)  # type: ignore[arg-type]
        found.append(orders.rms(x - EXACT[Smooth.span]) / tolerance)
        calls.append(denoiser.calls)
    assert max(found) < 50
    assert calls == sorted(set(calls))
