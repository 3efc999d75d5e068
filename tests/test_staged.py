"""Guidance with a scale for each condition, against its closed form on a denoiser that is linear in its conditions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from analytic import SCHEDULES, Plain
from torch import Tensor, nn

from inkdrop.conditioners import Conditioner
from inkdrop.denoiser import Condition, Denoiser, Estimate
from inkdrop.guidance import Autoguidance, ClassifierFree, Guidance, Ramp, Staged
from inkdrop.noises import Gaussian
from inkdrop.pipeline import Pipeline
from inkdrop.samplers import DDIM
from inkdrop.time_grids import Trailing

NAMES = ("depth", "image", "text")
WEIGHTS = {"depth": 0.7, "image": -1.3, "text": 2.9}
SCALES = {"depth": 1.2, "image": 2.5, "text": -0.5}
VP = SCHEDULES["vp"]
NOW = VP.points([0.4])[0]


class Additive(Denoiser):
    """0.3 x + the sum of w c over conditions c, with the rows of each call; it remembers which sample a row is of."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Identity()
        self.schedule, self.noise, self.rows = VP, Gaussian(), list[int]()
        self.memory: Tensor | None = None

    def forward(self, x_t: Tensor, now: Any, cond: Condition) -> Estimate:
        self.rows.append(len(x_t))
        x_0 = 0.3 * x_t + sum(weight * cond[name] for name, weight in WEIGHTS.items() if name in cond)
        return Estimate(x_0, {"text": cond["text"]})

    def select(self, index: Tensor) -> None:
        self.memory = index if self.memory is None else self.memory[index]


class Several(Conditioner):
    """Each name is a door of its own; training empties these sets of names."""

    names = NAMES

    def __init__(self, *trained: tuple[str, ...]):
        super().__init__()
        self.trained = trained or (NAMES, NAMES[1:], NAMES[2:], ("depth",), ("image",))

    def empties(self, names: Any) -> bool:
        return tuple(sorted(names)) in self.trained

    def condition(self, batch: Mapping[str, Tensor], dropped: Mapping[str, Tensor]) -> Condition:
        empty = {name: dropped.get(name, torch.zeros(len(batch[name]), dtype=torch.bool)) for name in self.names}
        return {name: batch[name].where(~empty[name][:, None], 0.0) for name in self.names}

    def request(self, seeds: Any, **condition: Any) -> dict[str, Tensor]:
        return {name: torch.tensor(seeds, dtype=torch.float64)[:, None] + 1 for name in NAMES}


def pipeline(*guides: Guidance, conditioner: Conditioner | None = None) -> Pipeline:
    named = {str(number): guide for number, guide in enumerate(guides)}
    return Pipeline(Additive(), conditioner or Several(), Plain(), DDIM(Trailing(3)), [2], named)


def batch(count: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {name: torch.randn(count, 2, generator=generator, dtype=torch.float64) for name in NAMES}


def expected(x: Tensor, given: Mapping[str, Tensor], scales: Mapping[str, float]) -> Tensor:
    """0.3 x + the sum of w c, each condition with its own scale, or with 1 if it is in all estimates."""
    return 0.3 * x + sum(scales.get(name, 1.0) * WEIGHTS[name] * given[name] for name in NAMES)


@pytest.mark.parametrize("names", [NAMES, NAMES[1:], ("text", "image")], ids=["three", "two", "turned"])
def test_each_condition_has_its_scale_in_one_call(names: tuple[str, ...]) -> None:
    scales = {name: SCALES[name] for name in names}
    made = pipeline(Staged(scales), conditioner=Several(NAMES, NAMES[1:], NAMES[2:], ("image",), ("image", "text")))
    given, x = batch(4), torch.randn(4, 2, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    denoiser, cond = made.guided(given)
    estimate = denoiser(x, NOW, cond)
    assert torch.allclose(estimate.x_0, expected(x, given, scales), atol=1e-6, rtol=0)
    assert torch.equal(estimate.extras["text"], given["text"])
    assert made.denoiser.rows == [4 * (len(names) + 1)]


def test_two_conditions_cost_three_rows_for_each_sample_of_each_step() -> None:
    made = pipeline(Staged({"image": 1.5, "text": 7.5}))
    made(made.request(range(5)), range(5))
    assert made.denoiser.rows == [15] * 3


def test_samples_are_the_same_in_any_batch() -> None:
    made = pipeline(Staged(SCALES))
    together = made(made.request(range(4)), range(4))
    assert torch.allclose(made(made.request([2]), [2]), together[2:3], atol=1e-12)


def test_one_condition_is_classifier_free_and_a_scale_may_change_with_time() -> None:
    given, x = batch(3), torch.ones(3, 2, dtype=torch.float64)
    for scale in (3.0, Ramp(1.0, 4.0)):
        found = []
        for guide in (Staged({"text": scale}), ClassifierFree(scale, names=["text"])):
            denoiser, cond = pipeline(guide).guided(given)
            found.append(denoiser(x, NOW, cond).x_0)
        assert torch.allclose(*found, atol=1e-12)
        assert not torch.allclose(found[0], expected(x, given, {}), atol=0.1)


def test_a_permutation_of_the_batch_is_followed() -> None:
    given, x, index = batch(3), torch.ones(3, 2, dtype=torch.float64), torch.tensor([2, 0, 0])
    made = pipeline(Staged(SCALES))
    denoiser, cond = made.guided(given)
    before = denoiser(x, NOW, cond).x_0
    denoiser.select(index)
    after = denoiser(x[index], NOW, {name: value[index] for name, value in cond.items()}).x_0
    assert torch.equal(after, before[index])
    assert made.denoiser.memory is not None
    assert made.denoiser.memory.tolist() == index.tolist() * 4


def test_what_training_never_emptied_in_this_order_is_refused() -> None:
    never = Several(NAMES, ("text",))
    pipeline(Staged({"text": 2.0}), conditioner=never).guided(batch(1))
    with pytest.raises(ValueError, match=r"never trained without image and text alone.*leave a condition out of"):
        pipeline(Staged({"image": 2.0, "text": 2.0}), conditioner=never).guided(batch(1))
    with pytest.raises(ValueError, match="colour is not a condition of this model"):
        pipeline(Staged({"colour": 2.0})).guided(batch(1))
    with pytest.raises(ValueError, match=r"staged\.scales is empty"):
        Staged({})


@pytest.mark.parametrize(
    ("guides", "words"),
    [
        ((ClassifierFree(2.0), Staged(SCALES)), "guides every condition itself"),
        ((Staged(SCALES), Staged(SCALES)), "guides every condition itself"),
        ((Staged(SCALES), ClassifierFree(2.0)), "remove classifier_free"),
        (
            (ClassifierFree(2.0, names=["depth"]), ClassifierFree(2.0, names=["image"])),
            "or take guidance=staged, which has a scale for each condition",
        ),
    ],
)
def test_next_to_another_guide_of_conditions_it_is_refused(guides: tuple[Guidance, ...], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        pipeline(*guides).guided(batch(1))


def test_autoguidance_may_go_around_it() -> None:
    weak = pipeline()
    made = pipeline(Staged(SCALES), Autoguidance(weak, 2.0))
    given, x = batch(2), torch.ones(2, 2, dtype=torch.float64)
    denoiser, cond = made.guided(given)
    strong, other = expected(x, given, SCALES), expected(x, given, {})
    assert torch.allclose(denoiser(x, NOW, cond).x_0, other + 2 * (strong - other))
