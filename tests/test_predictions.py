"""Every prediction on every schedule, at both ends of time too."""

import pytest
import torch
from analytic import SCHEDULES

from inkdrop.predictions import DataPrediction, FlowPrediction, NoisePrediction, Prediction, VPrediction
from inkdrop.schedules import Schedule

PREDICTIONS = [NoisePrediction(), DataPrediction(), VPrediction(), FlowPrediction()]
EVERY = [
    pytest.param(prediction, schedule, id=f"{type(prediction).__name__}-{name}")
    for prediction in PREDICTIONS
    for name, schedule in SCHEDULES.items()
]


def times(prediction: Prediction, schedule: Schedule) -> list[float]:
    inner = [0.0, 1e-6, 0.001, 0.3, 0.9, 0.999]
    signal_at_end = schedule.points([1.0])[0].alpha > 0
    return [*inner, 1.0] if signal_at_end or not isinstance(prediction, NoisePrediction) else inner


@pytest.mark.parametrize(("prediction", "schedule"), EVERY)
def test_x_0_comes_back_from_its_own_target(prediction: Prediction, schedule: Schedule) -> None:
    x_0, eps = torch.randn(2, 5, 3, dtype=torch.float64)
    for now in schedule.points(times(prediction, schedule)):
        x_t = now.alpha * x_0 + now.sigma * eps
        c_skip, c_out, _, _ = prediction.coefficients(now)
        recovered = c_skip * x_t + c_out * prediction.target(x_0, eps, now)
        # Noise prediction divides by alpha, 0.006 at the end of the tables and less for the cosine.
        assert torch.allclose(recovered, x_0, atol=1e-15 / max(now.alpha, 1e-8) + 1e-12), now


@pytest.mark.parametrize(("prediction", "schedule"), EVERY)
def test_tensors_and_floats_agree(prediction: Prediction, schedule: Schedule) -> None:
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
