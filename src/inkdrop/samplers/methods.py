"""Published methods by name, each a coordinate, a rule and an order.

All are functions of a time grid; `adams.py` and `runge_kutta.py` have the loops that they share.
"""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt, Le

from inkdrop.samplers.adams import Adams
from inkdrop.samplers.coordinates import Data, Noise, Straight
from inkdrop.samplers.ddim import DDIM
from inkdrop.samplers.quadrature import Even, InLogSNR, InShare, InTau, Middle, ToTheEnd
from inkdrop.samplers.runge_kutta import RungeKutta
from inkdrop.time_grids import TimeGrid


def euler_ancestral(time_grid: TimeGrid, eta: Annotated[float, Ge(0), Le(1)] = 1.0) -> DDIM:
    """Returns ancestral Euler: a step below the next noise level, and fresh noise up to it.

    It equals DDIM with this eta. `eta` is the share of the posterior's noise.
    """
    return DDIM(time_grid, eta)


def heun(time_grid: TimeGrid, up_noise: Annotated[float, Gt(0)] = 1.0) -> RungeKutta:
    """Returns Heun's method, the trapezoidal rule in sigma / alpha, of order 2 with two evaluations per step.

    `up_noise` is the factor on the noise of up-moves, S_noise of EDM. Source: Karras et al. 2022, arXiv 2206.00364,
    algorithms 1 and 2.
    """
    return RungeKutta(time_grid, Noise(), InTau(), [1.0], up_noise)


def midpoint(time_grid: TimeGrid) -> RungeKutta:
    """Returns the midpoint method in sigma / alpha, of order 2 with two evaluations per step."""
    return RungeKutta(time_grid, Noise(), InTau(), [1 / 2])


def dpm_2(time_grid: TimeGrid) -> RungeKutta:
    """Returns DPM-Solver-2, of order 2 with the slope at the midpoint in the log-SNR.

    Source: Lu et al. 2022, arXiv 2206.00927.
    """
    return RungeKutta(time_grid, Noise(), Middle(), [1 / 2])


def dpm_3(time_grid: TimeGrid) -> RungeKutta:
    """Returns DPM-Solver-3, of order 3 with three evaluations per step.

    Source: Lu et al. 2022, arXiv 2206.00927, algorithm 2.
    """
    return RungeKutta(time_grid, Noise(), InLogSNR(), [1 / 3, 2 / 3])


def dpmpp_2s(time_grid: TimeGrid) -> RungeKutta:
    """Returns DPM-Solver++(2S), of order 2 with two evaluations per step.

    Source: Lu et al. 2022, arXiv 2211.01095, algorithm 1.
    """
    return RungeKutta(time_grid, Data(), Middle(), [1 / 2])


def dpmpp_3s(time_grid: TimeGrid) -> RungeKutta:
    """Returns DPM-Solver++(3S), which is DPM-Solver-3 for x_0 instead of eps: order 3, three evaluations per step."""
    return RungeKutta(time_grid, Data(), InLogSNR(), [1 / 3, 2 / 3])


def abm(time_grid: TimeGrid) -> Adams:
    """Returns Adams-Bashforth-Moulton of order 3 on the straight path, the recommended sampler with `centred` times.

    eps - x_0 is interpolated in the log-SNR, by a line in the predictor and by a parabola in the corrector. A step
    takes one evaluation.
    """
    return Adams(time_grid, Straight(), ToTheEnd(), 2, corrector=3)


def lms(time_grid: TimeGrid, order: Annotated[int, Ge(1), Le(4)]) -> Adams:
    """Returns the linear multistep method: Adams-Bashforth in sigma / alpha for steps of any lengths."""
    return Adams(time_grid, Noise(), InTau(), order)


def ipndm(time_grid: TimeGrid, order: Annotated[int, Ge(1), Le(4)]) -> Adams:
    """Returns iPNDM, which starts with fewer points where PNDM takes more evaluations.

    Source: Zhang and Chen 2023, arXiv 2204.13902.
    """
    return Adams(time_grid, Noise(), Even(), order)


def deis(time_grid: TimeGrid, order: Annotated[int, Ge(1), Le(4)]) -> Adams:
    """Returns DEIS, which interpolates eps by a polynomial in the log-SNR.

    Source: Zhang and Chen 2023, arXiv 2204.13902, equation 14.
    """
    return Adams(time_grid, Noise(), InLogSNR(), order)


def dpm_multistep(time_grid: TimeGrid, order: Annotated[int, Ge(1), Le(3)]) -> Adams:
    """Returns the multistep DPM-Solver, for eps.

    Source: Lu et al. 2022, arXiv 2211.01095, appendix D.
    """
    return Adams(time_grid, Noise(), Middle(), order)


def dpmpp_2m(time_grid: TimeGrid) -> Adams:
    """Returns DPM-Solver++(2M), a multistep method of order 2 for x_0.

    Source: Lu et al. 2022, arXiv 2211.01095, algorithm 2.
    """
    return Adams(time_grid, Data(), Middle(), 2)


def dpmpp_3m(time_grid: TimeGrid) -> Adams:
    """Returns DPM-Solver++(3M) with the exact integral of the parabola, so that its order is 3."""
    return Adams(time_grid, Data(), InLogSNR(), 3)


def dpmpp_2m_sde(time_grid: TimeGrid, eta: Annotated[float, Gt(0)] = 1.0) -> Adams:
    """Returns DPM-Solver++(2M) of the reverse SDE with eta times its noise.

    Source: Lu et al. 2022, arXiv 2211.01095, section 5.
    """
    return Adams(time_grid, Data(eta), Middle(), 2)


def dpmpp_3m_sde(time_grid: TimeGrid, eta: Annotated[float, Gt(0)] = 1.0) -> Adams:
    """Returns DPM-Solver++(3M) of the reverse SDE with eta times its noise."""
    return Adams(time_grid, Data(eta), InLogSNR(), 3)


def adams_sde(time_grid: TimeGrid, eta: Annotated[float, Gt(0)] = 1.0) -> Adams:
    """Returns the recommended stochastic sampler: the reverse SDE with x_0 linear in sigma / (alpha + sigma)."""
    return Adams(time_grid, Data(eta), InShare(), 2)


def unipc(time_grid: TimeGrid, order: Annotated[int, Ge(1), Le(3)]) -> Adams:
    """Returns UniPC for x_0 with its corrector, which adds 1 to the order.

    Source: Zhao et al. 2023, arXiv 2302.04867.
    """
    return Adams(time_grid, Data(), Middle(), order, corrector=order + 1)
