"""Exact denoisers that everything is tested against, and distances between samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from inkdrop.codecs import Codec
from inkdrop.conditioners import Unconditional
from inkdrop.denoiser import Condition, Denoiser, Estimate
from inkdrop.noises import Gaussian, Noise, NoiseSource
from inkdrop.pipeline import Pipeline
from inkdrop.randomness import Generators
from inkdrop.samplers import DDIM, Sampler
from inkdrop.schedules import (
    EDM,
    VE,
    VP,
    Interpolated,
    Laplace,
    LinearInterpolation,
    Point,
    Scalar,
    Schedule,
    Shifted,
    SubVP,
    ZeroTerminalSNR,
    cosine,
    linear_beta,
    over,
    scaled_linear,
    sigmoid,
    sigmoid_beta,
    sqrt,
)
from inkdrop.time_grids import Trailing
from inkdrop.variational import gaussian as log_density

SCHEDULES: dict[str, Schedule] = {
    "linear_beta": linear_beta(1000, 1e-4, 0.02),
    "cosine": cosine(1000),
    "vp": VP(),
    "linear": LinearInterpolation(),
}
ALL_SCHEDULES: dict[str, Schedule] = {
    **SCHEDULES,
    "scaled_linear": scaled_linear(1000, 0.00085, 0.012),
    "sigmoid_beta": sigmoid_beta(1000, 1e-4, 0.02),
    "sigmoid": sigmoid(1000),
    "sqrt": sqrt(1000),
    "sub_vp": SubVP(),
    "ve": VE(),
    "edm": EDM(),
    "laplace": Laplace(),
    "zero_terminal_snr": ZeroTerminalSNR(linear_beta(1000, 1e-4, 0.02)),
    "zero_terminal_snr of vp": ZeroTerminalSNR(VP()),
    "shifted": Shifted(LinearInterpolation(), 3.0),
    "shifted table": Shifted(cosine(1000), 2.0),
    "shifted to less noise": Shifted(VP(), 0.5),
    "interpolated": Interpolated(VP(), cosine(1000)),
    "interpolated shifts": Interpolated(Shifted(VP(), 0.5), Shifted(VP(), 4.0)),
}


class _OnDemand(dict[str, Tensor]):
    """The posterior variance, computed where it is asked for."""

    def __init__(self, variance: Callable[[], Tensor]):
        super().__init__()
        self.variance = variance

    def __missing__(self, name: str) -> Tensor:
        if name != "posterior_variance":
            raise KeyError(name)
        return self.variance()


class ExactDenoiser(Denoiser):
    """E[x_0 | x_t] where x_0 is drawn from a mixture of Gaussians, on any schedule, for x of shape (B, D).

    x_t has the law `sum_k w_k N(a m_k, a^2 C_k + s^2 I)`, and given the mode `E[x_0] = m_k + a C_k S_k^-1 (x - a m_k)`.
    The variance of x_0 given x_t, per coordinate, stands beside it as the extra "posterior_variance".
    """

    def __init__(
        self, schedule: Schedule, weights: Tensor, means: Tensor, covariances: Tensor, noise: Noise | None = None
    ):
        super().__init__()
        self.schedule, self.noise = schedule, noise or Gaussian()
        self.weights, self.means, self.covariances = weights.double(), means.double(), covariances.double()
        self.scales, self.axes = torch.linalg.eigh(self.covariances)  # (K, D), (K, D, D)
        self.turn = self.axes.transpose(0, 1).flatten(1).contiguous()  # (D, K D), to the axes of all modes at once
        self.middles = torch.einsum("kde,kd->ke", self.axes, self.means)

    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        alpha, sigma = (over(value, x_t[:, None]) for value in (now.alpha, now.sigma))
        deviation = (x_t.double() @ self.turn).unflatten(1, self.means.shape) - alpha * self.middles  # (B, K, D)
        power = alpha**2 * self.scales + sigma**2
        share = (self.weights.log() - ((deviation**2 / power).sum(-1) + power.log().sum(-1)) / 2).softmax(1)
        along = alpha * self.scales / power * deviation
        x_0 = share @ self.means + (share[:, :, None] * along).flatten(1) @ self.turn.T

        def variance() -> Tensor:
            given_mode = self.means + torch.einsum("kde,bke->bkd", self.axes, along)
            within = torch.einsum("kde,bke->bkd", self.axes**2, (self.scales * sigma**2 / power).expand_as(along))
            return (share[:, :, None] * (within + (given_mode - x_0[:, None]) ** 2)).sum(1)

        return Estimate(x_0, _OnDemand(variance))

    def log_prob(self, x_0: Tensor) -> Tensor:
        """Exact log-density of x_0 (B, D) in nats, (B)."""
        modes = torch.distributions.MultivariateNormal(self.means, self.covariances)
        return (modes.log_prob(x_0[:, None]) + self.weights.log()).logsumexp(1)

    def draw(self, count: int, seed: int = 0) -> Tensor:
        """Exact samples of x_0, (count, D)."""
        generator = torch.Generator().manual_seed(seed)
        mode = torch.multinomial(self.weights, count, replacement=True, generator=generator)
        normal = torch.randn(count, self.means.shape[1], dtype=torch.float64, generator=generator)
        roots = self.axes * self.scales.clamp(min=0).sqrt()[:, None]
        return self.means[mode] + torch.einsum("bde,be->bd", roots[mode], normal)

    def draw_given(self, x_t: Tensor, now: Point, seed: int = 0) -> Tensor:
        """Exact samples of x_0 given x_t (B, D), of which each has one."""
        generator = torch.Generator().manual_seed(seed)
        deviation = torch.einsum("kde,bkd->bke", self.axes, x_t[:, None] - now.alpha * self.means)
        power = now.alpha**2 * self.scales + now.sigma**2
        share = (self.weights.log() - (deviation**2 / power + power.log()).sum(2) / 2).softmax(1)
        mode = torch.multinomial(share, 1, generator=generator)[:, 0]
        normal = torch.randn(x_t.shape, dtype=torch.float64, generator=generator)
        along = now.alpha * (self.scales / power)[mode] * deviation[torch.arange(len(x_t)), mode]
        along = along + (self.scales[mode] / power[mode]).sqrt() * now.sigma * normal
        return self.means[mode] + torch.einsum("bde,be->bd", self.axes[mode], along)


def gaussian(schedule: Schedule, mean: Tensor, covariance: Tensor) -> ExactDenoiser:
    """Data N(mean, covariance)."""
    return ExactDenoiser(schedule, torch.ones(1), mean[None], covariance[None])


def empirical(schedule: Schedule, points: Tensor) -> ExactDenoiser:
    """Data that are one of finitely many points (N, D)."""
    count, dim = points.shape
    return ExactDenoiser(schedule, torch.full((count,), 1 / count), points, torch.zeros(count, dim, dim))


def mixture(schedule: Schedule, noise: Noise | None = None, spread: float = 1.0) -> ExactDenoiser:
    """The mixture most tests use: three correlated modes of unequal weight in the plane, `spread` their variance."""
    weights = torch.tensor([0.5, 0.3, 0.2])
    means = torch.tensor([[-1.0, -0.5], [1.0, 0.8], [0.6, -1.2]])
    covariances = torch.tensor(
        [[[0.04, 0.02], [0.02, 0.03]], [[0.02, -0.01], [-0.01, 0.05]], [[0.01, 0.0], [0.0, 0.02]]]
    )
    return ExactDenoiser(schedule, weights, means, spread * covariances, noise)


class BatchGaussian(Noise):
    """Standard normal noise from one stream for the whole batch: fast, where thousands of points are only a crowd."""

    def __call__(self, shape: Iterable[int], generators: Generators, dtype: torch.dtype = torch.float32) -> Tensor:
        generator = torch.Generator().manual_seed(int(generators.keys[0]))
        return torch.randn(len(generators), *shape, dtype=dtype, generator=generator)


class GivenNoise(Gaussian):
    """Hands out tensors made beforehand, so that another library can be given the same."""

    def __init__(self, tensors: list[Tensor]):
        self.tensors = tensors

    def __call__(self, shape: object, generators: object, dtype: torch.dtype = torch.float32) -> Tensor:
        return self.tensors.pop(0)


class Plain(Codec):
    """Data that are x themselves, in float64."""

    def encode(self, batch: Mapping[str, Tensor], generators: Generators | None = None) -> Tensor:
        return batch["x"].double()

    def reconstruct(self, x: Tensor) -> Tensor:
        return x

    def log_probability(self, data: Tensor, mean: Tensor, deviation: Scalar) -> Tensor:
        return log_density(data.double(), mean, deviation)

    def dequantize(self, data: Tensor, generators: Generators) -> tuple[Tensor, Tensor]:
        return data.double(), torch.zeros(())


def source(count: int, law: Noise, seed: int = 0) -> NoiseSource:
    """A noise source for `count` rows."""
    return NoiseSource(law, Generators.from_seeds(range(seed, seed + count)))


def exact_pipeline(
    denoiser: Denoiser, sampler: Sampler | None = None, dim: int = 2, codec: Codec | None = None
) -> Pipeline:
    """A pipeline around a denoiser, without conditions; x are the data themselves unless a codec is given."""
    return Pipeline(denoiser, Unconditional(), codec or Plain(), sampler or DDIM(Trailing(10)), [dim])


def sample(denoiser: Denoiser, sampler: Sampler, count: int, dim: int = 2, **arguments: object) -> Tensor:
    """Samples (count, dim) in float64 on seeds 0, 1, ..., through a pipeline."""
    return exact_pipeline(_Double(denoiser), sampler, dim)({}, range(count), **arguments)


class _Double(Denoiser):
    """Puts the first noise in float64, so that everything after it is too."""

    def __init__(self, denoiser: Denoiser):
        super().__init__()
        self.denoiser, self.schedule = denoiser, denoiser.schedule
        self.noise = _DoubleNoise(denoiser.noise)

    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        return self.denoiser(x_t, now, cond)

    def select(self, index: Tensor) -> None:
        self.denoiser.select(index)


class _DoubleNoise(Noise):
    def __init__(self, law: Noise):
        self.law = law

    def __call__(self, shape: Iterable[int], generators: Generators, dtype: torch.dtype = torch.float32) -> Tensor:
        return self.law(shape, generators, torch.float64)


def standard_errors(denoiser: ExactDenoiser, x: Tensor) -> Tensor:
    """How many standard errors the moments of samples (N, 2) are off: mean, covariance, and each mode's share and size.

    A mode's size is its share times the square of the distance from its middle, in its own deviations: E = 2 w.
    """
    modes = torch.distributions.MultivariateNormal(denoiser.means, denoiser.covariances)
    shares = (modes.log_prob(x[:, None]) + denoiser.weights.log()).softmax(1)
    gaps = x[:, None] - denoiser.means
    squares = torch.einsum("nki,kij,nkj->nk", gaps, denoiser.covariances.inverse(), gaps)
    mean = denoiser.weights @ denoiser.means
    apart = denoiser.means - mean
    covariance = (denoiser.weights[:, None, None] * (denoiser.covariances + apart[:, :, None] * apart[:, None])).sum(0)
    products = ((x - mean)[:, :, None] * (x - mean)[:, None]).flatten(1)
    seen = torch.cat([x, products, shares, shares * squares], 1)
    expected = torch.cat([mean, covariance.flatten(), denoiser.weights, 2 * denoiser.weights])
    return (seen.mean(0) - expected).abs() / (seen.std(0) / len(x) ** 0.5)


def sliced_w1(first: Tensor, second: Tensor, directions: int = 64) -> float:
    """Mean over directions of the 1-Wasserstein distance between equally many points (N, D)."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.nn.functional.normalize(torch.randn(first.shape[1], directions, generator=generator).double(), dim=0)
    return ((first @ axes).sort(0).values - (second @ axes).sort(0).values).abs().mean().item()
