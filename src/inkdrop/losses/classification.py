"""The loss of a classifier of noised data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inkdrop.classifier import NoisyClassifier
from inkdrop.losses.base import LossTerms
from inkdrop.randomness import Generators
from inkdrop.schedules import over
from inkdrop.time_samplers import Times, TimeSampler


class NoisyCrossEntropy(nn.Module):
    """`-log p(y | x_t)`, with t drawn by the time sampler; the part "accuracy" is 1 where the label is recognised.

    Source: Dhariwal and Nichol 2021, arXiv 2105.05233, section 4.
    """

    def __init__(self, time_sampler: TimeSampler):
        super().__init__()
        self.time_sampler = time_sampler

    def forward(
        self, classifier: NoisyClassifier, x_0: Tensor, label: Tensor, generators: Generators, t: Tensor | None = None
    ) -> LossTerms:
        """The loss of x_0 (B, *) with labels (B) at times drawn for it, or at given times t (B)."""
        times = self.time_sampler(classifier.schedule, generators.at("time")) if t is None else Times(t, None)
        now = classifier.schedule.point(times.t)
        eps = classifier.noise(x_0.shape[1:], generators.at("noise"), x_0.dtype).to(x_0.device, non_blocking=True)
        logits = classifier(over(now.alpha, x_0) * x_0 + over(now.sigma, x_0) * eps, now)
        error = nn.functional.cross_entropy(logits, label, reduction="none")
        accuracy = (logits.argmax(1) == label).to(error.dtype)
        if times.u is not None:
            self.time_sampler.observe(times, error.detach())
        loss = error if times.importance is None else torch.as_tensor(over(times.importance, error)) * error
        return LossTerms(loss, times.t, {"error": error, "accuracy": accuracy}, times.importance)
