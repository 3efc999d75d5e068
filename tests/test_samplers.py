"""Samplers against diffusers, against exact laws, and their measured order of convergence."""

import pytest
import torch
from analytic import (
    SCHEDULES,
    BatchGaussian,
    ExactDenoiser,
    GivenNoise,
    Plain,
    empirical,
    gaussian,
    mixture,
    sample,
    sliced_w1,
    source,
)
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor, nn

from inkdrop.conditioners import Unconditional
from inkdrop.denoiser import NetworkDenoiser
from inkdrop.deviations import large, small
from inkdrop.guidance import Clip
from inkdrop.noises import Gaussian
from inkdrop.pipeline import Pipeline
from inkdrop.predictions import NoisePrediction
from inkdrop.samplers import DDIM, Ancestral, PredictorCorrector, Sampler, heun, towards
from inkdrop.schedules import Schedule
from inkdrop.time_grids import Leading, Linspace, TimeGrid, Trailing


class TinyNetwork(nn.Module):
    """A fixed, smooth, nonlinear function of x and the timestep."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv_2 = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        shift = torch.sin(c_noise / 200)[:, None, None, None]
        return self.conv_2(torch.tanh(self.conv_1(x) + shift)) + 0.8 * x


@pytest.mark.parametrize("clip", [False, True])
def test_ddim_trajectory_equals_that_of_diffusers(clip: bool) -> None:
    network, x = TinyNetwork(), torch.randn(2, 3, 8, 8)
    scheduler = DDIMScheduler(1000, clip_sample=clip, timestep_spacing="leading")
    scheduler.set_timesteps(50)
    theirs = [x]
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            output = network(theirs[-1], timestep.float().expand(2))
            step = scheduler.step(output, timestep, theirs[-1], use_clipped_model_output=clip)
            theirs.append(step.prev_sample)
    assert (
        max(
            difference(ours, their)
            for ours, their in zip(run(DDIM(Leading(50)), network, x, clip), theirs, strict=True)
        )
        < 1e-4
    )


@pytest.mark.parametrize("variance_type", ["fixed_small", "fixed_large"])
def test_ddpm_trajectory_equals_that_of_diffusers(variance_type: str) -> None:
    network, x = TinyNetwork(), torch.randn(2, 3, 8, 8)
    scheduler = DDPMScheduler(1000, clip_sample=True, variance_type=variance_type, timestep_spacing="leading")
    scheduler.set_timesteps(100)
    generator = torch.Generator().manual_seed(1)
    theirs = [x]
    with torch.no_grad():
        for timestep in scheduler.timesteps:
            output = network(theirs[-1], timestep.float().expand(2))
            theirs.append(scheduler.step(output, timestep, theirs[-1], generator=generator).prev_sample)
    generator.manual_seed(1)
    noises = [torch.randn(x.shape, generator=generator) for _ in range(99)]
    sampler = Ancestral(Leading(100), {"fixed_small": small, "fixed_large": large}[variance_type])
    ours = run(sampler, network, x, True, GivenNoise(noises))
    assert not noises  # the last step draws none, in both
    assert max(difference(a, b) for a, b in zip(ours, theirs, strict=True)) < 1e-4


def run(sampler: Sampler, network: nn.Module, x: Tensor, clip: bool, law: Gaussian | None = None) -> list[Tensor]:
    """All x of a run that starts at x."""
    denoiser = NetworkDenoiser(network, SCHEDULES["linear_beta"], NoisePrediction(), law)
    pipeline = Pipeline(denoiser, Unconditional(), Plain(), sampler, [3, 8, 8])
    first = denoiser.schedule.points(sampler.time_grid(denoiser.schedule)[:1])[0]
    seen = [x]
    wrapped = Clip()(denoiser, pipeline, {}) if clip else denoiser
    sampler(wrapped, x / first.sigma, {}, source(2, denoiser.noise), progress=lambda done, total, x: seen.append(x))
    return seen


def difference(first: Tensor, second: Tensor) -> float:
    return (first - second).abs().max().item()


@pytest.mark.parametrize("name", SCHEDULES)
def test_ddim_with_all_noise_is_ddpm(name: str) -> None:
    denoiser = mixture(SCHEDULES[name])
    ddim, ddpm = sample(denoiser, DDIM(Trailing(20), eta=1.0), 16), sample(denoiser, Ancestral(Trailing(20)), 16)
    assert torch.allclose(ddim, ddpm, atol=1e-12)


LAWFUL = {
    "ddim": DDIM(Trailing(100)),
    "ddim-0.5": DDIM(Trailing(100), eta=0.5),
    "ddpm": Ancestral(Trailing(100)),
    "ddpm-linspace": Ancestral(Linspace(100)),
    "heun": heun(Trailing(50)),
}


# The cosine's first step spans a factor of thousands in sigma / alpha, where Heun's trapezoid extrapolates wildly.
@pytest.mark.many
@pytest.mark.parametrize(
    ("method", "name"), [(m, n) for m in LAWFUL for n in SCHEDULES if (m, n) != ("heun", "cosine")]
)
@pytest.mark.slow
def test_samples_of_a_mixture_have_its_law(method: str, name: str) -> None:
    denoiser = mixture(SCHEDULES[name], BatchGaussian())
    samples = sample(denoiser, LAWFUL[method], 8000)
    floor = sliced_w1(denoiser.draw(8000, 1), denoiser.draw(8000, 2))
    assert sliced_w1(samples, denoiser.draw(8000, 1)) < floor + 0.025


def test_covariance_of_correlated_normal_data_is_kept() -> None:
    covariance = torch.tensor([[1.0, 0.6], [0.6, 0.5]])
    denoiser = gaussian(SCHEDULES["vp"], torch.tensor([2.0, -1.0]), covariance)
    samples = sample(denoiser, heun(Trailing(60)), 4000)
    assert torch.allclose(samples.T.cov(), covariance.double(), atol=0.06)
    assert torch.allclose(samples.mean(0), torch.tensor([2.0, -1.0]).double(), atol=0.06)


def test_samples_of_finitely_many_points_are_those_points() -> None:
    points = torch.tensor([[0.0, 0.0], [1.0, 0.5], [-1.0, 0.7]]).double()
    samples = sample(empirical(SCHEDULES["linear_beta"], points), DDIM(Trailing(200)), 300)
    distance, nearest = torch.cdist(samples, points).min(1)
    assert distance.max() < 1e-6
    assert nearest.bincount(minlength=3).min() > 60


@pytest.mark.parametrize("sampler", [DDIM(Trailing(10), eta=0.7), Ancestral(Trailing(10))], ids=["ddim", "ddpm"])
def test_a_sample_depends_on_its_seed_alone(sampler: Sampler) -> None:
    denoiser = mixture(SCHEDULES["linear_beta"])
    pipeline = Pipeline(denoiser, Unconditional(), Plain(), sampler, [2])
    whole = pipeline({}, range(8))
    assert torch.allclose(pipeline({}, [6, 3]), whole[[6, 3]], atol=1e-6)
    assert not torch.allclose(pipeline({}, [9, 3])[0], whole[6])


def test_ends_of_towards_are_exact() -> None:
    schedule = SCHEDULES["linear"]
    start, middle, end = schedule.points([1.0, 0.5, 0.0])
    x, x_0 = torch.randn(2, 3, 2, dtype=torch.float64)
    for eta in (0.0, 1.0):
        assert torch.equal(towards(x, x_0, middle, end, eta).mean, x_0)
        assert towards(x, x_0, middle, end, eta).std == 0
    assert torch.allclose(towards(x, x_0, start, middle).mean, 0.5 * x + 0.5 * x_0)
    assert towards(x, x_0, start, middle, 1.0).std == middle.sigma


def test_progress_sees_every_move() -> None:
    seen: list[tuple[int, int]] = []
    sample(mixture(SCHEDULES["vp"]), DDIM(Trailing(4)), 2, progress=lambda done, total, x: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_methods_without_a_corrector_refuse_to_stay() -> None:
    class Staying(TimeGrid):
        def __call__(self, schedule: Schedule, t_start: float = 1.0) -> list[float]:
            return [1.0, 0.5, 0.5, 0.0]

    with pytest.raises(ValueError, match="corrector"):
        sample(mixture(SCHEDULES["vp"]), DDIM(Staying()), 2)
    with pytest.raises(ValueError, match=r"the time grid repeats t = 0\.5, but DDIM has no corrector: remove it"):
        DDIM(Staying()).points(SCHEDULES["vp"])
    times = [point.t for point in PredictorCorrector(Staying(), DDIM, 1, 0.1).points(SCHEDULES["vp"])]
    assert times == [1.0, 0.5, 0.5, 0.5, 0.5, 0.0]


def test_the_mixture_denoiser_is_exact() -> None:
    """E[x_0 | x_t] against a brute-force average over many draws of x_0."""
    denoiser: ExactDenoiser = mixture(SCHEDULES["vp"])
    now = denoiser.schedule.points([0.35])[0]
    x_t = torch.tensor([[0.2, 0.1], [-0.5, 0.4]]).double()
    draws = denoiser.draw(400_000)
    weight = (-((x_t[:, None] - now.alpha * draws) ** 2).sum(2) / (2 * now.sigma**2)).softmax(1)
    estimate = denoiser(x_t, now, {})
    mean = weight @ draws
    assert torch.allclose(estimate.x_0, mean, atol=0.01)
    assert torch.allclose(estimate.extras["posterior_variance"], weight @ draws**2 - mean**2, atol=0.01)


@pytest.mark.parametrize("t_start", [-0.1, 0.0, 1e-9, 1.5])
def test_a_start_outside_of_training_is_refused(t_start: float) -> None:
    denoiser = mixture(SCHEDULES["vp"])
    for sampler in (Ancestral(Trailing(5)), DDIM(Trailing(5))):
        with pytest.raises(ValueError, match=f"t_start={t_start} must be from the smallest"):
            sampler.points(denoiser.schedule, t_start)
