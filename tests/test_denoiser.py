"""The denoiser: what the network sees, and in which precision its answer is used."""

import pytest
import torch
from analytic import SCHEDULES
from torch import Tensor, nn

from inkdrop.denoiser import NetworkDenoiser
from inkdrop.noises import NoiseSource
from inkdrop.predictions import FlowPrediction, NoisePrediction, VPrediction
from inkdrop.randomness import Generators
from inkdrop.samplers import DDIM
from inkdrop.time_grids import Trailing


class Recorder(nn.Module):
    """Remembers its inputs and answers with a given output."""

    def __init__(self, answer: object):
        super().__init__()
        self.answer, self.seen = answer, {}

    def forward(self, x: Tensor, c_noise: Tensor, **cond: Tensor) -> object:
        self.seen = {"x": x, "c_noise": c_noise, **cond}
        return self.answer


def test_the_true_noise_gives_the_data_back() -> None:
    x_0, eps = torch.randn(2, 3, 1, 4, 4)
    network = Recorder(eps)
    denoiser = NetworkDenoiser(network, SCHEDULES["linear_beta"], NoisePrediction())
    now = denoiser.schedule.point(torch.tensor([0.1, 0.5, 0.9]))
    x_t = now.alpha.view(3, 1, 1, 1).float() * x_0 + now.sigma.view(3, 1, 1, 1).float() * eps
    assert torch.allclose(denoiser(x_t, now, {}).x_0, x_0, atol=1e-5)
    assert torch.equal(network.seen["c_noise"], torch.tensor([99.0, 499.0, 899.0]))


def test_a_grid_point_tells_every_row_its_index_and_passes_conditions_on() -> None:
    network = Recorder(torch.zeros(2, 3))
    denoiser = NetworkDenoiser(network, SCHEDULES["linear_beta"], VPrediction())
    vector = torch.randn(2, 5)
    denoiser(torch.randn(2, 3), denoiser.schedule.points([0.25])[0], {"vector": vector})
    assert network.seen["c_noise"].tolist() == [249.0, 249.0]
    assert network.seen["vector"] is vector


def test_low_precision_of_the_network_does_not_reach_the_sum() -> None:
    """At t = 1 noise prediction divides by alpha = 0.006; in bfloat16 that would cost half of x_0."""
    x_0, eps = torch.randn(2, 64, 8)
    eps = eps.bfloat16().float()
    denoiser = NetworkDenoiser(Recorder(eps.bfloat16()), SCHEDULES["linear_beta"], NoisePrediction())
    now = denoiser.schedule.points([1.0])[0]
    estimate = denoiser(now.alpha * x_0 + now.sigma * eps, now, {}).x_0
    assert estimate.dtype == torch.float32
    assert (estimate - x_0).abs().max() < 1e-3


def test_further_outputs_stand_beside_the_estimate() -> None:
    variance = torch.rand(2, 3)
    denoiser = NetworkDenoiser(Recorder((torch.zeros(2, 3), {"variance": variance})), SCHEDULES["vp"], VPrediction())
    estimate = denoiser(torch.randn(2, 3), denoiser.schedule.points([0.5])[0], {})
    assert estimate.extras["variance"] is variance


def test_pairs_without_an_answer_at_pure_noise_are_refused() -> None:
    with pytest.raises(ValueError, match="prediction=flow"):
        NetworkDenoiser(nn.Identity(), SCHEDULES["linear"], NoisePrediction())
    NetworkDenoiser(nn.Identity(), SCHEDULES["linear"], FlowPrediction())


def test_a_network_in_low_precision_is_told_the_time_and_x_as_they_are() -> None:
    """bfloat16 knows no 999, and only some of the thousand steps."""

    class Low(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.told = nn.Linear(2, 2), list[Tensor]()

        def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
            assert x.dtype == c_noise.dtype == torch.float32
            self.told.append(c_noise)
            return self.linear(x)

    network, states = Low(), []
    denoiser = NetworkDenoiser(network, SCHEDULES["linear_beta"], NoisePrediction())
    noise = NoiseSource(denoiser.noise, Generators.from_seeds(range(3)))
    with torch.autocast("cpu", torch.bfloat16):
        assert network(torch.zeros(1, 2), torch.zeros(1)).dtype == torch.bfloat16
        network.told.clear()
        sampler = DDIM(Trailing(1000))
        x_0 = sampler(denoiser, torch.randn(3, 2), {}, noise, progress=lambda done, total, x: states.append(x))
        denoiser(torch.randn(1, 2), denoiser.schedule.point(torch.tensor([0.999]).double()), {})
    assert [each[0].item() for each in network.told] == [*range(999, -1, -1), 998]
    assert {x.dtype for x in (*states, x_0)} == {torch.float32}
