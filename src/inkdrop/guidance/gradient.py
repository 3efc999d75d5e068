"""Guidance by a gradient: of a classifier of x_t, or of any energy of the estimated x_0.

By Tweedie's formula a factor `exp(w log p(y | x_t))` on the density of x_t adds `w sigma^2 / alpha grad log p(y | x_t)`
to E[x_0 | x_t].
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from inkdrop.classifier import NoisyClassifier
from inkdrop.conditioners.label import labels
from inkdrop.denoiser import Condition, Denoiser, Estimate, Wrapper
from inkdrop.guidance.base import Guidance, Guided
from inkdrop.guidance.scales import Interval, Scale, Within
from inkdrop.schedules import Point, Schedule

# energy(x_0 (B, *), raw batch) -> (B): low where samples should be.
Energy: TypeAlias = Callable[[Tensor, Mapping[str, Any]], Tensor]


def _check_signal(now: Point, schedule: Schedule) -> None:
    if now.alpha == 0:
        raise ValueError(
            f"a gradient does not guide at t = {now.t}, where {type(schedule).__name__} has alpha = 0: set "
            "guidance.interval=[0,100], or choose a schedule that keeps some signal"
        )


def _check_way(scale: Within, denoiser: Denoiser, pipeline: Guided) -> None:
    """`ValueError` if the sampler visits a point without signal where there is to be guidance."""
    for now in pipeline.sampler.points(denoiser.schedule):
        if scale(now) is not None:
            _check_signal(now, denoiser.schedule)


class _Pulled(Wrapper):
    """`x_0 + w sigma^2 / alpha grad`."""

    def __init__(self, denoiser: Denoiser, scale: Within):
        super().__init__(denoiser)
        self.scale = scale

    @abstractmethod
    def gradient(self, x_t: Tensor, now: Point, cond: Condition) -> tuple[Estimate, Tensor]:
        """The estimate, and the gradient (B, *) of what is to grow with respect to x_t."""

    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        scale = self.scale(now)
        if scale is None:
            return self.denoiser(x_t, now, cond)
        _check_signal(now, self.schedule)
        # A graph is made here alone, and not of tensors of an inference mode, which remember none.
        with torch.inference_mode(False), torch.enable_grad():
            told = {name: value.detach().clone() for name, value in cond.items()}
            (x_0, extras), gradient = self.gradient(x_t.detach().clone().requires_grad_(), now, told)
        factor = scale * float(now.sigma) * math.exp(-float(now.half))
        return Estimate(x_0.detach() + factor * gradient, {name: value.detach() for name, value in extras.items()})


class _Classified(_Pulled):
    def __init__(self, denoiser: Denoiser, scale: Within, classifier: NoisyClassifier, label: Tensor):
        super().__init__(denoiser, scale)
        self.classifier, self.label = classifier, label.clone()

    def gradient(self, x_t: Tensor, now: Point, cond: Condition) -> tuple[Estimate, Tensor]:
        log_probability = self.classifier(x_t, now).log_softmax(1).gather(1, self.label.clone()[:, None])
        (gradient,) = torch.autograd.grad(log_probability.sum(), x_t)
        with torch.no_grad():
            return self.denoiser(x_t.detach(), now, cond), gradient

    def select(self, index: Tensor) -> None:
        self.label = self.label[index]
        super().select(index)


class _Attracted(_Pulled):
    def __init__(self, denoiser: Denoiser, scale: Within, energy: Energy, batch: Mapping[str, Any]):
        super().__init__(denoiser, scale)
        self.energy, self.batch = energy, dict(batch)

    def gradient(self, x_t: Tensor, now: Point, cond: Condition) -> tuple[Estimate, Tensor]:
        estimate = self.denoiser(x_t, now, cond)
        batch = {name: value.clone() for name, value in self.batch.items()}
        (gradient,) = torch.autograd.grad(-self.energy(estimate.x_0, batch).sum(), x_t)
        return estimate, gradient

    def select(self, index: Tensor) -> None:
        self.batch = {name: value[index] for name, value in self.batch.items()}
        super().select(index)


class ClassifierGuidance(Guidance):
    """`D + w sigma^2 / alpha grad log p(y | x_t)`: towards what a classifier of noised data takes for the label.

    w = 1 is the posterior p(x | y) of the data that the model knows; above, samples are more typical and less varied.
    None is no guidance, and so is everything outside of `interval`, noise levels sigma / alpha. The label is
    `condition.label`. `ValueError` where alpha = 0, and for a classifier of other data or of another schedule.
    Source: Dhariwal and Nichol 2021, arXiv 2105.05233, algorithms 1 and 2, for any sampler.
    """

    names = ("label",)

    def __init__(
        self, classifier: NoisyClassifier, scale: float | Scale | None = 1.0, interval: Interval | None = None
    ):
        if not hasattr(classifier, "num_classes"):
            raise ValueError("guidance.checkpoint must be a classifier, such as a run of experiment=digits_classifier")
        self.classifier, self.scale = classifier, Within(scale, interval)

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        return {"label": labels(seeds, self.classifier.num_classes, condition.get("label"))}

    def __call__(self, denoiser: Denoiser, pipeline: Guided, batch: Mapping[str, Any]) -> Denoiser:
        if self.scale.scale is None:
            return denoiser
        own, other = (each.schedule.points([0.25, 0.5, 1.0]) for each in (denoiser, self.classifier))
        if own != other or pipeline.shape != self.classifier.shape:
            raise ValueError("guidance.classifier must be one of the same data on the same schedule as the model")
        if "label" not in batch:
            raise ValueError("a classifier guides towards labels, and there are none in these data")
        _check_way(self.scale, denoiser, pipeline)
        classifier = self.classifier.to(pipeline.device).eval()
        return _Classified(denoiser, self.scale, classifier, batch["label"])


class EnergyGuidance(Guidance):
    """`D - w sigma^2 / alpha grad E(D(x_t))`: towards data of low energy, by the gradient through the denoiser.

    `energy(x_0 (B, *), raw batch)` is any differentiable function, (B). The law of samples is only close to
    `p(x) exp(-w E(x))`, as the energy of the mean stands for the mean over x_0. `ValueError` where alpha = 0.
    Source: Chung et al. 2023, arXiv 2209.14687, and Bansal et al. 2023, arXiv 2302.07121, without normalising.
    """

    def __init__(self, energy: Energy, scale: float | Scale | None = 1.0, interval: Interval | None = None):
        self.energy, self.scale = energy, Within(scale, interval)

    def __call__(self, denoiser: Denoiser, pipeline: Guided, batch: Mapping[str, Any]) -> Denoiser:
        if self.scale.scale is None:
            return denoiser
        _check_way(self.scale, denoiser, pipeline)
        return _Attracted(denoiser, self.scale, self.energy, batch)
