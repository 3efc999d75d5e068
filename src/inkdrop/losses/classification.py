"""The loss of a classifier of noised data."""

from __future__ import annotations

import torch
from torch import Tensor

from inkdrop.losses.base import Example, Loss, LossTerms
from inkdrop.models.classifier import OfNoised
from inkdrop.randomness import Generators
from inkdrop.schedules import over
from inkdrop.time_samplers import Times, TimeSampler


class NoisyCrossEntropy(Loss):
    """The cross-entropy `-log p(y | x_t)` of labels y given noised data, with t drawn by the time sampler.

    The part "accuracy" is 1 where the most probable class is the label, and 0 elsewhere; of several labels, such as
    attributes of a text, it is the share, and the error is the mean.

    Source: Dhariwal and Nichol 2021, arXiv 2105.05233, section 4.
    """

    higher = ("accuracy",)

    def __init__(self, time_sampler: TimeSampler):
        super().__init__()
        self.time_sampler = time_sampler

    @property
    def logged(self) -> tuple[str, ...]:
        return ("accuracy",)

    def forward(
        self, classifier: OfNoised, example: Example, generators: Generators, t: Tensor | None = None
    ) -> LossTerms:
        times = self.time_sampler(classifier.schedule, generators.at("time")) if t is None else Times(t, None)
        now = classifier.schedule.point(times.t)
        x_t, _ = classifier.noise.within(example.batch).corrupt(example.x_0, now, generators.at("noise"))
        error, accuracy = classifier.judged(classifier(x_t, now), example.batch)
        if times.u is not None:
            self.time_sampler.observe(times, error.detach())
        factor = example.factor(times.importance)
        loss = error if factor is None else torch.as_tensor(over(factor, error)) * error
        return LossTerms(loss, times.t, {"error": error, "accuracy": accuracy}, factor)
