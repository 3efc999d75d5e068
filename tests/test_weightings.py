"""Each weighting against its paper's formula, in the paper's own parametrization."""

import math

import pytest
import torch
from analytic import ALL_SCHEDULES

from inkdrop.predictions import (
    DataPrediction,
    FlowPrediction,
    KarrasPrediction,
    NoisePrediction,
    Prediction,
    ScorePrediction,
    VPrediction,
)
from inkdrop.weightings import EDM, P2, Likelihood, MinSNR, Simple, SoftMinSNR, Unit, Weighting, weights_at

T = torch.tensor([0.05, 0.3, 0.6, 0.95], dtype=torch.float64)


def weights(weighting: Weighting, prediction: Prediction, name: str = "vp") -> torch.Tensor:
    return weights_at(weighting, ALL_SCHEDULES[name], prediction, T)


def snr(name: str = "vp") -> torch.Tensor:
    now = ALL_SCHEDULES[name].point(T)
    return (now.alpha / now.sigma) ** 2  # type: ignore[operator]


def same(first: torch.Tensor, second: torch.Tensor) -> bool:
    return torch.allclose(first, second, rtol=1e-9)


def test_simple_is_one_for_noise_and_sigma_squared_for_the_score() -> None:
    assert same(weights(Unit(), NoisePrediction()), torch.ones(4).double())
    assert same(weights(Simple(), NoisePrediction()), torch.ones(4).double())
    sigma = ALL_SCHEDULES["sub_vp"].sigma(T)
    assert same(weights(Simple(), ScorePrediction(), "sub_vp"), sigma**2)  # Song et al. 2021, equation 7, section 3.3


def test_min_snr() -> None:
    """Hang et al. 2023, section 3.4: for x_0, eps and v."""
    capped = snr().clamp(max=5)
    assert same(weights(MinSNR(5.0), DataPrediction()), capped)
    assert same(weights(MinSNR(5.0), NoisePrediction()), capped / snr())
    assert same(weights(MinSNR(5.0), VPrediction()), capped / (snr() + 1))


def test_soft_min_snr() -> None:
    """Crowson et al. 2024: 1 / (sigma^2 + 1 / gamma) on the error of x_0 for unscaled data."""
    sigma = ALL_SCHEDULES["edm"].sigma(T)
    assert same(weights(SoftMinSNR(4.0), DataPrediction(), "edm"), 1 / (sigma**2 + 0.25))
    assert (weights(SoftMinSNR(4.0), DataPrediction()) < weights(MinSNR(4.0), DataPrediction())).all()


def test_p2() -> None:
    """Choi et al. 2022, equation 8, relative to L_simple."""
    assert same(weights(P2(1.0, 1.0), NoisePrediction()), 1 / (1 + snr()))
    assert same(weights(P2(2.0, 0.5), NoisePrediction()), 1 / (2 + snr()).sqrt())
    assert same(weights(P2(1.0, 0.0), NoisePrediction()), torch.ones(4).double())


def test_edm() -> None:
    """Karras et al. 2022, table 1: lambda = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2 on the error of x_0."""
    sigma = ALL_SCHEDULES["edm"].sigma(T)
    assert same(weights(EDM(0.5), DataPrediction(), "edm"), (sigma**2 + 0.25) / (sigma * 0.5) ** 2)
    for name in ("edm", "vp", "linear"):
        assert same(weights(EDM(0.5), KarrasPrediction(0.5), name), torch.ones(4).double())


def test_likelihood() -> None:
    """Ho et al. 2020, equation 12, in the limit: beta / (2 sigma^2) for noise; Song's g^2 / 2 for the score."""
    beta = 0.1 + T * 19.9
    sigma = ALL_SCHEDULES["vp"].sigma(T)
    assert same(weights(Likelihood(), NoisePrediction()), beta / (2 * sigma**2))
    assert same(weights(Likelihood(), ScorePrediction()), beta / 2)
    growth = (0.01 * 5000**T) ** 2 * 2 * math.log(5000)
    assert same(weights(Likelihood(), ScorePrediction(), "ve"), growth / 2)


@pytest.mark.parametrize("weighting", [Simple(), MinSNR(), SoftMinSNR(), P2(), EDM(), Likelihood()])
def test_the_weighted_error_does_not_depend_on_the_prediction(weighting: Weighting) -> None:
    """All but Unit weigh the error of x_0: the same estimate has the same loss however it is written."""
    name = "linear"
    now = ALL_SCHEDULES[name].point(T)
    losses = []
    for prediction in (DataPrediction(), VPrediction(), FlowPrediction(), NoisePrediction(), KarrasPrediction(0.3)):
        error = 0.1 / torch.as_tensor(
            prediction.coefficients(now).c_out, dtype=torch.float64
        )  # of F, where that of x_0 is 0.1
        losses.append(weights(weighting, prediction, name) * error**2)
    for loss in losses[1:]:
        assert same(loss, losses[0])
