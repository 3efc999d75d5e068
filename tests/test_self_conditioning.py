"""Self-conditioning: what the network is shown in training and in sampling."""

import pytest
import torch
from analytic import SCHEDULES, Plain
from torch import Tensor, nn

from inkdrop.conditioners import Unconditional
from inkdrop.denoiser.self_conditioned import SelfConditioned
from inkdrop.losses import DenoisingLoss, Example
from inkdrop.pipeline import Pipeline, calls_counted
from inkdrop.predictions import DataPrediction
from inkdrop.randomness import Generators
from inkdrop.samplers import DDIM
from inkdrop.time_grids import Trailing
from inkdrop.time_samplers import Uniform
from inkdrop.weightings import Unit


class Counting(nn.Module):
    """Puts out what it was shown plus 1, and keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.shown: list[Tensor] = []

    def forward(self, x: Tensor, c_noise: Tensor, concat: Tensor) -> Tensor:
        self.shown.append(concat.clone())
        return concat[:, -x.shape[1] :] + self.weight


def denoiser(probability: float = 0.5) -> SelfConditioned:
    return SelfConditioned(Counting(), SCHEDULES["vp"], DataPrediction(), 2, probability=probability)


def shown(model: SelfConditioned) -> list[Tensor]:
    network: Counting = model.network  # type: ignore[assignment]
    return network.shown


def test_sampling_shows_the_estimate_of_the_step_before() -> None:
    model = denoiser()
    pipeline = Pipeline(model, Unconditional(), Plain(), DDIM(Trailing(4)), [2, 3])
    pipeline({}, [0, 1])
    assert [each.unique().tolist() for each in shown(model)] == [[0.0], [1.0], [2.0], [3.0]]
    pipeline({}, [5])  # a run begins with zeros again
    assert [each.unique().tolist() for each in shown(model)][4:] == [[0.0], [1.0], [2.0], [3.0]]


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
def test_its_calls_are_counted(compiled: bool) -> None:
    pipeline = Pipeline(denoiser(), Unconditional(), Plain(), DDIM(Trailing(4)), [2, 3])
    if compiled:
        pipeline.network.compile(backend="eager")
        pipeline({}, [0, 1])
    with calls_counted(pipeline) as calls:
        for seeds in ([0, 1], [2, 3], [4]):
            pipeline({}, seeds)
    assert calls(5) == 4
    pipeline({}, [0])
    assert calls(5) == 4


def test_the_memory_of_a_run_follows_a_choice_of_samples() -> None:
    model = denoiser()
    run = model.begin()
    now = model.schedule.points([0.5])[0]
    run(torch.zeros(3, 2, 1), now, {"concat": torch.zeros(3, 2, 1)[:, :0]})
    run.last = torch.tensor([1.0, 2.0, 3.0])[:, None, None].expand(3, 2, 1)  # type: ignore[assignment]
    run.select(torch.tensor([2, 2, 0]))
    run(torch.zeros(3, 2, 1), now, {"concat": torch.zeros(3, 2, 1)[:, :0]})
    assert shown(model)[-1][:, 0, 0].tolist() == [3.0, 3.0, 1.0]


@pytest.mark.parametrize(("probability", "share"), [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0)])
def test_training_shows_an_estimate_with_this_probability_and_no_gradient(probability: float, share: float) -> None:
    model = denoiser(probability)
    x_0 = torch.randn(2000, 2, 1)
    terms = DenoisingLoss(Uniform(), Unit())(model, Example(x_0), Generators.from_seeds(range(2000)))
    first, second = shown(model)
    assert (first == 0).all()  # the estimate itself is made under zeros
    assert set(second.unique().tolist()) <= {0.0, 1.0}
    assert (second[:, 0, 0] == 1).float().mean().item() == pytest.approx(share, abs=0.04)
    # The output is shown + weight: the gradient is 2 (shown + weight - x_0), without a part through what was shown.
    (gradient,) = torch.autograd.grad(terms.loss.mean(), list(model.network.parameters()))
    assert gradient.item() == pytest.approx((2 * (second + 1 - x_0)).mean().item(), rel=1e-4)


def test_what_was_there_beside_stays() -> None:
    model = denoiser()
    now = model.schedule.points([0.5])[0]
    model(torch.ones(1, 2, 1), now, {"concat": torch.full((1, 1, 1), 7.0)})
    assert shown(model)[0].flatten().tolist() == [7.0, 0.0, 0.0]
