"""Power-function averages against quadrature and direct sums, and averages made of others."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad

from inkdrop.averaging import LONGEST, beta, gamma_of, inner_products, length_of, reconstruction_weights

NUM_UPDATES = 1024


def profile(gamma: float, t: float, tau: float) -> float:
    return (gamma + 1) * tau**gamma / t ** (gamma + 1) if tau <= t else 0.0


def shares(gamma: float, t: int) -> np.ndarray:
    """The integral of a profile over each update, (NUM_UPDATES)."""
    ends = np.minimum(np.arange(NUM_UPDATES + 1), t) / t
    return np.diff(ends ** (gamma + 1))


def walk(seed: int = 0, dim: int = 200) -> np.ndarray:
    """A random walk far from 0 with noise in each step, (NUM_UPDATES, dim): like weights in training."""
    random = np.random.default_rng(seed)
    steps = random.normal(size=(NUM_UPDATES, dim)).cumsum(0) / NUM_UPDATES**0.5
    return steps + 0.3 * random.normal(size=(NUM_UPDATES, dim)) + 5 * random.normal(size=dim)


def basis(lengths: list[float], spacing: int) -> tuple[np.ndarray, np.ndarray]:
    """Powers and times of snapshots of some lengths."""
    times = np.arange(spacing, NUM_UPDATES + 1, spacing)
    return np.repeat([gamma_of(length) for length in lengths], len(times)), np.tile(times, len(lengths))


@pytest.mark.parametrize("length", [0.01, 0.05, 0.1, 0.2, LONGEST])
def test_the_length_is_the_relative_deviation_of_the_profile(length: float) -> None:
    gamma, t = gamma_of(length), 7.0
    moments = [quad(lambda tau: tau**k * profile(gamma, t, tau), 0, t)[0] for k in range(3)]  # noqa: B023 - at once
    assert moments[0] == pytest.approx(1)
    assert (moments[2] - moments[1] ** 2) ** 0.5 / t == pytest.approx(length)
    assert length_of(gamma) == pytest.approx(length)


def test_published_powers() -> None:
    assert gamma_of(0.05) == pytest.approx(16.97, abs=0.005)
    assert gamma_of(0.1) == pytest.approx(6.94, abs=0.005)
    assert gamma_of(LONGEST) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("length", [0.0, -0.1, 0.29, float("nan")])
def test_lengths_without_a_power_are_refused(length: float) -> None:
    with pytest.raises(ValueError, match=r"at most 0\.2887"):
        gamma_of(length)


@pytest.mark.parametrize("length", [0.01, 0.1, LONGEST])
def test_the_recursion_is_the_integral_of_the_profile(length: float) -> None:
    path, gamma, average = walk(), gamma_of(length), np.full(200, np.nan)
    average[:] = 1e9  # the first update forgets it
    for t in range(1, NUM_UPDATES + 1):
        average = average + (1 - beta(gamma, t)) * (path[t - 1] - average)
        if t in (1, 2, 10, NUM_UPDATES):
            assert average == pytest.approx(shares(gamma, t) @ path, abs=1e-6), t


@pytest.mark.parametrize(("gamma", "t"), [(0.0, 3.0), (2.5, 5.0), (16.97, 2.0)])
@pytest.mark.parametrize(("other_gamma", "other_t"), [(0.0, 3.0), (6.94, 4.0)])
def test_inner_products_are_integrals(gamma: float, t: float, other_gamma: float, other_t: float) -> None:
    def product(tau: float) -> float:
        return profile(gamma, t, tau) * profile(other_gamma, other_t, tau)

    expected, _ = quad(product, 0, min(t, other_t))
    assert inner_products([gamma], [t], [other_gamma], [other_t])[0, 0] == pytest.approx(expected, rel=1e-7)


def test_what_is_in_the_basis_comes_back() -> None:
    gammas, times = basis([0.05, 0.1], 64)
    weights, residual = reconstruction_weights(gammas, times, gamma_of(0.1), NUM_UPDATES)
    assert residual < 1e-6
    assert weights[-1] == pytest.approx(1)
    assert np.abs(weights[:-1]).max() < 1e-8


@pytest.mark.parametrize("length", [0.02, 0.075, 0.15, 0.25])
def test_a_length_out_of_the_basis_is_made_better_of_closer_snapshots(length: float) -> None:
    path, gamma = walk(), gamma_of(length)
    kept, errors, residuals = shares(gamma, NUM_UPDATES) @ path, [], []
    for spacing in (256, 128, 64, 32, 16):
        gammas, times = basis([0.05, 0.1], spacing)
        weights, residual = reconstruction_weights(gammas, times, gamma, NUM_UPDATES)
        made = sum(x * (shares(*of) @ path) for x, of in zip(weights, zip(gammas, times, strict=True), strict=True))
        errors.append(np.linalg.norm(made - kept) / np.linalg.norm(path[-1] - kept))
        residuals.append(residual)
    assert errors == sorted(errors, reverse=True)
    assert residuals == sorted(residuals, reverse=True)
    assert all(error < residual for error, residual in zip(errors, residuals, strict=True))
    assert errors[-1] < 0.01


@pytest.mark.parametrize("length", [0.001, 0.02, 0.075, LONGEST])
def test_weights_that_do_not_change_come_back_as_they_are(length: float) -> None:
    """However badly the profile fits: the sum of the weights is 1."""
    gammas, times = basis([0.05, 0.1], 256)
    weights, _ = reconstruction_weights(gammas, times, gamma_of(length), NUM_UPDATES)
    assert weights.sum() == pytest.approx(1, abs=1e-12)


def test_the_residual_is_the_distance_of_the_profiles() -> None:
    gammas, times = basis([0.05, 0.1], 256)
    gamma = gamma_of(0.02)
    weights, residual = reconstruction_weights(gammas, times, gamma, NUM_UPDATES)
    taus = (np.arange(10**5) + 0.5) / 10**5 * NUM_UPDATES

    def sampled(gamma: float, t: float) -> np.ndarray:
        return np.where(taus <= t, (gamma + 1) * taus**gamma / t ** (gamma + 1), 0.0)

    made = sum(x * sampled(*of) for x, of in zip(weights, zip(gammas, times, strict=True), strict=True))
    target = sampled(gamma, NUM_UPDATES)
    assert residual == pytest.approx(np.linalg.norm(made - target) / np.linalg.norm(target), rel=1e-3)


def test_rounding_of_what_is_stored_is_not_blown_up() -> None:
    """Three lengths are nearly dependent: exact weights would multiply the rounding of float16 by hundreds."""
    gammas, times = basis([0.05, 0.1, 0.15], 16)
    exact, _ = reconstruction_weights(gammas, times, gamma_of(0.02), NUM_UPDATES)
    sturdy, residual = reconstruction_weights(gammas, times, gamma_of(0.02), NUM_UPDATES, 2.0**-12)
    assert np.linalg.norm(exact) * 2.0**-12 > 0.05
    assert np.linalg.norm(sturdy) * 2.0**-12 < residual < 0.02
