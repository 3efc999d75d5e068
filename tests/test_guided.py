"""Guidance on a labelled mixture, where the law that it aims at is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from analytic import ALL_SCHEDULES, SCHEDULES, Plain, exact_pipeline, mixture, standard_errors
from labelled import CLASSES, ExactClassifier, Labelled, halves, labelled_pipeline, of_class
from torch import Tensor, nn

from inkdrop.conditioners import Conditioner, Label
from inkdrop.denoiser import Condition, Denoiser, Estimate, NetworkDenoiser
from inkdrop.guidance import (
    Autoguidance,
    ClassifierFree,
    ClassifierGuidance,
    EnergyGuidance,
    Guidance,
    Projected,
    Ramp,
    Rescaled,
    mean_value,
)
from inkdrop.noises import Gaussian
from inkdrop.pipeline import Pipeline, calls_counted
from inkdrop.predictions import NoisePrediction
from inkdrop.samplers import DDIM, Ancestral, Sampler, abm, dpmpp_2m
from inkdrop.schedules import Point
from inkdrop.time_grids import Centred, LogSNR, TimeGrid, Trailing

VP = SCHEDULES["vp"]
NOW = VP.points([0.4])[0]
LABEL = torch.tensor([0, 1, 1, 0, 1])
X = torch.randn(5, 2, generator=torch.Generator().manual_seed(3)).double()


def guided(guide: Guidance, now: Point = NOW) -> Tensor:
    """The estimate of the labelled mixture at X under a guide."""
    pipeline = labelled_pipeline(VP, DDIM(Trailing(4)), {"guide": guide})
    denoiser, cond = pipeline.guided({"label": LABEL})
    return denoiser(X, now, cond).x_0


def exact(label: Tensor | None, now: Point = NOW) -> Tensor:
    """E[x_0 | x_t = X, y]."""
    if label is None:
        return of_class(None, VP)(X, now, {}).x_0
    both = torch.stack([of_class(each, VP)(X, now, {}).x_0 for each in (0, 1)])
    return both[label, torch.arange(len(X))]


# Classifier-free -----------------------------------------------------------------------------------------------------


def test_scales_0_and_1_are_the_halves_of_one_call_to_the_bit() -> None:
    conditional, unconditional = halves(Labelled(VP), X, NOW, LABEL)
    assert torch.equal(guided(ClassifierFree(0.0)), unconditional)
    assert torch.equal(guided(ClassifierFree(1.0)), conditional)
    assert torch.allclose(conditional, exact(LABEL))
    assert torch.allclose(unconditional, exact(None))
    assert not torch.allclose(conditional, unconditional, atol=0.01)


@pytest.mark.parametrize("scale", [-1.0, 0.5, 3.0])
def test_other_scales_extrapolate(scale: float) -> None:
    assert torch.allclose(guided(ClassifierFree(scale)), exact(None) + scale * (exact(LABEL) - exact(None)))


def test_both_estimates_are_one_call_and_outside_of_the_interval_one_half_of_it() -> None:
    pipeline = labelled_pipeline(VP, DDIM(LogSNR(20)), {"guide": ClassifierFree(3.0, interval=[0.5, 8.0])})
    rows: Any = pipeline.denoiser.rows
    pipeline(pipeline.request(range(4)), range(4))
    grid = VP.points(LogSNR(20)(VP))
    expected = [8 if 0.5 < point.sigma / point.alpha <= 8 else 4 for point in grid[:-1]]
    assert 4 < expected.count(8) < 10
    assert rows == expected
    pipeline.guidance = {"guide": ClassifierFree(None)}
    pipeline(pipeline.request(range(4)), range(4))
    assert rows[len(expected) :] == [4] * len(expected)


def test_both_halves_of_a_batch_are_counted_as_calls() -> None:
    class Network(nn.Module):
        def forward(self, x: Tensor, c_noise: Tensor, vector: Tensor) -> Tensor:
            return x * vector[:, :1]

    grid = VP.points(LogSNR(20)(VP))[:-1]
    denoiser = NetworkDenoiser(Network(), VP, NoisePrediction())
    pipeline = Pipeline(denoiser, Label(2, 3, dropout=0.1), Plain(), DDIM(LogSNR(20)), [2])
    for interval, expected in ((None, 40), ([0.5, 8.0], 20 + sum(0.5 < math.exp(-p.half) <= 8 for p in grid))):
        pipeline.guidance = {"guide": ClassifierFree(3.0, interval=interval)}
        with calls_counted(pipeline) as calls:
            for seeds in (range(4), range(4, 7)):
                pipeline(pipeline.request(seeds), seeds)
        assert calls(7) == expected
    assert isinstance(pipeline.network, Network)


@pytest.mark.parametrize(("t", "acts"), [(0.1, False), (0.3, True), (0.9, False)])
def test_the_interval_is_in_noise_levels(t: float, acts: bool) -> None:
    now = VP.points([t])[0]
    found = guided(ClassifierFree(3.0, interval=[0.5, 2.0]), now)
    expected = exact(None, now) + 3 * (exact(LABEL, now) - exact(None, now)) if acts else exact(LABEL, now)
    assert torch.allclose(found, expected)
    assert (0.5 < now.sigma / now.alpha <= 2.0) is acts


def test_a_ramp_changes_the_scale_on_the_way() -> None:
    for t in (0.2, 1.0):
        now = VP.points([t])[0]
        scale = 1 + (4 - 1) * (1 - t) ** 2
        expected = exact(None, now) + scale * (exact(LABEL, now) - exact(None, now))
        assert torch.allclose(guided(ClassifierFree(Ramp(1.0, 4.0, power=2.0)), now), expected)


def test_rescaling_gives_the_deviation_of_the_conditional_estimate() -> None:
    plain = guided(ClassifierFree(4.0))
    whole, part = guided(ClassifierFree(4.0, mix=Rescaled(1.0))), guided(ClassifierFree(4.0, mix=Rescaled(0.25)))
    deviations = [x.std(1, correction=0, keepdim=True) for x in (exact(LABEL), plain)]
    assert torch.allclose(whole.std(1, correction=0, keepdim=True), deviations[0])
    assert torch.allclose(part, 0.25 * whole + 0.75 * plain)


def test_projection_leaves_out_the_part_along_the_conditional_estimate() -> None:
    strong, change = exact(LABEL), exact(LABEL) - exact(None)
    unit = torch.nn.functional.normalize(strong, dim=1)
    along = (change * unit).sum(1, keepdim=True) * unit
    free = guided(ClassifierFree(4.0, mix=Projected(0.0, momentum=0.0)))
    assert torch.allclose(free, strong + 3 * (change - along))
    assert torch.allclose(((free - strong) * strong).sum(1), torch.zeros(5).double(), atol=1e-12)
    assert torch.allclose(guided(ClassifierFree(4.0, mix=Projected(1.0, momentum=0.0))), guided(ClassifierFree(4.0)))
    lengths = change.norm(dim=1)
    radius = lengths.median().item()  # some changes are longer, some shorter
    short = guided(ClassifierFree(4.0, mix=Projected(1.0, momentum=0.0, radius=radius)))
    assert torch.allclose((short - strong).norm(dim=1), 3 * lengths.clamp(max=radius))


def test_projection_remembers_the_step_before_within_one_run_only() -> None:
    guide = ClassifierFree(4.0, mix=Projected(1.0, momentum=-0.5))
    pipeline = labelled_pipeline(VP, DDIM(Trailing(4)), {"guide": guide})
    change = exact(LABEL) - exact(None)
    for _ in range(2):
        denoiser, cond = pipeline.guided({"label": LABEL})
        assert torch.allclose(denoiser(X, NOW, cond).x_0, exact(LABEL) + 3 * change)
        assert torch.allclose(denoiser(X, NOW, cond).x_0, exact(LABEL) + 3 * (1 - 0.5) * change)


def test_a_model_without_a_trained_null_is_refused() -> None:
    pipeline = labelled_pipeline(VP, DDIM(Trailing(4)), {"guide": ClassifierFree(2.0)})
    pipeline.conditioner = Label(2, 3, dropout=0.0)
    with pytest.raises(ValueError, match=r"never trained without label alone.* conditioner\.dropout=0\.1"):
        pipeline.guided({"label": LABEL})
    unconditional = exact_pipeline(mixture(VP))
    with pytest.raises(ValueError, match="has none"):
        ClassifierFree(2.0)(unconditional.denoiser, unconditional, {})
    with pytest.raises(ValueError, match="colour is not a condition of this model: available: label"):
        pipeline.conditioner.null({"label": LABEL}, ["colour"])


@pytest.mark.parametrize("guide", [ClassifierFree, ClassifierGuidance, EnergyGuidance])
def test_an_empty_interval_is_refused(guide: Callable[..., Guidance]) -> None:
    first: list[Any] = [] if guide is ClassifierFree else [ExactClassifier(VP)]
    with pytest.raises(ValueError, match="put the lower first"):
        guide(*first, scale=1.0, interval=[2.0, 1.0])


# Autoguidance --------------------------------------------------------------------------------------------------------


def test_autoguidance_extrapolates_from_the_weaker_model_under_the_same_condition() -> None:
    weak = labelled_pipeline(VP, DDIM(Trailing(4)))
    for denoiser in weak.denoiser.exact:  # type: ignore[union-attr]
        denoiser.covariances = 4 * denoiser.covariances
        denoiser.scales = 4 * denoiser.scales
    told = {"vector": torch.eye(3)[LABEL].double()}
    expected = weak.denoiser(X, NOW, told).x_0
    assert not torch.allclose(expected, exact(LABEL), atol=0.01)
    expected = expected + 2.5 * (exact(LABEL) - expected)
    assert torch.allclose(guided(Autoguidance(weak, 2.5)), expected)
    assert torch.allclose(guided(Autoguidance(weak, 2.5, interval=[5.0, 10.0])), exact(LABEL))
    other = labelled_pipeline(SCHEDULES["cosine"], DDIM(Trailing(4)))
    with pytest.raises(ValueError, match="must have the schedule and the data shape"):
        guided(Autoguidance(other, 2.5))


# Classifier ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vp", "cosine", "edm", "sub_vp", "linear"])
@pytest.mark.parametrize("t", [0.05, 0.5, 0.99])
def test_classifier_guidance_of_scale_1_is_the_exact_conditional_denoiser(name: str, t: float) -> None:
    schedule = ALL_SCHEDULES[name]
    now = schedule.points([schedule.snap(t)])[0]
    x = now.alpha * mixture(schedule).draw(5) + now.sigma * X
    pipeline = exact_pipeline(mixture(schedule), DDIM(LogSNR(4)))
    for scale in (1.0, 3.0):  # and of any scale what classifier-free guidance is
        found = ClassifierGuidance(ExactClassifier(schedule), scale, [0.0, 1e6])(
            pipeline.denoiser, pipeline, {"label": LABEL}
        )(x, now, {})
        given = torch.stack([of_class(each, schedule)(x, now, {}).x_0 for each in (0, 1)])[LABEL, torch.arange(5)]
        free = mixture(schedule)(x, now, {}).x_0
        assert torch.allclose(found.x_0, free + scale * (given - free), atol=1e-5), (scale, name)


LAWS: dict[str, Callable[[TimeGrid], Sampler]] = {
    "ddim": DDIM,
    "abm": abm,
    "dpmpp_2m": dpmpp_2m,
    "ancestral": Ancestral,
}


@pytest.mark.many
@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("method", LAWS.values(), ids=LAWS.keys())
def test_samples_guided_with_scale_1_have_the_law_of_their_class(
    method: Callable[[TimeGrid], Sampler], label: int
) -> None:
    num_steps = 60 if method in (abm, dpmpp_2m) else 400
    sampler = method(LogSNR(num_steps, highest=12.0))
    pipeline = labelled_pipeline(VP, sampler, {"guide": ClassifierGuidance(ExactClassifier(VP), 1.0)})
    batch = {"label": torch.full((3000,), label)}
    whole: Any = pipeline.denoiser
    pipeline.denoiser = whole.exact[2]
    whole.exact[2].noise = whole.noise
    x = pipeline(batch, range(3000)).double()
    errors = standard_errors(of_class(label, VP), x)
    assert (errors[errors.isfinite()] < 3).all()  # the share of a class of one mode does not vary


def test_labels_of_an_unconditional_model_are_asked_for_its_classifier() -> None:
    pipeline = exact_pipeline(mixture(VP))
    with pytest.raises(ValueError, match="takes no condition"):
        pipeline.request([0], label=1)
    pipeline.guidance = {"guide": ClassifierGuidance(ExactClassifier(VP))}
    assert pipeline.request(range(3), label=1)["label"].tolist() == [1, 1, 1]
    assert pipeline.request(range(3))["label"].tolist() == [0, 1, 0]
    with pytest.raises(ValueError, match="0 to 1"):
        pipeline.request([0], label=2)
    with pytest.raises(ValueError, match=r"condition\.colour is unknown: this model takes condition\.label"):
        pipeline.request([0], colour=2)


# Energies ------------------------------------------------------------------------------------------------------------


def test_an_energy_pulls_along_its_gradient_through_the_denoiser() -> None:
    denoiser = mixture(VP)
    pipeline = exact_pipeline(denoiser)

    def energy(x_0: Tensor, batch: Mapping[str, Any]) -> Tensor:
        return mean_value(x_0, batch, value=0.7, deviation=0.5)

    found = EnergyGuidance(energy, 2.0)(denoiser, pipeline, {})(X, NOW, {}).x_0
    h, gradient = 1e-5, torch.empty_like(X)
    for i in range(2):
        moved = [energy(denoiser(X + way * h * torch.eye(2)[i], NOW, {}).x_0, {}) for way in (1, -1)]
        gradient[:, i] = (moved[0] - moved[1]) / (2 * h)
    expected = denoiser(X, NOW, {}).x_0 - 2.0 * NOW.sigma**2 / NOW.alpha * gradient
    assert torch.allclose(found, expected, atol=1e-6)
    assert not found.requires_grad


def test_samples_of_lower_energy_come_out() -> None:
    pipeline = exact_pipeline(mixture(VP), abm(Centred(20, 0.47, 1.5)))
    free = pipeline({}, range(200)).double()

    def energy(x_0: Tensor, batch: Mapping[str, Any]) -> Tensor:
        return mean_value(x_0, batch, value=0.9, deviation=0.3)

    pipeline.guidance = {"guide": EnergyGuidance(energy)}
    assert energy(pipeline({}, range(200)).double(), {}).mean() < 0.3 * energy(free, {}).mean()


# All of them ---------------------------------------------------------------------------------------------------------

ALL: dict[str, Callable[[], Guidance]] = {
    "classifier-free": lambda: ClassifierFree(2.0),
    "projected": lambda: ClassifierFree(2.0, mix=Projected()),
    "rescaled": lambda: ClassifierFree(2.0, mix=Rescaled()),
    "auto": lambda: Autoguidance(labelled_pipeline(VP, DDIM(Trailing(4))), 2.0),
    "classifier": lambda: ClassifierGuidance(ExactClassifier(VP), 2.0),
    "energy": lambda: EnergyGuidance(mean_value),
}


@pytest.mark.parametrize("guide", ALL.values(), ids=ALL.keys())
def test_an_inference_mode_changes_nothing(guide: Callable[[], Guidance]) -> None:
    pipeline = labelled_pipeline(VP, abm(Centred(6, 0.47, 1.5)), {"guide": guide()})
    expected = pipeline(pipeline.request(range(4)), range(4))
    with torch.inference_mode():
        found = pipeline(pipeline.request(range(4)), range(4))
    assert torch.equal(found, expected)
    assert not expected.requires_grad


@pytest.mark.parametrize("guide", ALL.values(), ids=ALL.keys())
def test_conditions_and_memory_follow_a_choice_of_the_batch(guide: Callable[[], Guidance]) -> None:
    pipeline = labelled_pipeline(VP, DDIM(Trailing(4)), {"guide": guide()})
    index = torch.tensor([4, 4, 0, 2, 1])
    follows, cond = pipeline.guided({"label": LABEL})
    direct, _ = pipeline.guided({"label": LABEL})
    follows(X, NOW, cond)
    direct(X, NOW, cond)
    later = VP.points([0.3])[0]
    expected = direct(X, later, cond).x_0[index]
    follows.select(index)
    found = follows(X[index], later, {name: value[index] for name, value in cond.items()}).x_0
    assert torch.allclose(found, expected)


class Remembering(Denoiser):
    """Answers with its last input, so that a mistaken row shows."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule, self.noise = VP, Labelled(VP).noise
        self.last: Tensor | None = None

    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        answer = torch.zeros_like(x_t) if self.last is None else self.last
        self.last = x_t
        return Estimate(answer, {})

    def select(self, index: Tensor) -> None:
        if self.last is not None:
            self.last = self.last[index]


def test_a_denoiser_with_a_memory_is_told_when_the_batch_doubles_and_halves() -> None:
    pipeline = labelled_pipeline(VP, DDIM(Trailing(4)))
    denoiser = ClassifierFree(2.0, interval=[0.5, 2.0])(Remembering(), pipeline, {"label": LABEL})
    cond = pipeline.conditioner({"label": LABEL})
    before = X
    denoiser(X, VP.points([0.9])[0], cond)
    for t in (0.3, 0.25, 0.1, 0.3):
        x = torch.randn(5, 2).double()
        assert torch.equal(denoiser(x, VP.points([t])[0], cond).x_0, before)
        before = x


class Told(Remembering):
    """Answers with its last input and what it was told with it, so that a mistaken half shows."""

    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        return super().forward(x_t + 10 * cond["vector"][:, :2], now, cond)


def test_a_choice_of_the_batch_is_made_in_each_half_of_what_is_remembered() -> None:
    pipeline = labelled_pipeline(VP, DDIM(Trailing(4)))
    denoiser = ClassifierFree(3.0)(Told(), pipeline, {"label": LABEL})
    cond, index = pipeline.conditioner({"label": LABEL}), torch.tensor([4, 4, 0, 2, 1])
    denoiser(X, NOW, cond)
    conditional, unconditional = (X + 10 * torch.eye(3)[row, :2] for row in (LABEL, torch.full((5,), 2)))
    denoiser.select(index)
    found = denoiser(X, NOW, {name: value[index] for name, value in cond.items()}).x_0
    assert torch.allclose(found, (unconditional + 3 * (conditional - unconditional))[index])


def test_gradients_are_refused_where_there_is_no_signal() -> None:
    schedule = (
        ALL_SCHEDULES["cosine"] if ALL_SCHEDULES["cosine"].points([1.0])[0].alpha == 0 else ALL_SCHEDULES["linear"]
    )
    now = schedule.points([1.0])[0]
    assert now.alpha == 0
    pipeline = exact_pipeline(mixture(schedule))
    guide = ClassifierGuidance(ExactClassifier(schedule), 1.0)
    with pytest.raises(ValueError, match=r"alpha = 0: set guidance\.interval"):
        guide(pipeline.denoiser, pipeline, {"label": LABEL})(X, now, {})
    within = ClassifierGuidance(ExactClassifier(schedule), 1.0, interval=[0.0, 100.0])
    assert within(pipeline.denoiser, pipeline, {"label": LABEL})(X, now, {}).x_0.isfinite().all()


def test_classes_of_the_mixture_cover_its_modes() -> None:
    assert sorted(mode for modes in CLASSES for mode in modes) == list(range(len(mixture(VP).weights)))


class Linear(Denoiser):
    """D = image + 2 text, each 0 where it is emptied."""

    def __init__(self) -> None:
        super().__init__()
        self.schedule, self.noise = VP, Gaussian()
        self.network = nn.Identity()

    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        return Estimate(cond["image"] + 2 * cond["text"] + 0 * x_t, {})


class Numbers(Conditioner):
    """Each name is a door of its own."""

    names = ("image", "text")

    @property
    def dropouts(self) -> Mapping[str, float]:
        return dict.fromkeys(self.names, 0.1)

    def condition(self, batch: Mapping[str, Tensor], dropped: Mapping[str, Tensor]) -> Condition:
        empty = {name: dropped.get(name, torch.zeros(len(batch[name]), dtype=torch.bool)) for name in self.names}
        return {name: batch[name].where(~empty[name][:, None], 0.0) for name in self.names}

    def request(self, seeds: Any, **condition: Any) -> dict[str, Tensor]:
        return {name: torch.ones(len(seeds), 1) for name in self.names}


def test_nested_guides_are_refused_where_their_sum_would_be_wrong() -> None:
    """On D_0 = 0, D_I = 1 and D_TI = 3, with a scale of 2 for all conditions and of 5 for the text."""
    batch = {"image": torch.ones(2, 1), "text": torch.ones(2, 1), "position": torch.arange(2)}
    pipeline = Pipeline(Linear(), Numbers(), Plain(), DDIM(Trailing(4)), [1])
    pipeline.guidance = {"text": ClassifierFree(5.0, names=["text"]), "all": ClassifierFree(2.0)}
    with pytest.raises(ValueError, match="classifier_free empties image around another classifier_free that keeps it"):
        pipeline.guided(batch)
    pipeline.guidance = {"all": ClassifierFree(2.0), "text": ClassifierFree(5.0, names=["text"])}
    denoiser, cond = pipeline.guided(batch)
    # The inner one makes w D of D; the outer one contrasts what that makes of D_TI and of D_I.
    assert denoiser(torch.zeros(2, 1), NOW, cond).x_0.flatten().tolist() == [2 * 1 + 5 * (2 * 3 - 2 * 1)] * 2
