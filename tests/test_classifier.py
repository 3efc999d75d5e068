"""A classifier of noised data: what it is shown, its loss, and its network."""

from __future__ import annotations

import math

import pytest
import torch
from analytic import SCHEDULES, Plain, mixture
from labelled import ExactClassifier
from torch import Tensor, nn

from inkdrop.losses import Example, NoisyCrossEntropy
from inkdrop.models.classifier import NoisyClassifier
from inkdrop.networks import Encoder, UNet
from inkdrop.predictions import KarrasPrediction, NoisePrediction
from inkdrop.randomness import Generators
from inkdrop.schedules import EDM, LinearInterpolation
from inkdrop.time_samplers import DiscreteUniform, Uniform

CHAIN = SCHEDULES["linear_beta"]


class Shown(nn.Module):
    """A network that keeps what it is shown and answers with x itself."""

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        self.x, self.c_noise = x, c_noise
        return 3 * x


def test_the_network_sees_noised_data_as_that_of_a_denoiser_does() -> None:
    schedule, x = EDM(), torch.randn(4, 3).double()
    classifier = NoisyClassifier(shown := Shown(), schedule, KarrasPrediction(0.5), Plain(), [3], 3)
    now = schedule.points([0.6])[0]
    classifier(x, now)
    assert torch.allclose(shown.x, x / math.hypot(0.5, now.sigma))
    assert torch.allclose(shown.c_noise, torch.full((4,), math.log(now.sigma) / 4).double())
    with pytest.raises(ValueError, match="alpha = 0"):
        NoisyClassifier(shown, LinearInterpolation(), NoisePrediction(), Plain(), [3], 3)


def test_the_loss_is_the_cross_entropy_at_the_times_and_noise_of_the_positions() -> None:
    classifier = NoisyClassifier(shown := Shown(), CHAIN, NoisePrediction(), Plain(), [3], 3)
    x_0, label = torch.randn(6, 3).double(), torch.tensor([0, 1, 2, 0, 1, 2])
    generators = Generators.from_positions(0, range(6))
    terms = NoisyCrossEntropy(DiscreteUniform())(classifier, Example(x_0, batch={"label": label}), generators)
    now = CHAIN.point(terms.t)
    eps = classifier.noise([3], generators.at("noise"), torch.float64)
    x_t = now.alpha[:, None] * x_0 + now.sigma[:, None] * eps  # type: ignore[index]
    assert torch.allclose(shown.x, x_t)
    assert torch.equal(shown.c_noise, (terms.t * 1000 - 1).round())
    logits = 3 * x_t
    expected = logits.exp().sum(1).log() - logits[torch.arange(6), label]
    assert torch.allclose(terms.loss, expected)
    assert torch.equal(terms.parts["accuracy"], (logits.argmax(1) == label).double())
    given = torch.full((6,), 0.5).double()
    assert torch.equal(
        NoisyCrossEntropy(DiscreteUniform())(classifier, Example(x_0, batch={"label": label}), generators, given).t,
        given,
    )


def test_no_classifier_has_a_lower_loss_than_the_exact_one() -> None:
    schedule = SCHEDULES["vp"]
    x_0 = mixture(schedule).draw(4000)
    modes = torch.distributions.MultivariateNormal(mixture(schedule).means, mixture(schedule).covariances)
    label = (modes.log_prob(x_0[:, None]).argmax(1) == 2).long()  # the modes are apart
    generators = Generators.from_positions(0, range(4000))

    def loss(sharper: float) -> float:
        classifier = ExactClassifier(schedule)
        exact = classifier.forward
        classifier.forward = lambda x, now: sharper * exact(x, now)  # type: ignore[method-assign, assignment]
        t = torch.full((4000,), 0.3).double()
        now = schedule.points([0.3])[0]
        schedule_point, schedule.point = schedule.point, lambda times: now  # type: ignore[method-assign]
        try:
            return (
                NoisyCrossEntropy(Uniform())(classifier, Example(x_0, batch={"label": label}), generators, t)
                .loss.mean()
                .item()
            )
        finally:
            schedule.point = schedule_point  # type: ignore[method-assign]

    assert loss(1.0) < min(loss(0.8), loss(1.25))


def test_the_encoder_is_the_way_down_and_sees_every_position() -> None:
    unet = UNet([1, 8, 8], 8, [1, 2], 1, [4], norm_groups=4)
    network = Encoder(unet, 5)
    assert not any(name.startswith(("network.up", "network.conv_out")) for name in network.state_dict())
    assert torch.equal(network(torch.randn(2, 1, 8, 8), torch.zeros(2)), torch.zeros(2, 5))
    h = torch.randn(1, 16, 4, 4)
    network.network.encode = lambda *given: (h, [], h)  # type: ignore[method-assign, assignment]
    nn.init.normal_(network.out.weight)
    before = network(torch.randn(1, 1, 8, 8), torch.zeros(1))
    h = h.flip(2)  # the mean over positions is as it was
    assert not torch.allclose(network(torch.randn(1, 1, 8, 8), torch.zeros(1)), before, atol=1e-2)
