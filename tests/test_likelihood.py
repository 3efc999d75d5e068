"""Likelihoods against exact densities and probabilities."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from analytic import ALL_SCHEDULES, SCHEDULES, BatchGaussian, ExactDenoiser, exact_pipeline, gaussian, mixture
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence

from inkdrop.codecs import Codec, Pixels, Standardize
from inkdrop.conditioners import Label, Unconditional
from inkdrop.denoiser import Condition, Denoiser, Estimate, NetworkDenoiser
from inkdrop.deviations import Deviation, large, learned, small
from inkdrop.errors import NonFiniteError
from inkdrop.likelihood import LossByNoiseLevel, ODELikelihood, VariationalBound
from inkdrop.networks import MLP
from inkdrop.noises import Gaussian, Noise
from inkdrop.pipeline import Pipeline
from inkdrop.predictions import FlowPrediction, NoisePrediction
from inkdrop.randomness import Generators
from inkdrop.samplers import DDIM
from inkdrop.schedules import VP, LinearInterpolation, Point, Schedule, cosine
from inkdrop.time_grids import Trailing
from inkdrop.variational import discretized

MEAN, COVARIANCE = torch.tensor([0.3, -0.2]), torch.tensor([[0.5, 0.3], [0.3, 0.4]])
# At its last time the usual VP keeps alpha = 0.007, and the law there differs from N(0, s^2) by more than 1e-3 nats.
LONG = {"vp": VP(beta_max=40.0), "linear": LinearInterpolation(), "cosine": cosine(1000)}
BITS = math.log(2)


def streams(count: int) -> Generators:
    return Generators.from_seeds(range(count))


class Standard(BatchGaussian):
    standard = True


def expected_bound(schedule: Schedule, num_steps: int, deviation: str, mean: float, variance: float) -> float:
    """The bound of N(mean, variance) with its exact denoiser, in nats, as a sum over variances in numpy."""
    times = torch.linspace(max(1 / num_steps, schedule.t_min), 1, num_steps, dtype=torch.float64)
    times[-1] = 1  # also where it is the only one
    a, s = schedule.alpha(times).numpy(), schedule.sigma(times).numpy()
    error = variance * s**2 / (a**2 * variance + s**2)  # E (x_0 - E[x_0 | x_t])^2
    kernel = s[1:] ** 2 - (a[1:] / a[:-1]) ** 2 * s[:-1] ** 2  # variance of q(x_t | x_s)
    q = kernel * s[:-1] ** 2 / s[1:] ** 2
    p = {"small": q, "large": kernel}[deviation]
    gap = (a[:-1] * kernel / s[1:] ** 2) ** 2 * error[1:]
    steps = 0.5 * (np.log(p / q) + (q + gap) / p - 1)
    decoder = 0.5 * (math.log(2 * math.pi * s[0] ** 2) + error[0] / s[0] ** 2)
    return a[-1] ** 2 * (variance + mean**2) / (2 * s[-1] ** 2) + steps.sum() + decoder


@pytest.mark.many
@pytest.mark.parametrize("name", [*SCHEDULES, "edm"])  # edm: even steps of 1 / T would leave the trained times
@pytest.mark.parametrize("deviation", [small, large])
def test_the_bound_of_a_gaussian_is_that_of_its_linear_chain(name: str, deviation: Deviation) -> None:
    schedule, count = ALL_SCHEDULES[name], 20_000
    denoiser = ExactDenoiser(schedule, torch.ones(1), torch.tensor([[0.3]]), torch.tensor([[[0.5]]]), noise=Standard())
    x = denoiser.draw(count)
    for num_steps in (1, 2, 10, 100):
        if name == "linear" and num_steps == 1:
            continue  # nothing but noise is seen: the next test
        bound = VariationalBound(num_steps, deviation)(exact_pipeline(denoiser), {"x": x}, streams(count))["total"]
        expected = expected_bound(schedule, num_steps, deviation.__name__, 0.3, 0.5) / BITS  # type: ignore[attr-defined]
        assert (bound.mean() - expected).abs() < 4 * bound.std() / count**0.5, num_steps
        assert expected > -denoiser.log_prob(x).mean() / BITS


@pytest.mark.many
@pytest.mark.parametrize("name", LONG)
def test_the_bound_approaches_minus_log_p_from_above(name: str) -> None:
    """With the large deviation, right for smooth data near t = 0; the small one leaves a gap there at any T."""
    denoiser = ExactDenoiser(LONG[name], torch.ones(1), MEAN[None], COVARIANCE[None], noise=Standard())
    x = denoiser.draw(5000)
    variances, axes = torch.linalg.eigh(COVARIANCE.double())  # along these axes the chain falls apart
    parts = list(zip((axes.T @ MEAN.double()).tolist(), variances.tolist(), strict=True))
    entropy = sum(math.log(2 * math.pi * math.e * variance) / 2 for _, variance in parts)
    gaps = []
    for num_steps in (10, 100, 1000):
        terms = VariationalBound(num_steps, large)(exact_pipeline(denoiser), {"x": x}, streams(len(x)))
        assert torch.allclose(terms["prior"] + terms["diffusion"] + terms["decoder"], terms["total"])
        gap = terms["total"] + denoiser.log_prob(x) / 2 / BITS
        closed = sum(expected_bound(LONG[name], num_steps, "large", *part) for part in parts) - entropy
        gaps.append(closed / 2 / BITS)
        assert (gap.mean() - gaps[-1]).abs() < 4 * gap.std() / len(x) ** 0.5
    assert gaps[0] > 5 * gaps[1] > 25 * gaps[2] > 0
    assert gaps[2] < 0.003


class Affine(Denoiser):
    """The estimate `0.7 x_t + 0.1`, and a variance of its own."""

    def __init__(self, schedule: Schedule, noise: Noise | None = None):
        super().__init__()
        self.schedule, self.noise = schedule, noise or Gaussian()

    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        return Estimate(0.7 * x_t + 0.1, {"variance": x_t.tanh()})


def test_one_step_is_a_vae_with_a_fixed_encoder() -> None:
    schedule = VP(0.1, 2.0)
    x = torch.randn(50, 3, dtype=torch.float64)
    bound = VariationalBound(1)(exact_pipeline(Affine(schedule), dim=3), {"x": x}, streams(50))
    (last,) = schedule.points([1.0])
    eps = streams(50).at("bound", 0).normal([3], torch.float64)
    encoder = Normal(last.alpha * x, last.sigma)
    latent = last.alpha * x + last.sigma * eps
    prior = kl_divergence(encoder, Normal(torch.zeros_like(x), last.sigma)).sum(1)
    evidence = prior - Normal(0.7 * latent + 0.1, last.sigma).log_prob(x).sum(1)
    assert torch.allclose(bound["total"], evidence / 3 / BITS)
    assert bound["diffusion"].abs().max() == 0


def test_a_learned_variance_is_read_from_the_network() -> None:
    """Three steps written out with torch.distributions."""
    schedule, count = VP(), 20
    x = torch.randn(count, 2, dtype=torch.float64)
    ours = VariationalBound(3, learned)(exact_pipeline(Affine(schedule)), {"x": x}, streams(count))
    points = schedule.points([0.0, *Trailing(3)(schedule)[-2::-1]])
    nats = torch.zeros(count, dtype=torch.float64)
    for i in (1, 2, 3):
        now, next = points[i], points[i - 1]
        x_t = now.alpha * x + now.sigma * streams(count).at("bound", i - 1).normal([2], torch.float64)
        estimate, share = 0.7 * x_t + 0.1, (x_t.tanh() + 1) / 2
        if i == 1:
            second = points[2]
            kernel = second.sigma**2 - (second.alpha / now.alpha) ** 2 * now.sigma**2
            low, high = kernel * now.sigma**2 / second.sigma**2, now.sigma**2
            scale = (share * math.log(high) + (1 - share) * math.log(low)).div(2).exp()
            nats -= Normal(estimate, scale).log_prob(x).sum(1)
            continue
        kernel = now.sigma**2 - (now.alpha / next.alpha) ** 2 * next.sigma**2
        low = kernel * next.sigma**2 / now.sigma**2
        scale = (share * math.log(kernel) + (1 - share) * math.log(low)).div(2).exp()
        weights = next.alpha * kernel / now.sigma**2, now.alpha / next.alpha * next.sigma**2 / now.sigma**2
        q, p = (weights[0] * each + weights[1] * x_t for each in (x, estimate))
        nats += kl_divergence(Normal(q, low**0.5), Normal(p, scale)).sum(1)
    nats += (points[-1].alpha / points[-1].sigma * x).square().sum(1) / 2
    assert torch.allclose(ours["total"], nats / 2 / BITS)


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("law", ["gaussian", "mixture"])
def test_the_ode_gives_the_exact_density(name: str, law: str) -> None:
    schedule = LONG[name]
    denoiser = gaussian(schedule, MEAN, COVARIANCE) if law == "gaussian" else mixture(schedule)
    x = denoiser.draw(64)
    ours = ODELikelihood(None, t_min=1e-5)(exact_pipeline(denoiser), {"x": x}, streams(64))
    error = (ours["total"] * 2 * BITS + denoiser.log_prob(x)).abs() / 2
    assert error.max() < 1e-3  # nats per dimension
    assert 20 < ours["network_calls"][0] < 200


@pytest.mark.slow
def test_tolerances_govern_the_error() -> None:
    denoiser = mixture(LONG["linear"])
    x = denoiser.draw(16)
    errors = []
    for tolerance in (1e-3, 1e-5, 1e-8):
        ours = ODELikelihood(None, tolerance, tolerance, 1e-7)(exact_pipeline(denoiser), {"x": x}, streams(16))
        errors.append((ours["total"] * 2 * BITS + denoiser.log_prob(x)).abs().max().item())
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    assert errors[2] < 1e-6


def test_random_probes_are_right_on_average() -> None:
    denoiser = gaussian(LONG["linear"], MEAN, COVARIANCE)
    point = denoiser.draw(1)
    x = point.expand(1000, 2)
    means = []
    for num_probes in (1, 4):
        ours = ODELikelihood(num_probes)(exact_pipeline(denoiser), {"x": x}, streams(1000))["total"]
        means.append(ours.std().item())
        exact = (-denoiser.log_prob(point) / 2 / BITS).item()
        assert ours.mean().item() == pytest.approx(exact, abs=4 * ours.std().item() / 1000**0.5 + 1e-3)
    assert means[0] > 0.1  # the probes matter: off the diagonal, the derivative of D is not 0
    assert means[1] == pytest.approx(means[0] / 2, rel=0.15)


def test_a_sample_has_its_own_random_numbers() -> None:
    denoiser, generators = mixture(LONG["vp"]), streams(6)
    x = denoiser.draw(6)
    chosen = Generators.from_seeds([4, 1])
    for likelihood in (VariationalBound(5), ODELikelihood(1, 1e-8, 1e-8)):
        whole = likelihood(exact_pipeline(denoiser), {"x": x}, generators)["total"]
        part = likelihood(exact_pipeline(denoiser), {"x": x[[4, 1]]}, chosen)["total"]
        assert torch.allclose(whole[[4, 1]], part, atol=1e-5)


class Levels(Pixels):
    """Pixels in float64."""

    def encode(self, batch: Mapping[str, Tensor], generators: Generators | None = None) -> Tensor:
        return batch["x"].double() / 127.5 - 1


def test_the_probability_of_levels_is_below_both_bounds_and_close() -> None:
    count, mean, deviation = 2000, 0.1, 0.25
    denoiser = ExactDenoiser(
        LONG["cosine"], torch.ones(1), torch.tensor([[mean, mean]]), deviation**2 * torch.eye(2)[None], noise=Standard()
    )
    data = Levels().decode(denoiser.draw(count))
    x = Levels().encode({"x": data})
    exact = -discretized(x, torch.full_like(x, mean), deviation, 2 / 255).sum(1) / 2 / BITS
    pipeline = exact_pipeline(denoiser, codec=Levels())
    bound = VariationalBound(30, large)(pipeline, {"x": data}, streams(count))["total"] - exact
    ode = ODELikelihood(None, t_min=1e-5)(pipeline, {"x": data}, streams(count))
    assert set(ode) == {"dequantized", "network_calls"}
    gap = ode["dequantized"] - exact
    for difference, most in ((bound, 0.25), (gap, 0.01)):
        error = difference.std() / count**0.5
        assert -3 * error < difference.mean() < most, (difference.mean(), error)
    assert bound.mean() > 0


def test_real_numbers_have_a_density_in_their_own_unit() -> None:
    denoiser = gaussian(LONG["vp"], torch.zeros(2), COVARIANCE)
    codec = Standardize()
    codec.mean.fill_(5.0)
    codec.std.fill_(3.0)
    x = denoiser.draw(200)
    data = codec.decode(x)
    exact = (-denoiser.log_prob(codec.encode({"x": data}).double()) / 2 + math.log(3)) / BITS
    pipeline = exact_pipeline(denoiser, codec=codec)
    ode = ODELikelihood(None, t_min=1e-4)(pipeline, {"x": data}, streams(200))["total"]
    assert torch.allclose(ode, exact, atol=5e-3)
    bound = VariationalBound(100, large)(pipeline, {"x": data}, streams(200))["total"]
    gap = bound - exact
    assert gap.mean().abs() < 0.1 + 3 * gap.std() / 200**0.5


class Scaled(nn.Module):
    """A network in float32 with dropout: F = w x."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.dropout = nn.Parameter(torch.tensor(-0.5)), nn.Dropout(0.5)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        assert x.dtype == torch.float32
        return self.dropout(self.weight * x)


def test_networks_run_in_their_own_type_without_dropout_and_images_keep_their_shape() -> None:
    pipeline = Pipeline(
        NetworkDenoiser(Scaled(), LinearInterpolation(), FlowPrediction()),
        Unconditional(),
        Pixels(),
        DDIM(Trailing(4)),
        [1, 4, 4],
    ).train()
    data = torch.randint(0, 256, (5, 1, 4, 4), dtype=torch.uint8)
    exact, probes = (ODELikelihood(number)(pipeline, {"x": data}, streams(5))["dequantized"] for number in (None, 1))
    assert torch.allclose(exact, probes, atol=1e-4)  # the derivative is a multiple of 1, which one probe sees exactly
    again = VariationalBound(4)(pipeline, {"x": data}, streams(5))["total"]
    assert torch.equal(VariationalBound(4)(pipeline, {"x": data}, streams(5))["total"], again)
    assert pipeline.training
    assert pipeline.denoiser.network.weight.grad is None  # type: ignore[union-attr]


@pytest.mark.parametrize("likelihood", [ODELikelihood(), ODELikelihood(None), VariationalBound(4), LossByNoiseLevel(3)])
def test_an_inference_mode_changes_nothing(likelihood: Any) -> None:
    network = MLP([2], 8, 1, vector_dim=2)
    nn.init.normal_(network.output[1].weight)
    denoiser = NetworkDenoiser(network, VP(), FlowPrediction())
    pipeline = Pipeline(denoiser, Label(3, 2, dropout=0.1), Standardize(), DDIM(Trailing(4)), [2])
    batch = {"x": torch.randn(5, 2), "label": torch.tensor([0, 1, 2, 1, 0])}
    expected = likelihood(pipeline, batch, streams(5))
    with torch.inference_mode():
        found = likelihood(pipeline, {name: value.clone() for name, value in batch.items()}, streams(5))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


class Latents(Codec):
    def encode(self, batch: Mapping[str, Tensor], generators: Generators | None = None) -> Tensor:
        return batch["x"].double()

    def reconstruct(self, x: Tensor) -> Tensor:
        return x


WRONG: dict[str, tuple[Any, Any, str]] = {
    "noise of another law": (
        VariationalBound(4),
        exact_pipeline(mixture(LONG["vp"], BatchGaussian())),
        "BatchGaussian",
    ),
    "the same for the ODE": (ODELikelihood(), exact_pipeline(mixture(LONG["vp"], BatchGaussian())), "BatchGaussian"),
    "no table": (VariationalBound(), exact_pipeline(mixture(LONG["vp"])), "num_steps"),
    "too many": (VariationalBound(1001), exact_pipeline(mixture(LONG["cosine"])), "exceeds the number of steps"),
    "no density": (VariationalBound(4), exact_pipeline(mixture(LONG["vp"]), codec=Latents()), "no exact density"),
    "nor for the ODE": (ODELikelihood(), exact_pipeline(mixture(LONG["vp"]), codec=Latents()), "no exact density"),
}


@pytest.mark.parametrize(("likelihood", "pipeline", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_has_no_likelihood_is_refused(likelihood: Any, pipeline: Pipeline, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        likelihood(pipeline, {"x": torch.zeros(2, 2)}, streams(2))


class Broken(Affine):
    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        return Estimate(x_t * float("nan"), {})


def test_broken_models_are_no_result() -> None:
    pipeline = exact_pipeline(Broken(LONG["vp"]))
    for likelihood in (VariationalBound(4), ODELikelihood(None)):
        with pytest.raises(NonFiniteError):
            likelihood(pipeline, {"x": torch.zeros(2, 2)}, streams(2))


class Copying(nn.Module):
    """A network that puts out what it is given."""

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize("name", ["vp", "linear_beta"])
def test_the_loss_by_noise_level_is_the_expected_error_of_its_interval(name: str) -> None:
    """F = x_t in place of eps leaves `alpha x_0 + (sigma - 1) eps`."""
    schedule, count = SCHEDULES[name], 4000
    pipeline = exact_pipeline(NetworkDenoiser(Copying(), schedule, NoisePrediction()))
    x = 2 * torch.randn(count, 3, dtype=torch.float64) + 1
    found = LossByNoiseLevel(num_bins=4)(pipeline, {"x": x}, streams(count))
    assert list(found) == ["total", "0.00-0.25", "0.25-0.50", "0.50-0.75", "0.75-1.00"]
    assert torch.allclose(torch.stack(list(found.values())[1:]).mean(0), found["total"])
    for number, errors in enumerate(list(found.values())[1:]):
        t = (torch.arange(250, dtype=torch.float64) + 1 + 250 * number) / 1000  # all steps of a table in the interval
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        expected = (5 * alpha**2 + (sigma - 1) ** 2).mean()
        assert (errors.mean() - expected).abs() < 4 * errors.std() / count**0.5 + 0.01 * expected, number


def test_settings_tell_likelihoods_of_unlike_options_apart() -> None:
    assert VariationalBound(4).settings() == {"likelihood": "VariationalBound", "num_steps": 4, "deviation": "large"}
    chosen = VariationalBound(deviation=functools.partial(small))
    assert chosen.settings() == {"likelihood": "VariationalBound", "num_steps": None, "deviation": "small"}
    assert ODELikelihood(rtol=1e-3).settings() != ODELikelihood().settings()
    assert LossByNoiseLevel(4).settings() == {"likelihood": "LossByNoiseLevel", "num_bins": 4}
