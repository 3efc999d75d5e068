"""The variational bound as a training loss: against the evaluated bound, and against exact reverse variances."""

import math

import pytest
import torch
from analytic import SCHEDULES, Plain
from torch import Tensor, nn

from inkdrop.conditioners import Unconditional
from inkdrop.denoiser import NetworkDenoiser
from inkdrop.deviations import Deviation, large, learned, small
from inkdrop.likelihood import VariationalBound
from inkdrop.losses import DenoisingLoss, Example, HybridLoss, VariationalLoss, minibatch_ot
from inkdrop.networks import LearnedVariance
from inkdrop.noises import Gaussian, Noise, Offset
from inkdrop.pipeline import Pipeline
from inkdrop.predictions import DataPrediction, NoisePrediction
from inkdrop.randomness import Generators
from inkdrop.samplers import DDIM, Ancestral
from inkdrop.schedules import Table, linear_beta
from inkdrop.time_grids import Trailing
from inkdrop.time_samplers import DiscreteUniform, LossAware, Stratified, Uniform
from inkdrop.weightings import Unit

VARIANCE = 0.3  # of the data, N(0, VARIANCE)
CHAIN = linear_beta(5, 0.1, 0.7)


class Exact(nn.Module):
    """E[x_0 | x_t] for data N(0, VARIANCE), and one v for each step beside it, both of which can be trained."""

    def __init__(self, chain: Table):
        super().__init__()
        t = torch.arange(1, chain.num_timesteps + 1).double() / chain.num_timesteps
        alpha, sigma = chain.alpha(t), chain.sigma(t)
        self.factor = nn.Parameter(alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2))
        self.v = nn.Parameter(torch.zeros(chain.num_timesteps).double())

    def forward(self, x: Tensor, c_noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        step = c_noise.round().long()
        return self.factor[step, None] * x, {"variance": self.v[step, None].expand_as(x)}


def denoiser(chain: Table = CHAIN) -> NetworkDenoiser:
    return NetworkDenoiser(Exact(chain), chain, DataPrediction()).double()


def data(count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return VARIANCE**0.5 * torch.randn(count, 2, dtype=torch.float64, generator=generator)


def loss(deviation: Deviation, levels: int | None = None) -> VariationalLoss:
    return VariationalLoss(DenoisingLoss(DiscreteUniform(), Unit()), deviation, levels)


@pytest.mark.many
@pytest.mark.parametrize("deviation", [small, large, learned])
def test_the_mean_over_all_steps_is_the_evaluated_bound(deviation: Deviation) -> None:
    count, model = 40_000, denoiser()
    x_0 = data(count)
    pipeline = Pipeline(model, Unconditional(), Plain(), DDIM(Trailing(5)), [2])
    bits = VariationalBound(deviation=deviation)(pipeline, {"x": x_0}, Generators.from_seeds(range(count)))["total"]
    nats = [
        loss(deviation)(
            model,
            Example(x_0),
            Generators.from_seeds(range(count)).at(f"step {i}"),
            torch.full((count,), i / 5).double(),
        ).loss.mean()
        for i in range(1, 6)
    ]
    assert torch.stack(nats).mean().item() == pytest.approx(math.log(2) * bits.mean().item(), rel=0.01)


@pytest.mark.slow
def test_drawn_steps_give_the_same_mean() -> None:
    count, model = 100_000, denoiser()
    x_0, generators = data(count), Generators.from_seeds(range(count))
    drawn = loss(small)(model, Example(x_0), generators).loss.mean().item()
    steps = torch.arange(count).double() % 5 + 1
    given = loss(small)(model, Example(x_0), generators, steps / 5).loss.mean().item()
    assert drawn == pytest.approx(given, rel=0.02)


def exact_reverse_variance(step: int) -> float:
    """Var(x_s | x_t) for data N(0, VARIANCE), by conditioning of two normal numbers; s = 0 is the data."""
    now, before = CHAIN.points([step / 5, (step - 1) / 5])
    power = now.alpha**2 * VARIANCE + now.sigma**2
    power_before = before.alpha**2 * VARIANCE + before.sigma**2
    ratio = now.alpha / before.alpha
    return power_before - (ratio * power_before) ** 2 / power


@pytest.mark.slow
def test_the_learned_variance_becomes_that_of_the_exact_reverse_step() -> None:
    model = denoiser()
    network: Exact = model.network  # type: ignore[assignment]
    hybrid = HybridLoss(loss(learned), weight=1.0)
    optimizer = torch.optim.Adam([network.v], 0.03)
    count = 1000
    for number in range(300):
        optimizer.zero_grad()
        generators = Generators.from_positions(0, range(number * count, (number + 1) * count))
        steps = (torch.arange(count).double() % 5 + 1) / 5
        hybrid(model, Example(data(count, number)), generators, steps).loss.mean().backward()
        optimizer.step()
    for step in range(2, 6):
        now, before = CHAIN.points([step / 5, (step - 1) / 5])
        deviation = learned(now, before, {"variance": network.v[step - 1].detach()[None, None]})
        assert float(deviation) ** 2 == pytest.approx(exact_reverse_variance(step), rel=0.03), step
    # Steps drawn with it have the exact law of the data, which neither small nor large gives on five steps.
    pipeline = Pipeline(model, Unconditional(), Plain(), Ancestral(Trailing(5), learned), [2])
    with torch.no_grad():
        spread = pipeline({}, range(20_000)).var().item()
    last = exact_reverse_variance(1)  # the last step adds no noise
    assert spread + last == pytest.approx(VARIANCE, rel=0.03)


def test_the_bound_of_the_hybrid_loss_teaches_the_variance_only() -> None:
    model = denoiser()
    network: Exact = model.network  # type: ignore[assignment]
    x_0, generators = data(500), Generators.from_seeds(range(500))
    hybrid = HybridLoss(loss(learned), weight=10.0)
    together = torch.autograd.grad(hybrid(model, Example(x_0), generators).loss.mean(), [network.factor, network.v])
    simple = DenoisingLoss(DiscreteUniform(), Unit())(model, Example(x_0), generators).loss.mean()
    assert torch.allclose(together[0], torch.autograd.grad(simple, network.factor)[0], rtol=1e-10)
    assert (together[1] != 0).all()


def test_levels_have_probabilities() -> None:
    """With a decoder much narrower than a level and a perfect mean, the first step costs nothing."""
    chain = linear_beta(3, 1e-8, 1e-8)

    class Perfect(nn.Module):
        def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
            return x_0

    x_0 = (torch.randint(256, (50, 2)) / 127.5 - 1).double()
    model = NetworkDenoiser(Perfect(), chain, DataPrediction())
    first = loss(small, 256).bound(
        model,
        Example(x_0),
        DenoisingLoss(DiscreteUniform(), Unit()).attempt(
            model, Example(x_0), Generators.from_seeds(range(50)), torch.full((50,), 1 / 3).double()
        ),
        x_0,
    )
    assert first.abs().max() < 1e-6


def test_a_closed_form_schedule_is_refused() -> None:
    model = NetworkDenoiser(nn.Identity(), SCHEDULES["vp"], NoisePrediction())
    with pytest.raises(ValueError, match="weighting=likelihood"):
        loss(small).check(model)


def test_half_of_the_channels_say_the_variance() -> None:
    network = LearnedVariance(lambda out_channels: nn.Conv2d(3, out_channels, 1), 3)
    network.network.forward = lambda x, c_noise: torch.cat([x, 2 * x], dim=1)  # type: ignore[method-assign, assignment]
    x = torch.randn(2, 3, 4, 4)
    F, extras = network(x, torch.zeros(2))
    assert torch.equal(F, x)
    assert torch.equal(extras["variance"], 2 * x)


def test_a_loss_aware_sampler_of_the_bound_hears_of_the_bound() -> None:
    sampler = LossAware(DiscreteUniform(), num_bins=5, num_losses=100)
    variational = VariationalLoss(DenoisingLoss(sampler, Unit()), small, None)
    count, model = 4000, denoiser()
    first = variational(model, Example(data(count)), Generators.from_seeds(range(count)))
    assert sampler.losses.abs().max() <= first.loss.abs().max()
    assert (sampler.counts >= 100).all()
    later = variational(model, Example(data(count, 1)), Generators.from_seeds(range(count)).at("later"))
    assert later.loss.mean().item() == pytest.approx(first.loss.mean().item(), rel=0.1)
    assert later.loss.std() < first.loss.std()


@pytest.mark.parametrize(
    ("denoising", "noise", "message"),
    [
        (DenoisingLoss(DiscreteUniform(), Unit()), Offset(0.1), "noise=gaussian"),
        (DenoisingLoss(DiscreteUniform(), Unit(), minibatch_ot), Gaussian(), "coupling=independent"),
        (DenoisingLoss(Uniform(), Unit()), Gaussian(), "time_sampler=discrete"),
    ],
)
def test_what_would_break_the_bound_is_refused(denoising: DenoisingLoss, noise: Noise, message: str) -> None:
    model = NetworkDenoiser(nn.Identity(), SCHEDULES["linear_beta"], NoisePrediction(), noise)
    for objective in (
        VariationalLoss(denoising, small, None),
        HybridLoss(VariationalLoss(denoising, learned, None)),
    ):
        with pytest.raises(ValueError, match=message):
            objective.check(model)


def test_the_hybrid_objective_weighs_bits_per_element() -> None:
    """Nichol and Dhariwal 2021, equation 16: L_simple + 0.001 L_vlb."""
    model, x_0, generators = denoiser(), data(50), Generators.from_seeds(range(50))
    terms = HybridLoss(loss(learned))(model, Example(x_0), generators)
    simple = DenoisingLoss(DiscreteUniform(), Unit())(model, Example(x_0), generators).loss
    assert torch.allclose(terms.loss, simple + 0.001 * terms.parts["bound"] / math.log(2))
    assert VariationalLoss(DenoisingLoss(Stratified(DiscreteUniform()), Unit()), small, None).check(model) is None
