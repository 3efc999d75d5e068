"""Masked diffusion and the autoregressive model on a chain of known law, and texts with blanks."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from analytic import SCHEDULES
from letters import ENTROPY, LAW, LENGTH, LETTERS, MASK, WORDS, Exact, Letters, one_hot
from torch import Tensor, nn

from inkdrop.codecs import OneHot, Words
from inkdrop.codecs.vocabulary import END, PADDING
from inkdrop.conditioners import Unconditional
from inkdrop.constraints import Blanks
from inkdrop.denoiser import MaskedDenoiser, NetworkDenoiser
from inkdrop.files.texts import decoded, encoded
from inkdrop.guidance import Geometric
from inkdrop.likelihood import ExactNats, MaskedBound, VariationalBound
from inkdrop.losses import Example, MaskedCrossEntropy, NextToken
from inkdrop.models import Autoregressive
from inkdrop.networks import DiT
from inkdrop.networks.layers import causal
from inkdrop.noises import Absorbing, Gaussian
from inkdrop.pipeline import Pipeline
from inkdrop.predictions import DataPrediction
from inkdrop.randomness import Generators
from inkdrop.samplers import DDIM, Confidence, Sampler, towards
from inkdrop.time_grids import Trailing
from inkdrop.time_samplers import Uniform

COUNT = 6000


class Logits(nn.Module):
    """The logits of the exact denoiser, with a shift, which changes no probability, and some for the mask."""

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        logits = Exact()(x / math.sqrt(LETTERS + 1), c_noise).log() + 3
        return torch.cat([logits[:, :-1], torch.full_like(logits[:, :1], 50.0)], 1)


def denoiser(network: nn.Module | None = None) -> MaskedDenoiser:
    return MaskedDenoiser(network or Logits(), SCHEDULES["linear"], DataPrediction(), Absorbing())


def pipeline(sampler: Sampler) -> Pipeline:
    return Pipeline(denoiser(), Unconditional(), Letters(), sampler, [LETTERS + 1, LENGTH])


def words(count: int = COUNT) -> Tensor:
    return WORDS[torch.multinomial(LAW, count, replacement=True)]


def test_a_step_is_the_reverse_kernel() -> None:
    now, next = SCHEDULES["linear"].points([0.7, 0.3])
    x = one_hot(torch.tensor([[0, MASK, 2, MASK], [MASK] * 4]))
    estimate = denoiser()(x, now, {}).x_0
    step = Absorbing().move(*towards(x, estimate, now, next))
    stays, given = 0.3 / 0.7, Exact()(x, torch.zeros(2))
    expected = torch.where(x[:, -1:] == 1, (1 - stays) * given + stays * one_hot(torch.tensor([[MASK]])), x)
    assert torch.allclose(step.mean, expected, rtol=0, atol=1e-12)


def test_the_bound_is_the_entropy() -> None:
    batch = {"x": words()}
    bound = MaskedBound(num_times=4)(pipeline(DDIM(Trailing(4))), batch, Generators.from_seeds(range(COUNT)))
    nats = bound["total"]
    assert abs(float(nats.mean()) - ENTROPY) < 3 * float(nats.std()) / math.sqrt(COUNT)
    found = MaskedBound().summary({"total": 6.0, "tokens": 4.0})
    assert (found["per_token"], found["perplexity"]) == (1.5, pytest.approx(math.exp(1.5)))
    with pytest.raises(ValueError, match="likelihood=masked_bound is that of noise=absorbing"):
        MaskedBound().check(autoregressive())
    with pytest.raises(ValueError, match="needs eps"):
        VariationalBound().check(pipeline(DDIM(Trailing(4))))


def test_the_loss_is_the_bound_over_places() -> None:
    example = Example(one_hot(words()))
    terms = MaskedCrossEntropy(Uniform())(denoiser(), example, Generators.from_seeds(range(COUNT)))
    nats = terms.parts["nats"]
    assert torch.allclose(terms.loss, nats / LENGTH)
    assert abs(float(nats.mean()) - ENTROPY) < 4 * float(nats.std()) / math.sqrt(COUNT)
    half = torch.zeros(COUNT, 1, LENGTH)
    half[..., 2:] = 1
    counted = MaskedCrossEntropy(Uniform())(
        denoiser(), example._replace(weight=half), Generators.from_seeds(range(COUNT))
    )
    assert float(counted.parts["nats"].mean()) < 0.7 * ENTROPY
    other = NetworkDenoiser(Logits(), SCHEDULES["linear"], DataPrediction(), Absorbing())
    with pytest.raises(ValueError, match="set denoiser=masked"):
        MaskedCrossEntropy(Uniform()).check(other)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="set noise=absorbing"):
        MaskedDenoiser(Logits(), SCHEDULES["linear"], DataPrediction(), Gaussian())


def law_of(letters: Tensor) -> Tensor:
    """How often each word occurs."""
    place = (letters * LETTERS ** torch.arange(LENGTH - 1, -1, -1)).sum(1)
    return torch.bincount(place, minlength=len(LAW)).double() / len(letters)


def test_one_by_one_in_any_order_the_samples_have_the_law_and_the_surest_are_more_probable() -> None:
    count = 3000
    model = pipeline(Confidence(Trailing(LENGTH), temperature=1e6))  # an order at random
    found = law_of(model({}, range(count)))
    deviation = (LAW * (1 - LAW) / count).sqrt()
    assert ((found - LAW).abs() < 4.5 * deviation + 1e-9).all()
    surest = law_of(pipeline(Confidence(Trailing(LENGTH), temperature=0.0))({}, range(500)))
    assert -float((surest * LAW.log()).sum()) < ENTROPY - 0.2, "the probable words are more frequent"


@pytest.mark.parametrize("sampler", [DDIM(Trailing(6)), Confidence(Trailing(3)), Confidence(Trailing(1))])
def test_a_sample_alone_is_the_sample_in_a_batch(sampler: Sampler) -> None:
    model = pipeline(sampler)
    letters = model({}, [3, 11, 4])
    assert letters.max() < MASK
    assert torch.equal(letters[1:2], model({}, [11]))


def test_the_sampler_of_categories_needs_categories() -> None:
    with pytest.raises(ValueError, match="or noise=absorbing"):
        Confidence(Trailing(4)).check_noise(Gaussian())


def test_the_geometric_mix_is_that_of_probabilities() -> None:
    p, q = torch.tensor([[0.5, 0.25, 0.25, 0.0]]).double(), torch.tensor([[0.25, 0.25, 0.5, 0.0]]).double()
    mixed = Geometric()(p, q, 3.0)
    expected = q * (p / q.clamp(min=1e-300)) ** 3
    assert torch.allclose(mixed, expected / expected.sum())
    assert torch.allclose(Geometric()(p, q, 1.0), p)
    shown = torch.tensor([[0.0, 1.0, 0.0, 0.0]]).double()
    assert torch.equal(Geometric()(shown, shown, 3.0), shown)


class Chain(nn.Module):
    """The logits of a letter given the one before it, where the first sees the mask."""

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        before = x.argmax(1)
        prefix = torch.stack([LAW.reshape(3, -1).sum(1)] * LENGTH)  # (L, V), of the first letter
        rows = LAW.reshape(3, 3, -1).sum(2)
        following = rows / rows.sum(1, keepdim=True)
        p = torch.where((before == MASK)[..., None], prefix, following[before.clamp(max=2)])
        return torch.cat([p.log(), torch.zeros_like(p[..., :1])], 2).transpose(1, 2)


def autoregressive(network: nn.Module | None = None, **options: Any) -> Autoregressive:
    return Autoregressive(network or Chain(), Letters(), [LETTERS + 1, LENGTH], **options)


def test_the_exact_likelihood_is_that_of_the_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inkdrop.models.autoregressive.PADDING", -1)  # letters have no end
    values = ExactNats()(autoregressive(), {"x": WORDS}, Generators.from_seeds(range(len(WORDS))))
    assert torch.allclose(values["total"], -LAW.log(), rtol=0, atol=1e-6)
    assert values["tokens"].tolist() == [LENGTH] * len(WORDS)
    terms = NextToken()(autoregressive(), Example(one_hot(WORDS)), Generators.from_seeds(range(len(WORDS))))
    assert torch.allclose(terms.loss * LENGTH, -LAW.log(), atol=1e-5)
    with pytest.raises(ValueError, match="likelihood=exact is that of an autoregressive model"):
        ExactNats().check(pipeline(DDIM(Trailing(4))))


def network(attend: Any = causal) -> DiT:
    torch.manual_seed(0)
    return DiT([8, 6], patch_size=1, width=8, depth=1, num_heads=2, attend=attend)


def texts() -> OneHot:
    codec = OneHot(6, 30, Words(4))
    codec.vocabulary.fit([encoded(["a b c d"])])
    return codec


def test_a_network_that_sees_what_it_predicts_is_refused() -> None:
    Autoregressive(network(), texts(), [8, 6]).check()
    seeing = DiT([8, 6], patch_size=1, width=8, depth=1, num_heads=2)
    with pytest.raises(ValueError, match="set network=causal_transformer"):
        Autoregressive(seeing, texts(), [8, 6]).check()


def test_texts_of_an_autoregressive_model_end_and_keep_what_is_known() -> None:
    codec = texts()
    model = Autoregressive(network(), codec, [8, 6])
    assert torch.equal(model({}, [3, 5])[1:], model({}, [5]))
    drawn = [text.split() for text in decoded(model({}, range(40)))]
    assert {len(each) for each in drawn} > {0, 1, 2}, "texts of an untrained network have many lengths"
    known = model.request(range(40), known="_ b _ d")
    filled = [text.split() for text in decoded(model(known, range(40)))]
    assert all(len(each) == 4 and (each[1], each[3]) == ("b", "d") for each in filled)
    assert len({each[0] for each in filled}) > 2
    states: list[Tensor] = []
    model({}, [1], progress=lambda done, total, x: states.append(codec.decode(x)))
    assert decoded(states[0])[0].split().count("_") >= 5 or decoded(states[0])[0] == ""
    with pytest.raises(ValueError, match=r"condition\.label has no effect"):
        model.request([0], label=1)


def test_padding_has_no_probability() -> None:
    model, codec = Autoregressive(network(), texts(), [8, 6]), texts()
    x = codec.encode({"x": encoded(["a b", "a b c d"])})
    nats = model.each_nats(x)
    assert (nats[0, 3:] == 0).all()
    assert (nats[0, :3] > 0).all()
    assert torch.allclose(nats.sum(1).double(), model.nats({"x": encoded(["a b", "a b c d"])}))
    assert codec.lengths({"x": encoded(["a b", "a b c d"])}).tolist() == [3, 5]


@pytest.mark.parametrize("sampler", [DDIM(Trailing(4)), Confidence(Trailing(2))])
def test_blanks_are_filled_in_and_words_stay(sampler: Sampler) -> None:
    torch.manual_seed(0)
    model = Pipeline(
        MaskedDenoiser(DiT([8, 6], 1, 8, 1, 2), SCHEDULES["linear"], DataPrediction(), Absorbing()),
        Unconditional(),
        texts(),
        sampler,
        [8, 6],
        constraint=Blanks(),
    )
    model.check()
    batch = model.request(range(64), known=["_ b _ d", "c _"])
    numbers = model.codec.encode({"x": batch["known"]}).argmax(1)
    states: list[Tensor] = []
    model(batch, range(64), progress=lambda done, total, x: states.append(x.argmax(1)))
    assert (states[-1] < 7).all(), "no mask is left"
    mask = texts().known(batch["known"])[:, 0]
    assert all(torch.equal(state[mask], numbers[mask]) for state in states)
    assert len(states[-1][1::2, 1:].unique(dim=0)) > 8
    assert ((states[-1][::2, [0, 2]] != END) & (states[-1][::2, [0, 2]] != PADDING)).all(), "no end before known words"
    assert (numbers[0, 4], numbers[0, 5]) == (END, PADDING)
    with pytest.raises(ValueError, match=r"constraint=blanks needs a text: condition\.known"):
        model.request([0])
    with pytest.raises(ValueError, match="fills in texts, and Letters encodes none"):
        Blanks()(pipeline(sampler), batch)
