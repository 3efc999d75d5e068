"""Every schedule x prediction x time sampler x weighting trains a step, or is refused with the reason."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
import torch
from analytic import ALL_SCHEDULES

from inkdrop.denoiser import NetworkDenoiser
from inkdrop.losses import DenoisingLoss, Example
from inkdrop.networks import MLP
from inkdrop.predictions import (
    DataPrediction,
    FlowPrediction,
    KarrasPrediction,
    NoisePrediction,
    Prediction,
    ScorePrediction,
    VPrediction,
)
from inkdrop.randomness import Generators
from inkdrop.schedules import Schedule
from inkdrop.time_samplers import (
    DiscreteUniform,
    LogitNormal,
    LogNormalSigma,
    LossAware,
    Stratified,
    TimeSampler,
    Uniform,
)
from inkdrop.weightings import EDM, P2, Likelihood, MinSNR, Simple, SoftMinSNR, Unit, Weighting

PREDICTIONS = [
    NoisePrediction(),
    DataPrediction(),
    VPrediction(),
    FlowPrediction(),
    ScorePrediction(),
    KarrasPrediction(),
]
TIME_SAMPLERS = [
    DiscreteUniform(),
    Uniform(),
    LogNormalSigma(),
    LogitNormal(),
    Stratified(Uniform()),
    Stratified(DiscreteUniform()),
    LossAware(Uniform(), 4),
]
WEIGHTINGS: list[Weighting] = [Unit(), Simple(), MinSNR(), SoftMinSNR(), P2(), EDM(), Likelihood()]


def pairs(prediction: Prediction) -> Iterable[tuple[TimeSampler, Weighting]]:
    """All pairs for one prediction; for each other one, each time sampler and weighting once, in other pairs."""
    if isinstance(prediction, VPrediction):
        return itertools.product(TIME_SAMPLERS, WEIGHTINGS)
    turned = PREDICTIONS.index(prediction)
    return zip(TIME_SAMPLERS, [*WEIGHTINGS[turned:], *WEIGHTINGS[:turned]], strict=True)


def draws_steps(time_sampler: TimeSampler) -> bool:
    return isinstance(getattr(time_sampler, "law", time_sampler), DiscreteUniform)


@pytest.mark.many
@pytest.mark.parametrize("prediction", PREDICTIONS, ids=lambda prediction: type(prediction).__name__)
@pytest.mark.parametrize("schedule", ALL_SCHEDULES.values(), ids=ALL_SCHEDULES.keys())
def test_every_composition_trains_a_step_or_says_why_not(schedule: Schedule, prediction: Prediction) -> None:
    network = MLP([2], 8, 1)
    no_signal = schedule.points([1.0])[0].alpha == 0
    if no_signal and isinstance(prediction, NoisePrediction | ScorePrediction):
        with pytest.raises(ValueError, match="alpha = 0"):
            NetworkDenoiser(network, schedule, prediction)
        return
    denoiser = NetworkDenoiser(network, schedule, prediction)
    x_0, generators = torch.randn(6, 2), Generators.from_positions(0, range(6))
    for time_sampler, weighting in pairs(prediction):
        loss = DenoisingLoss(time_sampler, weighting)
        if draws_steps(time_sampler) and schedule.num_timesteps is None:
            with pytest.raises(ValueError, match="time_sampler=uniform"):
                loss.check(denoiser)
            continue
        loss.check(denoiser)
        before = [weight.clone() for weight in network.parameters()]
        network.zero_grad()
        value = loss(denoiser, Example(x_0), generators).loss.mean()
        value.backward()
        gradients = [weight.grad for weight in network.parameters()]
        assert all(gradient is not None and bool(gradient.isfinite().all()) for gradient in gradients)
        torch.optim.SGD(network.parameters(), 1e-3 / (1 + torch.nn.utils.get_total_norm(gradients))).step()
        moved = any(not torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))
        assert moved, (time_sampler, weighting)
        assert value.isfinite(), (time_sampler, weighting)
