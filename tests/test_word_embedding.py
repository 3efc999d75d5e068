"""Diffusion-LM: vectors of words, the terms that train them, and clamping, against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from tokens import BYTES, DIM, LENGTH, SCHEDULE, TEXTS, fitted, text_pipeline, texts
from torch import Tensor, nn

from inkdrop.codecs import Standardize, nearness
from inkdrop.codecs.vocabulary import END, PADDING, UNKNOWN
from inkdrop.constraints import Replacement
from inkdrop.denoiser import Estimate
from inkdrop.files.texts import decoded, encoded
from inkdrop.guidance import Clamp
from inkdrop.losses import DenoisingLoss, Example, FirstStepTerm, LossTerms, PriorTerm, RoundingTerm
from inkdrop.randomness import Generators
from inkdrop.time_samplers import DiscreteUniform
from inkdrop.weightings import Unit

FIRST = SCHEDULE.points([SCHEDULE.t_min])[0]


def loss_of(batch: dict[str, Tensor], t: Tensor, **factors: float) -> tuple[LossTerms, Example]:
    """The loss of a batch, and what it received."""
    pipeline = text_pipeline()
    terms = {
        "rounding": RoundingTerm(),
        "prior": PriorTerm(SCHEDULE),
        "first_step": FirstStepTerm(SCHEDULE),
    }
    generators = Generators.from_seeds(range(len(t)))
    example = Example(pipeline.codec.encode(batch, generators.at("codec")), {}, batch, pipeline.codec)
    return DenoisingLoss(DiscreteUniform(), Unit(), terms=terms)(pipeline.denoiser, example, generators, t), example


# The codec -----------------------------------------------------------------------------------------------------------


def test_words_are_their_vectors_and_in_training_the_noise_of_the_first_step_is_added() -> None:
    words, batch = fitted(), {"x": texts(4000)}
    clean, tokens = words.encode(batch), words.tokens(batch)
    assert torch.equal(clean[7, :, 2], words.vectors[tokens[7, 2]])
    noised = words.encode(batch, Generators.from_seeds(range(4000)))
    z = (noised - clean) / FIRST.sigma
    assert abs(z.mean().item()) < 4 / math.sqrt(z.numel())
    assert abs(z.square().mean().item() - 1) < 4 * math.sqrt(2 / z.numel())
    assert FIRST.sigma == pytest.approx(math.sqrt(1 - (1 - math.sqrt(1 / 20 + 1e-4)) / (1 - math.sqrt(1e-4))))


def test_the_noise_of_a_sample_does_not_depend_on_its_batch() -> None:
    words = fitted()
    together = words.encode({"x": texts(5)}, Generators.from_seeds([3, 1, 4, 1, 5]))
    alone = words.encode({"x": texts(5)[2:3]}, Generators.from_seeds([4]))
    assert torch.equal(together[2:3], alone)


def test_a_text_ends_and_the_rest_is_padding_with_vectors_of_their_own() -> None:
    words, batch = fitted(), {"x": texts(2)}
    tokens = words.tokens(batch)
    assert tokens[1].tolist()[3:] == [END, PADDING, PADDING]
    assert torch.equal(words.encode(batch)[1, :, 3:].T, words.vectors[[END, PADDING, PADDING]])


def test_rounding_returns_the_texts() -> None:
    words, batch = fitted(nearness, 16), {"x": texts(5)}
    words.check(batch["x"])
    x = words.encode(batch)
    assert list(x.shape[1:]) == words.shape([BYTES]) == [16, LENGTH]
    found = words.decode(x + 0.01)
    assert found.shape == (5, BYTES)
    assert decoded(found) == TEXTS


def test_the_two_roundings_are_a_tied_layer_and_the_nearest_vector() -> None:
    words, near, x = fitted(), fitted(nearness), torch.randn(3, DIM, LENGTH)
    layer = nn.functional.linear(x.transpose(1, 2), words.vectors)
    assert torch.allclose(words.logits(x), layer, atol=1e-6)
    distances = torch.cdist(x.transpose(1, 2), near.vectors[None].expand(3, -1, -1))
    assert torch.allclose(near.logits(x), -distances.square() / 2, atol=1e-5)
    assert torch.equal(near.logits(x).argmax(2), distances.argmin(2))


def test_what_is_known_of_a_text_with_blanks() -> None:
    words, batch = fitted(), {"x": encoded(["a _ pub", "the _"])}
    mask = words.known(batch["x"])
    assert mask.shape == (2, 1, LENGTH)
    assert mask[:, 0].tolist() == [[True, False, True, True, True, True], [True, *[False] * 5]]
    assert words.tokens(batch)[0, 1] == UNKNOWN


def test_data_that_are_no_texts_are_refused() -> None:
    with pytest.raises(ValueError, match="choose another codec"):
        fitted().check(torch.zeros(2, 3))


# The terms -----------------------------------------------------------------------------------------------------------


def test_the_terms_are_their_closed_forms() -> None:
    batch, t = {"x": texts(3)}, torch.tensor([0.5, SCHEDULE.t_min, 1.0]).double()
    terms, example = loss_of(batch, t)
    x_0, w = example.x_0, fitted().tokens(batch)
    scores = torch.einsum("bdl,vd->blv", x_0, fitted().vectors)
    nll = scores.logsumexp(2) - scores.gather(2, w[:, :, None])[:, :, 0]
    assert torch.allclose(terms.parts["rounding"], nll.mean(1), atol=1e-5)
    alpha = SCHEDULE.points([1.0])[0].alpha
    assert torch.allclose(terms.parts["prior"], alpha**2 * x_0.square().mean((1, 2)))
    assert torch.equal(terms.parts["first_step"][[0, 2]], torch.zeros(2))
    assert terms.parts["first_step"][1] != 0
    assert torch.allclose(terms.loss, sum(terms.parts.values(), torch.zeros(3)))


def test_at_the_first_step_the_clean_vectors_are_the_target() -> None:
    """The error there is |D - e(w)|^2, which a second evaluation of the denoiser at the same x_t has."""
    batch, t = {"x": texts(2)}, torch.full((2,), SCHEDULE.t_min).double()
    terms, example = loss_of(batch, t)
    pipeline, generators = text_pipeline(), Generators.from_seeds(range(2))
    x_t, _ = pipeline.denoiser.noise.corrupt(example.x_0, SCHEDULE.point(t), generators.at("noise"))
    estimate = pipeline.denoiser(x_t, SCHEDULE.point(t), {}).x_0
    clean = pipeline.codec.encode(batch)
    assert torch.allclose(
        terms.parts["error"] + terms.parts["first_step"], (estimate - clean).square().mean((1, 2)), atol=1e-5
    )


def test_vectors_are_trained_by_every_term_and_the_error() -> None:
    batch, t = {"x": texts(2)}, torch.tensor([0.5, 0.8]).double()
    for part in ("rounding", "prior", "error"):
        terms, example = loss_of(batch, t)
        (gradient,) = torch.autograd.grad(terms.parts[part].sum(), example.codec.vectors)  # type: ignore[union-attr]
        assert gradient.abs().sum() > 0


def test_another_codec_is_refused() -> None:
    example = Example(torch.zeros(2, 3), {}, {"x": torch.zeros(2, 3)}, Standardize())
    with pytest.raises(ValueError, match="Standardize does not have: set codec=word_embedding"):
        RoundingTerm()(example, None, Estimate(example.x_0, {}), Generators.from_seeds([0, 1]))  # type: ignore[arg-type]


# Clamping ------------------------------------------------------------------------------------------------------------


def test_clamping_rounds_to_the_bit_below_a_level_and_changes_nothing_above() -> None:
    points = SCHEDULE.points([0.2, 0.9])
    level = 2 * points[0].sigma / points[0].alpha
    plain, clamped = text_pipeline(), text_pipeline({"clamp": Clamp([0, level])})
    x_t = torch.randn(3, DIM, LENGTH)
    low, high = (clamped.guided({"position": torch.arange(3)})[0](x_t, now, {}).x_0 for now in points)
    before, after = (plain.denoiser(x_t, now, {}).x_0 for now in points)
    assert torch.equal(high, after)
    distances = torch.cdist(before.transpose(1, 2), plain.codec.vectors[None].expand(3, -1, -1))
    assert torch.equal(low.transpose(1, 2), plain.codec.vectors[distances.argmin(2)])


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_clamping_does_not_hide_what_is_not_finite(broken: float) -> None:
    pipeline = text_pipeline({"clamp": Clamp()})
    x_t = torch.randn(2, DIM, LENGTH)
    x_t[0, 0, 0] = broken
    found = pipeline.guided({"position": torch.arange(2)})[0](x_t, FIRST, {}).x_0
    assert not found[0].isfinite().all()
    assert found[1].isfinite().all()


def test_clamping_needs_vectors_of_words() -> None:
    pipeline = text_pipeline({"clamp": Clamp()})
    pipeline.check()
    pipeline.codec = Standardize()
    with pytest.raises(ValueError, match="set guidance=none, or codec=word_embedding"):
        pipeline.check()


def test_a_sample_alone_and_in_a_batch_is_the_same() -> None:
    pipeline = text_pipeline({"clamp": Clamp()})
    together, alone = pipeline({}, [0, 1, 2, 3]), pipeline({}, [2])
    assert torch.equal(together[2:3], alone)
    assert len(together.unique(dim=0)) > 1


# Infilling -----------------------------------------------------------------------------------------------------------


def test_known_words_and_the_end_stay_to_the_bit_and_blanks_are_filled_in() -> None:
    pipeline = text_pipeline(rounding=nearness)
    pipeline.constraint, states = Replacement(), []
    known = encoded(["a _ pub", "the _ _ near"])
    mask = pipeline.codec.known(known)  # type: ignore[operator]
    made = decoded(pipeline({"known": known, "mask": mask}, [0, 1], progress=lambda done, total, x: states.append(x)))
    clean = pipeline.codec.encode({"x": known})
    held = mask.expand_as(clean)
    assert torch.equal(states[-1][held], clean[held])
    assert not torch.isclose(states[-1][~held], clean[~held]).all()
    assert all("_" not in text and len(text.split()) <= LENGTH - 1 for text in made)
    assert [made[0].split()[0], made[1].split()[0]] == ["a", "the"]
