"""Edits that attend where their sources do: alignments of words, maps by hand, and what equals plain sampling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from analytic import SCHEDULES, Plain
from torch import Tensor

from inkdrop.conditioners import Combined, Conditioner, Image, Label, Words
from inkdrop.constraints import PromptToPrompt, Refine, Replace
from inkdrop.denoiser import NetworkDenoiser
from inkdrop.files.texts import encoded
from inkdrop.guidance import ClassifierFree, Guidance
from inkdrop.networks import DiT, UNet
from inkdrop.networks.edm2 import EDM2UNet
from inkdrop.networks.latent_unet import LatentUNet
from inkdrop.pipeline import Pipeline
from inkdrop.predictions import DataPrediction
from inkdrop.samplers import DDIM, Ancestral, Sampler
from inkdrop.time_grids import Trailing

RED, BLUE, TWO = "a red circle", "a blue circle", "a red circle left of a blue square"
GRID = Trailing(4)
EDIT = {"caption": BLUE, "source": RED}


def conditioner() -> Words:
    words = Words(8, num_words=20, length=8, num_heads=2)
    words.fit(lambda size, names=None, /: [{"caption": encoded([TWO, BLUE, "large"])}])
    return words


def unet() -> torch.nn.Module:
    return UNet([1, 8, 8], 8, [1, 1], 1, [4], norm_groups=4, token_dim=8)


def pipeline(constraint: PromptToPrompt | None, *guides: Guidance, sampler: Sampler | None = None) -> Pipeline:
    """A model with weights that are not learned, in which words matter at each position."""
    torch.manual_seed(3)
    network, words = unet(), conditioner()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    denoiser = NetworkDenoiser(network, SCHEDULES["vp"], DataPrediction())
    named = dict(enumerate(guides))
    return Pipeline(denoiser, words, Plain(), sampler or DDIM(GRID), [1, 8, 8], named, constraint)  # type: ignore[arg-type]


def drawn(made: Pipeline, *seeds: int, **condition: Any) -> Tensor:
    return made(made.request(seeds, **condition), seeds)


def plain(caption: Any, *seeds: int, guides: tuple[Guidance, ...] = (), sampler: Sampler | None = None) -> Tensor:
    return drawn(pipeline(None, *guides, sampler=sampler), *seeds, caption=caption)


def test_words_that_belong_together() -> None:
    before, after = TWO.split(), ["a", "large", "blue", "circle", "right", "of", "a", "blue", "square"]
    assert Replace()(RED.split(), BLUE.split()) == [0, 1, 2]
    assert Refine()(RED.split(), BLUE.split()) == [0, None, 2]
    assert Replace()(before, after) == [0, 1, None, 2, 3, 4, 5, 6, 7]
    assert Refine()(before, after) == [0, None, None, 2, None, 4, 5, 6, 7]


@pytest.mark.parametrize("sampler", [DDIM(GRID), Ancestral(GRID)], ids=["ddim", "ancestral"])
@pytest.mark.parametrize("guides", [(), (ClassifierFree(2.0),)], ids=["plain", "guided"])
def test_equal_texts_and_no_share_are_plain_sampling(sampler: Sampler, guides: tuple[Guidance, ...]) -> None:
    red, blue = (plain(each, 4, 5, guides=guides, sampler=sampler) for each in (RED, BLUE))
    assert (red - blue).abs().max() > 0.05
    edited = pipeline(PromptToPrompt(1.0, 1.0), *guides, sampler=sampler)
    assert torch.allclose(drawn(edited, 4, 5, caption=RED, source=RED), red, atol=1e-4)
    none = pipeline(PromptToPrompt(0.0, 0.0), *guides, sampler=sampler)
    assert torch.allclose(drawn(none, 4, 5, **EDIT), blue, atol=1e-4)
    found = drawn(edited, 4, 5, **EDIT)
    assert (found - red).abs().max() > 0.01
    assert (found - blue).abs().max() > 0.01


def test_a_sample_is_the_same_in_any_batch() -> None:
    made = pipeline(PromptToPrompt(0.5, 0.5), ClassifierFree(2.0), sampler=Ancestral(GRID))
    conditions = {"caption": [BLUE, TWO], "source": [RED, BLUE]}
    together = drawn(made, 4, 5, 6, **conditions)
    assert torch.allclose(drawn(made, 5, **conditions), together[1:2], atol=1e-4)


def maps_by_hand(network: Any, x: Tensor, c_noise: Tensor, cond: Mapping[str, Tensor], take: Any) -> Tensor:
    """The network's output for two rows, with `take(maps (2, H, N, L), is_cross)` applied to all maps of attention."""
    layers = [each for each in network.modules() if hasattr(each, "is_cross")]
    before = [each.attend for each in layers]

    def attended(is_cross: bool) -> Any:
        def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
            scores = torch.einsum("bhnd,bhld->bhnl", q, k) / q.shape[3] ** 0.5
            if mask is not None:
                scores = scores.masked_fill(~mask, -1e30)
            return torch.einsum("bhnl,bhld->bhnd", take(scores.softmax(3), is_cross), v)

        return attend

    for each in layers:
        each.attend = attended(each.is_cross)
    try:
        return network(x, c_noise, **cond)
    finally:
        for each, attend in zip(layers, before, strict=True):
            each.attend = attend


@pytest.mark.parametrize("words", [None, {"blue": 2.5}], ids=["replace", "reweight"])
@pytest.mark.parametrize("crosses", [True, False], ids=["cross", "self"])
def test_one_step_is_that_of_maps_replaced_by_hand(words: dict[str, float] | None, crosses: bool) -> None:
    after, before = "a large blue circle", RED
    sampler = DDIM(Trailing(1))
    factory = PromptToPrompt(1.0 if crosses else 0.0, 0.0 if crosses else 1.0, alignment=Refine(), words=words)
    made = pipeline(factory, sampler=sampler)
    found = drawn(made, 7, caption=after, source=before)

    def take(maps: Tensor, is_cross: bool) -> Tensor:
        maps = maps.clone()
        if is_cross:
            if crosses:
                for place, counterpart in ((0, 0), (1, 1), (4, 3)):  # start, a, circle
                    maps[1, :, :, place] = maps[0, :, :, counterpart]
            maps[1, :, :, 3] *= (words or {}).get("blue", 1.0)
        elif not crosses:
            maps[1] = maps[0]
        return maps

    point = made.denoiser.schedule.points([1.0])[0]
    _, _, c_in, c_noise = made.denoiser.prediction.coefficients(point)  # type: ignore[operator, union-attr]
    eps = made.start([7]).repeat(2, 1, 1, 1)
    cond = made.conditioner({"caption": encoded([before, after])})
    with torch.no_grad():
        # After one step x is the estimate, and that is the output of the network.
        expected = maps_by_hand(made.network, eps * float(c_in), torch.full((2,), float(c_noise)), cond, take)
    assert torch.allclose(found, expected[1:], atol=1e-4)
    assert not torch.allclose(found, plain(after, 7, sampler=sampler), atol=1e-3)


def test_layers_with_many_positions_keep_their_own_maps() -> None:
    few = drawn(pipeline(PromptToPrompt(0.0, 1.0, most_positions=15)), 4, **EDIT)
    assert torch.allclose(few, plain(BLUE, 4), atol=1e-4)  # all layers that attend have 16 positions
    more = drawn(pipeline(PromptToPrompt(0.0, 1.0, most_positions=16)), 4, **EDIT)
    assert not torch.allclose(more, few, atol=1e-3)


@pytest.mark.parametrize(
    "network",
    [
        unet(),
        DiT([1, 8, 8], 4, 16, 2, 2, token_dim=8),
        EDM2UNet([1, 8, 8], 8, [1, 1], 1, [4], head_dim=4, token_dim=8),
        LatentUNet([1, 8, 8], 8, [1, 1], 1, 2, token_dim=8),
    ],
    ids=["unet", "dit", "edm2", "latent_unet"],
)
def test_layers_say_whether_they_attend_to_tokens(network: torch.nn.Module) -> None:
    layers: list[Any] = [each for each in network.modules() if hasattr(each, "is_cross")]
    seen: list[bool] = []

    def attend(is_cross: bool, before: Any) -> Any:
        def told(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
            assert (k.shape[2] == 9) == is_cross
            seen.append(is_cross)
            return before(q, k, v, mask)

        return told

    for each in layers:
        each.attend = attend(each.is_cross, each.attend)
    network(torch.zeros(2, 1, 8, 8), torch.zeros(2), tokens=torch.ones(2, 9, 8))
    assert {*seen} == {True, False}
    assert len(seen) == len(layers)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"condition\.source=None must be a text"):
        pipeline(PromptToPrompt()).request([0], caption=RED)
    with pytest.raises(ValueError, match="has purple, which is not a word of 'a blue circle'"):
        drawn(pipeline(PromptToPrompt(words={"purple": 2.0})), 0, **EDIT)
    with pytest.raises(ValueError, match="reads title, which the batch lacks"):
        drawn(pipeline(PromptToPrompt(field="title")), 0, **EDIT)
    made = pipeline(PromptToPrompt())
    made.denoiser.network = torch.nn.Identity()
    with pytest.raises(ValueError, match="needs a network that attends to words"):
        drawn(made, 0, **EDIT)


def test_tokens_of_several_conditions_follow_each_other() -> None:
    parts: dict[str, Conditioner] = {"a": conditioner(), "b": Label(2, 8), "c": Image([1, 8, 8], 2)}
    both = Combined(parts, dim=8, concat_channels=2, token_dim=8)
    assert both.token_words({"caption": encoded([RED])}) == [["", "a", "red", "circle", "", "", "", "", ""]]
    with pytest.raises(ValueError, match="no tokens of words, but Label: train with conditioner=words"):
        Label(2, 8).token_words({})
    with pytest.raises(ValueError, match="no tokens of words, but Combined"):
        Combined({"b": Label(2, 8)}, dim=8).token_words({})
