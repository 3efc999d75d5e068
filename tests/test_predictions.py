"""Every prediction on every schedule, at both ends of time too."""

import math

import pytest
import torch
from analytic import ALL_SCHEDULES, SCHEDULES
from cases import every

from inkdrop.predictions import (
    DataPrediction,
    FlowPrediction,
    KarrasPrediction,
    NoisePrediction,
    Prediction,
    ScorePrediction,
    VPrediction,
)
from inkdrop.schedules import Schedule

PREDICTIONS = [
    NoisePrediction(),
    DataPrediction(),
    VPrediction(),
    FlowPrediction(),
    ScorePrediction(),
    KarrasPrediction(0.5),
]
EVERY = {
    f"{type(prediction).__name__} on {name}": (prediction, schedule)
    for prediction in PREDICTIONS
    for name, schedule in ALL_SCHEDULES.items()
}


def times(prediction: Prediction, schedule: Schedule) -> list[float]:
    inner = [1e-6, 0.001, 0.3, 0.9, 0.999]
    divides_by_alpha = isinstance(prediction, NoisePrediction | ScorePrediction)
    divides_by_sigma = isinstance(prediction, ScorePrediction | KarrasPrediction)  # F or its weight near the data
    start = [] if divides_by_sigma else [0.0]
    end = [1.0] if schedule.points([1.0])[0].alpha > 0 or not divides_by_alpha else []
    return [*start, *inner, *end]


@every(EVERY)
def test_x_0_comes_back_from_its_own_target(case: tuple[Prediction, Schedule]) -> None:
    prediction, schedule = case
    x_0, eps = torch.randn(2, 5, 3, dtype=torch.float64)
    for now in schedule.points(times(prediction, schedule)):
        x_t = now.alpha * x_0 + now.sigma * eps
        c_skip, c_out, _, _ = prediction.coefficients(now)
        recovered = c_skip * x_t + c_out * prediction.target(x_0, eps, now)
        # Noise prediction divides by alpha, 0.006 at the end of the tables and less for the cosine.
        assert torch.allclose(recovered, x_0, atol=1e-15 / max(now.alpha, 1e-8) + 1e-12), now


@every(EVERY)
def test_tensors_and_floats_agree(case: tuple[Prediction, Schedule]) -> None:
    prediction, schedule = case
    t = times(prediction, schedule)
    tensors = [
        torch.as_tensor(c).double().expand(len(t))
        for c in prediction.coefficients(schedule.point(torch.tensor(t, dtype=torch.float64)))
    ]
    for i, now in enumerate(schedule.points(t)):
        assert prediction.coefficients(now) == pytest.approx([float(c[i]) for c in tensors], rel=1e-14)


def test_targets_are_the_published_ones() -> None:
    x_0, eps = torch.randn(2, 4, 3, dtype=torch.float64)
    now = SCHEDULES["vp"].point(torch.tensor([0.1, 0.3, 0.5, 0.9]))
    alpha, sigma = now.alpha[:, None], now.sigma[:, None]  # type: ignore[index]
    assert torch.equal(NoisePrediction().target(x_0, eps, now), eps)
    assert torch.equal(DataPrediction().target(x_0, eps, now), x_0)
    assert torch.allclose(VPrediction().target(x_0, eps, now), alpha * eps - sigma * x_0, rtol=1e-14)
    assert torch.equal(FlowPrediction().target(x_0, eps, now), eps - x_0)


def test_noise_prediction_has_no_answer_without_signal() -> None:
    with pytest.raises(ZeroDivisionError):
        NoisePrediction().coefficients(SCHEDULES["linear"].points([1.0])[0])


def test_karras_on_unscaled_data_is_the_published_table() -> None:
    """EDM, table 1, last column: D = c_skip x + c_out F(c_in x, c_noise) with sigma_data = 0.5."""
    for now in ALL_SCHEDULES["edm"].points([0.25, 0.5, 1.0]):
        sigma = now.sigma
        expected = (
            0.25 / (sigma**2 + 0.25),
            sigma * 0.5 / (sigma**2 + 0.25) ** 0.5,
            1 / (sigma**2 + 0.25) ** 0.5,
            math.log(sigma) / 4,
        )
        assert KarrasPrediction(0.5).coefficients(now) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ["vp", "linear", "cosine", "ve"])
def test_karras_is_the_same_on_scaled_data(name: str) -> None:
    """On x_t / alpha with noise sigma / alpha every schedule is EDM's case."""
    sigma_data = 0.7
    for now in ALL_SCHEDULES[name].points([0.1, 0.5, 0.8]):
        sigma = now.sigma / now.alpha
        c_skip, c_out, c_in, _ = KarrasPrediction(sigma_data).coefficients(now)
        power = sigma**2 + sigma_data**2
        assert c_skip * now.alpha == pytest.approx(sigma_data**2 / power, rel=1e-12)
        assert c_out == pytest.approx(sigma * sigma_data / power**0.5, rel=1e-12)
        assert c_in * now.alpha == pytest.approx(power**-0.5, rel=1e-12)


@pytest.mark.parametrize("name", ["edm", "vp", "linear"])
def test_input_and_target_of_karras_have_unit_variance(name: str) -> None:
    x_0, eps = 0.5 * torch.randn(200_000, dtype=torch.float64), torch.randn(200_000, dtype=torch.float64)
    for now in ALL_SCHEDULES[name].points([0.3, 0.9]):
        prediction = KarrasPrediction(0.5)
        x_t = now.alpha * x_0 + now.sigma * eps
        assert (prediction.coefficients(now).c_in * x_t).var().item() == pytest.approx(1, abs=0.02)
        assert prediction.target(x_0, eps, now).var().item() == pytest.approx(1, abs=0.02)


def test_the_score_is_the_gradient_of_the_log_density() -> None:
    """For x_0 ~ N(0, 1) the score of x_t is -x_t / (alpha^2 + sigma^2); the estimate it gives is E[x_0 | x_t]."""
    x_t = torch.linspace(-2, 2, 5, dtype=torch.float64)
    for now in ALL_SCHEDULES["sub_vp"].points([0.2, 0.7]):
        power = now.alpha**2 + now.sigma**2
        c_skip, c_out, _, _ = ScorePrediction().coefficients(now)
        assert torch.allclose(c_skip * x_t + c_out * (-x_t / power), now.alpha / power * x_t, rtol=1e-12)
