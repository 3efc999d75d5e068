"""Masked diffusion of a three-letter chain whose law is known: noise, loss, sampler and pipeline as they are."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from analytic import SCHEDULES
from letters import ENTROPY, LAW, LENGTH, LETTERS, MASK, WORDS, Exact, Letters, one_hot
from torch import Tensor, nn

from inkdrop.conditioners import Unconditional
from inkdrop.denoiser import Estimate, NetworkDenoiser
from inkdrop.losses import DenoisingLoss, Example, Term
from inkdrop.losses.denoising import Attempt
from inkdrop.noises import Absorbing, Categorical
from inkdrop.pipeline import Pipeline
from inkdrop.predictions import DataPrediction
from inkdrop.randomness import Generators
from inkdrop.samplers import DDIM, Ancestral, Sampler, forward_kernel, heun, towards
from inkdrop.time_grids import Trailing
from inkdrop.time_samplers import Uniform
from inkdrop.weightings import Unit


class Nats(Term):
    """`-log p(x_0 | x_t) / t` over masked letters: its mean is the bound of masked diffusion in continuous time."""

    def forward(self, example: Example, attempt: Attempt, estimate: Estimate, generators: Generators) -> Tensor:
        masked = attempt.x_t[:, -1]  # (B, L)
        log_p = (example.x_0 * estimate.x_0).sum(1).log()
        return -(masked * log_p).sum(1) / attempt.times.t


def pipeline(sampler: Sampler, schedule: str = "linear") -> Pipeline:
    denoiser = NetworkDenoiser(Exact(), SCHEDULES[schedule], DataPrediction(), Absorbing(LETTERS))
    denoiser.noise = _Double(LETTERS)
    return Pipeline(denoiser, Unconditional(), Letters(), sampler, [LETTERS + 1, LENGTH])


class _Double(Absorbing):
    def __call__(self, shape: Any, generators: Generators, dtype: torch.dtype = torch.float64) -> Tensor:
        return super().__call__(shape, generators, torch.float64)


def test_the_step_is_the_reverse_kernel_of_absorbing_diffusion() -> None:
    schedule = SCHEDULES["linear"]
    now, next = schedule.points([0.7, 0.3])
    x = one_hot(torch.tensor([[0, MASK, 2, MASK]]))
    estimate = Exact()(x, torch.zeros(1))
    step = towards(x, estimate, now, next)
    law = Absorbing(LETTERS).move(*step)
    stays = 0.3 / 0.7
    expected = torch.where(x[:, -1:] == 1, (1 - stays) * estimate + stays * one_hot(torch.tensor([[MASK]])), x)
    assert isinstance(law, Categorical)
    assert torch.allclose(law.mean, expected, rtol=0, atol=1e-12)


def test_an_up_move_masks_what_the_forward_process_masks() -> None:
    now, next = SCHEDULES["linear"].points([0.2, 0.6])
    x = one_hot(torch.tensor([[0, MASK, 2, 1]]))
    law = Absorbing(LETTERS).move(*forward_kernel(x, now, next))
    kept = 0.4 / 0.8
    expected = kept * x + (1 - kept) * one_hot(torch.tensor([[MASK]]))
    assert torch.allclose(law.mean, expected, rtol=0, atol=1e-12)


def test_each_letter_is_masked_by_itself_with_probability_sigma() -> None:
    schedule, count = SCHEDULES["linear"], 20_000
    now = schedule.point(torch.full((count,), 0.3).double())
    x_0 = one_hot(torch.tensor([[0, 1, 2, 0]]).expand(count, -1))
    x_t, eps = Absorbing(LETTERS).corrupt(x_0, now, Generators.from_seeds(range(count)))
    masked = x_t[:, -1]
    assert torch.equal(eps.argmax(1), torch.full((count, LENGTH), MASK))
    assert torch.equal(torch.where(masked[:, None] == 1, eps, x_0), x_t)
    assert (masked.mean(0) - 0.3).abs().max() < 4 * math.sqrt(0.21 / count)
    assert abs(float((masked[:, 0] * masked[:, 1]).mean()) - 0.09) < 4 * math.sqrt(0.09 * 0.91 / count)


@pytest.mark.slow
def test_the_bound_of_the_exact_denoiser_is_the_entropy() -> None:
    count = 20_000
    words = WORDS[torch.multinomial(LAW, count, replacement=True)]
    model, loss = pipeline(DDIM(Trailing(4))).denoiser, DenoisingLoss(Uniform(), Unit(), terms={"nats": Nats()})
    nats = loss(model, Example(one_hot(words)), Generators.from_seeds(range(count))).parts["nats"]
    assert abs(float(nats.mean()) - ENTROPY) < 3 * float(nats.std()) / math.sqrt(count)
    wrong = NetworkDenoiser(Uninformed(), SCHEDULES["linear"], DataPrediction(), model.noise)
    nats = loss(wrong, Example(one_hot(words)), Generators.from_seeds(range(count))).parts["nats"]
    assert float(nats.mean()) > ENTROPY + 0.5


class Uninformed(nn.Module):
    """All letters are equally likely."""

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        masked = x[:, -1:]
        return torch.where(masked == 1, torch.cat([torch.ones_like(x[:, :3]) / 3, 0 * masked], 1), x)


@pytest.mark.slow
def test_samples_have_the_law_of_the_chain() -> None:
    count = 8000
    letters = pipeline(DDIM(Trailing(60)))({}, range(count))
    assert letters.max() < MASK
    place = (letters * LETTERS ** torch.arange(LENGTH - 1, -1, -1)).sum(1)
    found = torch.bincount(place, minlength=len(LAW)).double() / count
    deviation = (LAW * (1 - LAW) / count).sqrt()
    assert ((found - LAW).abs() < 4 * deviation + 0.1 * LAW).all()  # letters of one of 60 steps are independent
    assert float((found - LAW).abs().sum()) < 2 * float(deviation.sum())


def test_a_sample_alone_is_the_sample_in_a_batch() -> None:
    model = pipeline(DDIM(Trailing(10)))
    assert torch.equal(model({}, [3, 11, 4])[1:2], model({}, [11]))
    assert model({}, range(20)).unique(dim=0).shape[0] > 5


@pytest.mark.parametrize(
    ("sampler", "schedule", "words"),
    [
        (DDIM(Trailing(4), eta=1.0), "linear", "set sampler=ddim with sampler.eta=0"),
        (Ancestral(Trailing(4)), "linear", "Ancestral does not draw categories"),
        (heun(Trailing(4)), "linear", "does not draw categories"),
        (DDIM(Trailing(4)), "vp", "unlike VP: set schedule=linear"),
    ],
)
def test_what_has_no_law_of_categories_is_refused(sampler: Sampler, schedule: str, words: str) -> None:
    model = pipeline(sampler, schedule)
    with pytest.raises(ValueError, match=words):
        model.check()


def test_starting_from_data_masks_them_as_training_does() -> None:
    model, count = pipeline(DDIM(Trailing(2))), 4000
    data = torch.tensor([[0, 0, 0, 0]]).expand(count, -1)
    again = model({}, range(count), data=data, t_start=0.25)
    assert float((again[:, 0] == 0).double().mean()) > 0.75
    assert float((again != 0).any(1).double().mean()) > 0.05
