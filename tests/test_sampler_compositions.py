"""Every sampler x schedule x prediction x grid gives numbers, or is refused with the reason; and the way back."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from analytic import ALL_SCHEDULES, mixture, source

from inkdrop.denoiser import NetworkDenoiser
from inkdrop.networks import MLP
from inkdrop.noises import Gaussian
from inkdrop.predictions import (
    DataPrediction,
    FlowPrediction,
    KarrasPrediction,
    NoisePrediction,
    Prediction,
    ScorePrediction,
    VPrediction,
)
from inkdrop.samplers import (
    DDIM,
    PNDM,
    Adams,
    Adaptive,
    Ancestral,
    EulerMaruyama,
    PredictorCorrector,
    ReverseDiffusion,
    Sampler,
    abm,
    deis,
    dpm_2,
    dpm_3,
    dpm_multistep,
    dpmpp_2m,
    dpmpp_2m_sde,
    dpmpp_2s,
    dpmpp_3m,
    dpmpp_3m_sde,
    dpmpp_3s,
    euler_ancestral,
    heun,
    ipndm,
    lms,
    midpoint,
    unipc,
)
from inkdrop.samplers.coordinates import Angle, Straight
from inkdrop.samplers.quadrature import InTau
from inkdrop.time_grids import (
    Centred,
    Churn,
    Explicit,
    Karras,
    Leading,
    Linspace,
    LogSNR,
    Quadratic,
    Restart,
    TimeGrid,
    Trailing,
)

Method = Callable[[TimeGrid], Sampler]
DETERMINISTIC: dict[str, Method] = {
    "ddim": DDIM,
    "heun": heun,
    "midpoint": midpoint,
    "dpm_2": dpm_2,
    "dpm_3": dpm_3,
    "dpmpp_2s": dpmpp_2s,
    "dpmpp_3s": dpmpp_3s,
    "lms": partial(lms, order=4),
    "ipndm": partial(ipndm, order=4),
    "pndm": PNDM,
    "deis": partial(deis, order=3),
    "dpm_multistep": partial(dpm_multistep, order=3),
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_3m": dpmpp_3m,
    "unipc": partial(unipc, order=3),
    "abm": abm,
    "adams": lambda grid: Adams(grid, Straight(), InTau(), 3, corrector=3),
    "adams of the angle": lambda grid: Adams(grid, Angle(), InTau(), 3, corrector=3),
    "adaptive": lambda grid: Adaptive(grid, 0.5, 0.5, "bosh3"),
}
STOCHASTIC: dict[str, Method] = {
    "ddim, eta = 0.5": partial(DDIM, eta=0.5),
    "euler_ancestral": euler_ancestral,
    "ancestral": Ancestral,
    "dpmpp_2m_sde": dpmpp_2m_sde,
    "dpmpp_3m_sde": dpmpp_3m_sde,
    "euler_maruyama": EulerMaruyama,
    "reverse_diffusion": ReverseDiffusion,
    "predictor_corrector": partial(PredictorCorrector, predictor=ReverseDiffusion, corrections=1, snr=0.16),
}
METHODS = {**DETERMINISTIC, **STOCHASTIC}
PREDICTIONS: list[Prediction] = [
    NoisePrediction(),
    DataPrediction(),
    VPrediction(),
    FlowPrediction(),
    ScorePrediction(),
    KarrasPrediction(),
]
GRIDS: dict[str, TimeGrid] = {
    "trailing": Trailing(5),
    "leading": Leading(5),
    "linspace": Linspace(5),
    "quadratic": Quadratic(5),
    "log_snr": LogSNR(5, highest=12.0),
    "karras": Karras(5),
    "edm": Karras(5, sigma_min=0.002),
    "centred": Centred(5, 0.22, 1.0),
    "explicit": Explicit([1.0, 0.7, 0.5, 0.3]),
    "churn": Churn(Karras(5), 3.0),
    "restart": Restart(Karras(5), 0.1, 2.0, 2, 2),
}
WITHOUT_SIGNAL = {"linear", "laplace", "zero_terminal_snr", "zero_terminal_snr of vp", "shifted"}  # alpha = 0 at t = 1
BELOW_TRAINING = {("trailing", "edm"): "is trained only from t = 0.22", ("leading", "edm"): "starts at t = 1.02"}


@pytest.fixture(scope="module")
def network() -> MLP:
    torch.manual_seed(1)
    network = MLP([2], 8, 1)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    return network


def run(network: MLP, method: str, schedule: str, prediction: Prediction, grid: TimeGrid) -> str:
    """What went wrong: the reason of a refusal, or that numbers are not finite."""
    try:
        denoiser = NetworkDenoiser(network, ALL_SCHEDULES[schedule], prediction)
        eps = torch.linspace(-1.5, 2.0, 6).reshape(3, 2)
        x = METHODS[method](grid)(denoiser, eps, {}, source(3, Gaussian()))
    except ValueError as error:
        return str(error)
    return "" if torch.isfinite(x).all() else "not finite"


def reason(method: str, schedule: str, prediction: Prediction) -> str:
    """Why a method, a schedule and a prediction do not go together, or that they do."""
    if schedule in WITHOUT_SIGNAL and isinstance(prediction, NoisePrediction | ScorePrediction):
        return "cannot recover x_0 at t = 1"
    if schedule in WITHOUT_SIGNAL and method == "euler_maruyama":
        return "infinite drift at alpha = 0: choose sampler=reverse_diffusion or ddim"
    return ""


def agree(found: str, expected: str) -> bool:
    return expected in found if expected else not found


# A sampler sees a prediction as the x_0 and the noise that a denoiser makes of it: one sampler of each kind meets all
# predictions on all schedules; the others meet all schedules, and all predictions where no signal is left at t = 1.
OF_EACH_KIND = ("heun", "unipc", "dpmpp_2m_sde", "ancestral", "euler_maruyama", "predictor_corrector")


@pytest.mark.many
@pytest.mark.parametrize("method", METHODS)
def test_every_schedule_and_prediction_gives_numbers_or_a_reason(method: str, network: MLP) -> None:
    wrong = [
        (schedule, type(prediction).__name__, found)
        for schedule in ALL_SCHEDULES
        for prediction in PREDICTIONS
        if method in OF_EACH_KIND or schedule == "zero_terminal_snr" or isinstance(prediction, VPrediction)
        if not agree(
            found := run(network, method, schedule, prediction, LogSNR(4)), reason(method, schedule, prediction)
        )
    ]
    assert not wrong


@pytest.mark.many
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("method", ["dpm_3", "unipc", "dpmpp_2m_sde"])
def test_every_schedule_and_grid_gives_numbers_or_a_reason(method: str, grid: str, network: MLP) -> None:
    wrong = [
        (schedule, found)
        for schedule in ALL_SCHEDULES
        if not agree(
            found := run(network, method, schedule, VPrediction(), GRIDS[grid]),
            BELOW_TRAINING.get((grid, schedule), ""),
        )
    ]
    assert not wrong


# The way back --------------------------------------------------------------------------------------------------------

ROUND_TRIPS = [(method, "linear") for method in DETERMINISTIC]  # which begins at alpha = 0
ROUND_TRIPS += [(method, name) for method in ("heun", "unipc", "dpmpp_2m", "abm") for name in ("vp", "edm", "cosine")]


@pytest.mark.many
@pytest.mark.parametrize(("method", "name"), ROUND_TRIPS)
def test_inversion_comes_back_within_a_thousandth(method: str, name: str) -> None:
    """But for DDIM, of order 1: a hundredth."""
    denoiser, sampler = mixture(ALL_SCHEDULES[name]), DETERMINISTIC[method](LogSNR(200, highest=12.0))
    if method == "adaptive":
        sampler = Adaptive(LogSNR(2, highest=12.0), 1e-6, 1e-6, "dopri5")
    x_0 = denoiser.draw(64)
    eps = sampler.invert(denoiser, x_0, {})
    back = sampler(denoiser, eps, {}, source(64, denoiser.noise))
    assert (back - x_0).square().mean().sqrt() < (0.015 if method == "ddim" else 1e-3)
    assert 0.85 < eps.std() < 1.15


@pytest.mark.parametrize("method", ["dpmpp_2m", "heun"])
def test_also_where_the_last_noise_is_not_small(method: str) -> None:
    """sigma / alpha = 0.03: to take the data for what has this much noise would be 0.005 off."""
    denoiser, sampler = mixture(ALL_SCHEDULES["vp"]), DETERMINISTIC[method](LogSNR(200, highest=7.0))
    x_0 = denoiser.draw(64)
    back = sampler(denoiser, sampler.invert(denoiser, x_0, {}), {}, source(64, denoiser.noise))
    assert (back - x_0).square().mean().sqrt() < 1e-4


@pytest.mark.parametrize("method", STOCHASTIC)
def test_what_draws_noise_has_no_way_back(method: str) -> None:
    with pytest.raises(ValueError, match="draws noise and cannot be inverted"):
        METHODS[method](LogSNR(5)).invert(mixture(ALL_SCHEDULES["vp"]), torch.zeros(1, 2).double(), {})
