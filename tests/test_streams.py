"""Random streams below the pipeline, and noise within a mask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest
import torch
from analytic import SCHEDULES, Plain, exact_pipeline, mixture, source
from torch import Tensor, nn

from inkdrop.conditioners import Unconditional
from inkdrop.constraints import Constraint, Transition
from inkdrop.denoiser import Condition, Denoiser, Estimate, NetworkDenoiser
from inkdrop.losses import DenoisingLoss, Example
from inkdrop.noises import Brownian, Draw, Gaussian, Move, Noise, Offset
from inkdrop.pipeline import Pipeline
from inkdrop.predictions import DataPrediction
from inkdrop.randomness import Generators
from inkdrop.samplers import DDIM, Ancestral
from inkdrop.schedules import Point
from inkdrop.time_grids import Trailing
from inkdrop.time_samplers import Uniform
from inkdrop.weightings import Unit

SEEDS = Generators.from_seeds([5, 6, 7])


class ZeroMean(Noise):
    """Normal noise (B, 3, L) whose mean over the places of a mask is 0, and which is 0 elsewhere."""

    mask: Tensor | None = None

    def within(self, batch: Mapping[str, Tensor]) -> Noise:
        law = ZeroMean()
        law.mask = batch["mask"].float().cpu()  # (B, 1, L)
        return law

    def __call__(self, shape: Iterable[int], generators: Generators, dtype: torch.dtype = torch.float32) -> Tensor:
        axes, length = shape
        eps = generators.normal([64, axes], dtype)[:, :length].transpose(1, 2)  # the same numbers for every length
        mask = torch.ones(1, 1, length) if self.mask is None else self.mask
        return mask * (eps - (mask * eps).sum(2, keepdim=True) / mask.sum(2, keepdim=True))


class Odd(nn.Module):
    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        return 0.3 * torch.sin(3 * x) + 0.1 * x


class OddDenoiser(Denoiser):
    """Nothing stays nothing, and no place sees another."""

    def __init__(self, law: Noise):
        super().__init__()
        self.schedule, self.noise = SCHEDULES["vp"], law

    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        return Estimate(0.5 * torch.sin(2 * x_t), {})


def masked(length: int, count: int = 1) -> dict[str, Tensor]:
    return {"mask": (torch.arange(length) < 26).float().expand(count, 1, length)}


def test_steps_of_a_rollout_are_independent() -> None:
    pipeline = exact_pipeline(mixture(SCHEDULES["vp"]), Ancestral(Trailing(8)))
    first, second = (pipeline.draw({}, SEEDS.at("rollout", step)) for step in range(2))
    assert not torch.isclose(first, second).any()
    assert torch.equal(first, pipeline.draw({}, SEEDS.at("rollout", 0)))
    many = Generators.from_seeds(range(3000))
    pairs = torch.stack([pipeline.draw({}, many.at("rollout", step))[:, 0] for step in range(2)])
    assert abs(float(torch.corrcoef(pairs)[0, 1])) < 4 / 3000**0.5


def test_a_call_with_seeds_is_a_draw_from_their_streams() -> None:
    pipeline = exact_pipeline(mixture(SCHEDULES["vp"]), Ancestral(Trailing(8)))
    assert torch.equal(pipeline({}, [5, 6, 7]), pipeline.draw({}, SEEDS))
    assert torch.equal(pipeline.draw({}, SEEDS.at("rollout", 4))[1:2], pipeline.draw({}, _one(6).at("rollout", 4)))


def _one(seed: int) -> Generators:
    return Generators.from_seeds([seed])


def test_a_draw_may_have_another_shape() -> None:
    pipeline = Pipeline(OddDenoiser(Gaussian()), Unconditional(), Plain(), DDIM(Trailing(4)), [3, 8])
    assert pipeline.draw({}, SEEDS, shape=[3, 5]).shape == (3, 3, 5)
    assert pipeline.draw({}, SEEDS).shape == (3, 3, 8)


def test_a_chain_of_26_within_32_is_the_chain_alone() -> None:
    pipeline = Pipeline(OddDenoiser(ZeroMean()), Unconditional(), Plain(), Ancestral(Trailing(20)), [3, 32])
    within = pipeline.draw(masked(32, 3), SEEDS)
    alone = pipeline.draw(masked(26, 3), SEEDS, shape=[3, 26])
    assert torch.allclose(within[:, :, :26], alone, atol=1e-5)
    assert torch.equal(within[:, :, 26:], torch.zeros(3, 3, 6).double())
    assert alone.std() > 0.1


def test_the_loss_draws_its_noise_within_the_mask() -> None:
    model = NetworkDenoiser(Odd(), SCHEDULES["vp"], DataPrediction(), ZeroMean())
    loss, x_0 = DenoisingLoss(Uniform(), Unit()), torch.randn(3, 3, 32)
    x_0 = x_0 * masked(32)["mask"]
    padded = Example(x_0, batch=masked(32, 3), weight=masked(32, 3)["mask"])
    alone = Example(x_0[:, :, :26], batch=masked(26, 3))
    assert torch.allclose(loss(model, padded, SEEDS).loss, loss(model, alone, SEEDS).loss, rtol=1e-5)
    attempt = loss.attempt(model, padded, SEEDS, None)
    assert attempt.eps.sum(2).abs().max() < 1e-5
    assert torch.equal(attempt.eps[:, :, 26:], torch.zeros(3, 3, 6))


class Picks(Constraint):
    """Two particles, of which one is picked at the end, whatever they are."""

    copies = 2

    def __init__(self) -> None:
        self.picked: list[Tensor] = []
        self.estimates: list[Any] = []

    def start(self, x: Tensor, points: Sequence[Point], noise: Draw) -> Tensor:
        self.noise = noise
        return x

    def apply(
        self, transition: Transition, now: Point, next: Point, noise: Draw, estimate: Estimate | None
    ) -> tuple[Tensor, Tensor | None]:
        self.estimates.append(estimate)
        return transition.draw(noise), None

    def finish(self, x: Tensor) -> Tensor:
        pick = (self.noise.streams("pick").uniform()[::2] * 2).long()
        self.picked.append(pick)
        return x[torch.arange(len(pick)) * 2 + pick]


@pytest.mark.parametrize("law", [Gaussian(), Offset(0.5), ZeroMean()])
def test_picks_are_uniform_whatever_the_law_of_eps(law: Noise) -> None:
    pipeline = Pipeline(OddDenoiser(law), Unconditional(), Plain(), DDIM(Trailing(2)), [3, 4])
    constraint, count = Picks(), 4000
    batch = {"mask": torch.ones(count, 1, 4)}
    samples = pipeline.draw(batch, Generators.from_seeds(range(count)), constraint=constraint)
    (picked,) = constraint.picked
    assert samples.shape == (count, 3, 4)
    assert abs(float(picked.double().mean()) - 0.5) < 3 * 0.5 / count**0.5
    assert all(isinstance(each, Estimate) and each.x_0.shape == (2 * count, 3, 4) for each in constraint.estimates)


@pytest.mark.parametrize("brownian", [False, True])
def test_streams_of_a_move_differ_by_move_and_purpose(brownian: bool) -> None:
    noise: Any = source(3, Gaussian())
    noise = Brownian(noise) if brownian else noise
    now, next = SCHEDULES["vp"].points([0.5, 0.4])
    draws = [noise.at(Move(number, 0, now, next)) for number in (0, 1)]
    found = [draw.streams(purpose).uniform() for draw in draws for purpose in ("step", "pick")]
    assert all(not torch.isclose(a, b).any() for i, a in enumerate(found) for b in found[:i])
    assert torch.equal(found[1], noise.at(Move(0, 0, now, next)).streams("pick").uniform())
