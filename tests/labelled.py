"""A mixture whose modes have labels: exact denoisers with and without the label, and the exact classifier."""

from __future__ import annotations

from typing import Any

import torch
from analytic import BatchGaussian, ExactDenoiser, Plain, mixture
from torch import Tensor, nn

from inkdrop.conditioners import Label
from inkdrop.denoiser import Condition, Denoiser, Estimate
from inkdrop.guidance import Guidance
from inkdrop.models.classifier import NoisyClassifier
from inkdrop.pipeline import Pipeline
from inkdrop.predictions import DataPrediction
from inkdrop.samplers import Sampler
from inkdrop.schedules import Point, Schedule, over

CLASSES = [[0, 1], [2]]  # modes of the mixture


def of_class(label: int | None, schedule: Schedule) -> ExactDenoiser:
    """The exact denoiser of the modes with a label, or of all."""
    whole = mixture(schedule)
    modes = [0, 1, 2] if label is None else CLASSES[label]
    weights = whole.weights[modes]
    return ExactDenoiser(schedule, weights / weights.sum(), whole.means[modes], whole.covariances[modes])


class Labelled(Denoiser):
    """Told a one-hot vector (B, 3): class 0, class 1, or none."""

    def __init__(self, schedule: Schedule):
        super().__init__()
        self.schedule, self.noise = schedule, BatchGaussian()
        self.exact = nn.ModuleList(of_class(label, schedule) for label in (0, 1, None))
        self.rows: list[int] = []  # of each call

    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        self.rows.append(len(x_t))
        estimates = torch.stack([denoiser(x_t, now, {}).x_0 for denoiser in self.exact], dim=1)
        return Estimate((cond["vector"].to(x_t.dtype)[:, :, None] * estimates).sum(1), {"row": x_t[:, 0]})


class ExactLogits(nn.Module):
    """log p(x_t, y) of both classes, as a network of a classifier that is shown x_t and the time."""

    def __init__(self, schedule: Schedule):
        super().__init__()
        self.schedule, self.exact = schedule, mixture(schedule)
        self.now: Point = schedule.points([0.5])[0]

    def forward(self, x: Tensor, c_noise: Tensor) -> Tensor:
        now, exact = self.now, self.exact
        alpha, sigma = (over(value, x) for value in (now.alpha, now.sigma))
        covariances = alpha**2 * exact.covariances + sigma**2 * torch.eye(2).double()
        modes = torch.distributions.MultivariateNormal(alpha * exact.means, covariances)
        joint = modes.log_prob(x[:, None].double()) + exact.weights.log()
        return torch.stack([joint[:, modes].logsumexp(1) for modes in CLASSES], dim=1)


class ExactClassifier(NoisyClassifier):
    """p(y | x_t) of the mixture."""

    def __init__(self, schedule: Schedule):
        super().__init__(ExactLogits(schedule), schedule, DataPrediction(), Plain(), [2], 2)

    def forward(self, x_t: Tensor, now: Point) -> Tensor:
        self.network.now = now  # type: ignore[assignment]
        logits: Tensor = self.network(x_t, torch.zeros(len(x_t)))
        return logits


def labelled_pipeline(schedule: Schedule, sampler: Sampler, guidance: dict[str, Guidance] | None = None) -> Pipeline:
    """A pipeline around `Labelled`; its conditioner makes the one-hot vectors."""
    conditioner = Label(2, 3, dropout=0.1)
    with torch.no_grad():
        conditioner.embedding.weight.copy_(torch.eye(3))
    return Pipeline(Labelled(schedule), conditioner, Plain(), sampler, [2], guidance)


def halves(denoiser: Denoiser, x: Tensor, now: Point, label: Tensor) -> tuple[Tensor, Tensor]:
    """The conditional and the unconditional estimate of one batched call."""
    vector: Any = torch.cat([torch.eye(3)[label], torch.eye(3)[[2] * len(label)]])
    conditional, unconditional = denoiser(torch.cat([x, x]), now, {"vector": vector}).x_0.chunk(2)
    return conditional, unconditional
