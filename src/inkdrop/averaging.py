"""Power-function averages over training, and the reconstruction of any of them from stored ones.

The average of a path theta(1), theta(2), ... after t updates weights a time tau in (0, t] by the profile

    p(tau) = (gamma + 1) tau^gamma / t^(gamma + 1),        theta(tau) = theta(k) for k - 1 < tau <= k.

Its shape does not depend on t. Its length is its standard deviation divided by t. Source: Karras et al. 2024, arXiv
2312.02696, section 3 and appendix C.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array: TypeAlias = NDArray[np.float64]

LONGEST = 12**-0.5  # of gamma = 0, which weights all times equally


def length_of(gamma: float) -> float:
    """Returns the length sqrt((gamma + 1) / ((gamma + 2)^2 (gamma + 3))) of a power."""
    return ((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3))) ** 0.5


def gamma_of(length: float) -> float:
    """Returns the power gamma >= 0 of a length: the largest root of (gamma + 2)^2 (gamma + 3) = (gamma + 1) / length^2.

    Raises `ValueError` unless 0 < length <= 12^(-1/2).
    """
    if not 0 < length <= LONGEST:
        raise ValueError(f"the length of an average must be above 0 and at most {LONGEST:.4f}, not {length}")
    roots = np.roots([1, 7, 16 - length**-2, 12 - length**-2])
    return max(0.0, float(roots.real.max()))


def beta(gamma: float, t: int) -> float:
    """Returns the factor beta of update t = 1, 2, ...: `average = beta average + (1 - beta) theta(t)`.

    It is (1 - 1 / t)^(gamma + 1), with which the average is exactly the integral of the profile times theta.
    """
    return (1 - 1 / t) ** (gamma + 1)


def inner_products(gammas: ArrayLike, times: ArrayLike, other_gammas: ArrayLike, other_times: ArrayLike) -> Array:
    """Returns the integrals (N, M) of the products of profiles (N) and other profiles (M).

    For t_a <= t_b they are (gamma_a + 1) (gamma_b + 1) / (gamma_a + gamma_b + 1) t_a^gamma_b / t_b^(gamma_b + 1).
    """
    gamma_a, t_a = (np.asarray(each, float)[:, None] for each in (gammas, times))
    gamma_b, t_b = (np.asarray(each, float)[None, :] for each in (other_gammas, other_times))
    ratio, later = np.minimum(t_a, t_b) / np.maximum(t_a, t_b), np.where(t_a <= t_b, gamma_b, gamma_a)
    product = (gamma_a + 1) * (gamma_b + 1) / (gamma_a + gamma_b + 1) * ratio**later / np.maximum(t_a, t_b)
    return np.asarray(product, float)


def reconstruction_weights(
    gammas: ArrayLike, times: ArrayLike, gamma: float, t: float, rounding: float = 0.0
) -> tuple[Array, float]:
    """Returns the weights x (N) of stored averages (N) that reconstruct the average of another power, and the residual.

    They minimize |sum_i x_i p_i - p|^2 / |p|^2 + rounding^2 sum_i x_i^2 in L2 subject to sum_i x_i = 1, so that weights
    that are constant in training are reproduced exactly. The residual is the square root of the minimum.

    - `gammas`: powers (N) of the stored averages.
    - `times`: update counts (N) at which they were stored.
    - `gamma`: power of the average to reconstruct.
    - `t`: its update count.
    - `rounding`: relative rounding error of the stored averages, which nearly dependent profiles would amplify.
    """
    products = inner_products(gammas, times, gammas, times)
    norms, norm = np.sqrt(np.diag(products)), float(inner_products([gamma], [t], [gamma], [t])[0, 0]) ** 0.5
    scale = norm / norms  # the unknowns are x / scale
    products = products / np.outer(norms, norms) + rounding**2 * np.diag(scale**2)
    target = inner_products(gammas, times, [gamma], [t])[:, 0] / (norms * norm)
    # Lagrange's equations; the row of the constraint has length 1, similar to the others.
    row = scale / np.linalg.norm(scale)
    system = np.block([[products, row[:, None]], [row[None, :], np.zeros((1, 1))]])
    right = np.append(target, 1 / np.linalg.norm(scale))
    x = np.linalg.lstsq(system, right, rcond=None)[0][:-1]
    residual = max(0.0, float(1 - 2 * x @ target + x @ products @ x)) ** 0.5
    return x * scale, residual
