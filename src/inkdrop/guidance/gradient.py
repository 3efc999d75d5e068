"""Guidance by the gradient of a classifier of x_t, or of any energy of the estimated x_0.

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

from inkdrop.conditioners.label import labels
from inkdrop.denoiser import Condition, Denoiser, Estimate, Wrapper
from inkdrop.guidance.base import Guidance, Guided
from inkdrop.guidance.scales import Interval, Scale, Within
from inkdrop.models.classifier import NoisyClassifier
from inkdrop.schedules import Point, Schedule

# energy(x_0 (B, *), raw batch) -> (B): low where samples should be.
Energy: TypeAlias = Callable[[Tensor, Mapping[str, Any]], Tensor]


def _check_signal(now: Point, schedule: Schedule) -> None:
    if now.alpha == 0:
        raise ValueError(
            f"a gradient cannot guide at t = {now.t}, where {type(schedule).__name__} has alpha = 0: set "
            "guidance.interval=[0,100], or choose a schedule with alpha > 0"
        )


def check_points(scale: Within, denoiser: Denoiser, pipeline: Guided) -> None:
    """Raises `ValueError` if the sampler visits a point with alpha = 0 where guidance acts."""
    for now in pipeline.sampler.points(denoiser.schedule):
        if scale(now) is not None:
            _check_signal(now, denoiser.schedule)


class Pulled(Wrapper):
    """The guided estimate `x_0 + w sigma^2 / alpha grad`."""

    def __init__(self, denoiser: Denoiser, scale: Within):
        super().__init__(denoiser)
        self.scale = scale

    @abstractmethod
    def gradient(self, x_t: Tensor, now: Point, cond: Condition) -> tuple[Estimate, Tensor]:
        """Returns the estimate, and the gradient (B, *) with respect to x_t of the quantity to be increased."""

    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        scale = self.scale(now)
        if scale is None:
            return self.denoiser(x_t, now, cond)
        _check_signal(now, self.schedule)
        # The graph is built only here. Tensors of inference mode cannot be part of one, hence the clones.
        with torch.inference_mode(False), torch.enable_grad():
            cloned = {name: value.detach().clone() for name, value in cond.items()}
            (x_0, extras), gradient = self.gradient(x_t.detach().clone().requires_grad_(), now, cloned)
        factor = scale * float(now.sigma) * math.exp(-float(now.half))
        return Estimate(x_0.detach() + factor * gradient, {name: value.detach() for name, value in extras.items()})


class _Classified(Pulled):
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


class _Attracted(Pulled):
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
    """Classifier guidance, `D + w sigma^2 / alpha grad log p(y | x_t)`: towards data that a classifier labels y.

    The label is `condition.label`.

    - `classifier`: a classifier of noised data, of the same shape and schedule as the model.
    - `scale`: the guidance scale w. 1 samples the posterior p(x | y) of the model; above, samples are more typical and
      less varied. None turns guidance off.
    - `interval`: the noise levels sigma / alpha at which guidance acts.

    Raises `ValueError` where alpha = 0, and for a classifier of other data or of another schedule. Source: Dhariwal and
    Nichol 2021, arXiv 2105.05233, algorithms 1 and 2, for any sampler.
    """

    names = ("label",)

    def __init__(
        self, classifier: NoisyClassifier, scale: float | Scale | None = 1.0, interval: Interval | None = None
    ):
        if not hasattr(classifier, "num_classes"):
            raise ValueError(
                "guidance.checkpoint is not a classifier: name a run of experiment=digits_classifier or similar"
            )
        self.classifier, self.scale = classifier, Within(scale, interval)

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        return {"label": labels(seeds, self.classifier.num_classes, condition.get("label"))}

    def __call__(self, denoiser: Denoiser, pipeline: Guided, batch: Mapping[str, Any]) -> Denoiser:
        if self.scale.scale is None:
            return denoiser
        model, other = (each.schedule.points([0.25, 0.5, 1.0]) for each in (denoiser, self.classifier))
        if model != other or pipeline.shape != self.classifier.shape:
            raise ValueError(
                "guidance.classifier must have the schedule and the data shape of the model: name another run"
            )
        if "label" not in batch:
            raise ValueError("a classifier guides to labels, but these data have none: choose another guidance")
        check_points(self.scale, denoiser, pipeline)
        classifier = self.classifier.to(pipeline.device).eval()
        return _Classified(denoiser, self.scale, classifier, batch["label"])


class EnergyGuidance(Guidance):
    """Energy guidance, `D - w sigma^2 / alpha grad E(D(x_t))`: towards low energy, through the denoiser's gradient.

    The law of samples only approximates `p(x) exp(-w E(x))`, because the energy of the mean replaces the mean over x_0.

    - `energy`: any differentiable function `energy(x_0 (B, *), raw batch) -> (B)`.
    - `scale`: the guidance scale w; None turns guidance off.
    - `interval`: the noise levels sigma / alpha at which guidance acts.

    Raises `ValueError` where alpha = 0. Source: Chung et al. 2023, arXiv 2209.14687, and Bansal et al. 2023, arXiv
    2302.07121, without normalising.
    """

    def __init__(self, energy: Energy, scale: float | Scale | None = 1.0, interval: Interval | None = None):
        self.energy, self.scale = energy, Within(scale, interval)

    def __call__(self, denoiser: Denoiser, pipeline: Guided, batch: Mapping[str, Any]) -> Denoiser:
        if self.scale.scale is None:
            return denoiser
        check_points(self.scale, denoiser, pipeline)
        return _Attracted(denoiser, self.scale, self.energy, batch)
