"""The methods of the field by their names, each a coordinate, a rule, and an order.

All are functions of a time grid; what they are made of is in `adams.py` and `runge_kutta.py`.
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
    """Euler's method to a lower noise level and fresh noise back up, which is DDIM with all noise."""
    return DDIM(time_grid, eta)


def heun(time_grid: TimeGrid, up_noise: Annotated[float, Gt(0)] = 1.0) -> RungeKutta:
    """Order 2: the trapezoid in sigma / alpha. Source: Karras et al. 2022, arXiv 2206.00364, algorithms 1 and 2."""
    return RungeKutta(time_grid, Noise(), InTau(), [1.0], up_noise)


def midpoint(time_grid: TimeGrid) -> RungeKutta:
    """Order 2: the slope at the middle of the step in sigma / alpha."""
    return RungeKutta(time_grid, Noise(), InTau(), [1 / 2])


def dpm_2(time_grid: TimeGrid) -> RungeKutta:
    """Order 2: the slope at the middle in the log-SNR, DPM-Solver-2. Source: Lu et al. 2022, arXiv 2206.00927."""
    return RungeKutta(time_grid, Noise(), Middle(), [1 / 2])


def dpm_3(time_grid: TimeGrid) -> RungeKutta:
    """Order 3 with three calls a step, DPM-Solver-3. Source: Lu et al. 2022, arXiv 2206.00927, algorithm 2."""
    return RungeKutta(time_grid, Noise(), InLogSNR(), [1 / 3, 2 / 3])


def dpmpp_2s(time_grid: TimeGrid) -> RungeKutta:
    """Order 2: DPM-Solver++(2S). Source: Lu et al. 2022, arXiv 2211.01095, algorithm 1."""
    return RungeKutta(time_grid, Data(), Middle(), [1 / 2])


def dpmpp_3s(time_grid: TimeGrid) -> RungeKutta:
    """Order 3 with three calls a step: DPM-Solver-3 for x_0 in place of eps."""
    return RungeKutta(time_grid, Data(), InLogSNR(), [1 / 3, 2 / 3])


def abm(time_grid: TimeGrid) -> Adams:
    """Adams-Bashforth-Moulton of order 3 on the straight path: with `time_grid=centred` the one to take.

    eps - x_0 as a line in the log-SNR predicts, as a parabola it corrects, at one network call a step.
    """
    return Adams(time_grid, Straight(), ToTheEnd(), 2, corrector=3)


def lms(time_grid: TimeGrid, order: Annotated[int, Ge(1), Le(4)]) -> Adams:
    """Linear multistep: Adams-Bashforth in sigma / alpha for the steps as they are."""
    return Adams(time_grid, Noise(), InTau(), order)


def ipndm(time_grid: TimeGrid, order: Annotated[int, Ge(1), Le(4)]) -> Adams:
    """PNDM that begins with fewer points in place of more calls. Source: Zhang and Chen 2023, arXiv 2204.13902."""
    return Adams(time_grid, Noise(), Even(), order)


def deis(time_grid: TimeGrid, order: Annotated[int, Ge(1), Le(4)]) -> Adams:
    """eps as a polynomial in the log-SNR. Source: Zhang and Chen 2023, arXiv 2204.13902, equation 14."""
    return Adams(time_grid, Noise(), InLogSNR(), order)


def dpm_multistep(time_grid: TimeGrid, order: Annotated[int, Ge(1), Le(3)]) -> Adams:
    """DPM-Solver for eps, multistep. Source: Lu et al. 2022, arXiv 2211.01095, appendix D."""
    return Adams(time_grid, Noise(), Middle(), order)


def dpmpp_2m(time_grid: TimeGrid) -> Adams:
    """DPM-Solver++(2M). Source: Lu et al. 2022, arXiv 2211.01095, algorithm 2."""
    return Adams(time_grid, Data(), Middle(), 2)


def dpmpp_3m(time_grid: TimeGrid) -> Adams:
    """DPM-Solver++(3M) with the exact integral of the parabola, so that its order is 3."""
    return Adams(time_grid, Data(), InLogSNR(), 3)


def dpmpp_2m_sde(time_grid: TimeGrid, eta: Annotated[float, Gt(0)] = 1.0) -> Adams:
    """DPM-Solver++(2M) of the reverse SDE with eta times its noise. Source: the same, section 5."""
    return Adams(time_grid, Data(eta), Middle(), 2)


def dpmpp_3m_sde(time_grid: TimeGrid, eta: Annotated[float, Gt(0)] = 1.0) -> Adams:
    """DPM-Solver++(3M) of the reverse SDE with eta times its noise."""
    return Adams(time_grid, Data(eta), InLogSNR(), 3)


def adams_sde(time_grid: TimeGrid, eta: Annotated[float, Gt(0)] = 1.0) -> Adams:
    """The reverse SDE with x_0 as a line in sigma / (alpha + sigma): with `centred` the stochastic one to take."""
    return Adams(time_grid, Data(eta), InShare(), 2)


def unipc(time_grid: TimeGrid, order: Annotated[int, Ge(1), Le(3)]) -> Adams:
    """UniPC for x_0 with its corrector, which adds 1 to the order. Source: Zhao et al. 2023, arXiv 2302.04867."""
    return Adams(time_grid, Data(), Middle(), order, corrector=order + 1)
