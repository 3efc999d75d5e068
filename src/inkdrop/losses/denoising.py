"""The weighted squared error of the network's output."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import torch
from annotated_types import Ge
from torch import Tensor, nn

from inkdrop.denoiser import Estimate, NetworkDenoiser
from inkdrop.losses.base import Example, Loss, LossTerms
from inkdrop.losses.coupling import Coupling, independent
from inkdrop.randomness import Generators, sent
from inkdrop.schedules import Point
from inkdrop.time_samplers import Times, TimeSampler
from inkdrop.weightings import Weighting, weights_at


class Attempt(NamedTuple):
    """One evaluation of the network on noised data.

    - `times`: the drawn times.
    - `now`: the schedule at these times, tensors (B).
    - `eps`: the noise (B, *).
    - `x_t`: the noised data (B, *).
    - `F`: the output of the network (B, *).
    - `extras`: further outputs of the network, by name.
    """

    times: Times
    now: Point
    eps: Tensor
    x_t: Tensor
    F: Tensor
    extras: Mapping[str, Tensor]


class Term(nn.Module):
    """A further term of a denoising loss, from the same network evaluation; `factor` multiplies it in the sum."""

    def __init__(self, factor: Annotated[float, Ge(0)] = 1.0):
        super().__init__()
        self.factor = factor

    @abstractmethod
    def forward(self, example: Example, attempt: Attempt, estimate: Estimate, generators: Generators) -> Tensor:
        """Returns the term (B), without its factor, for the estimate of x_0 of the attempt."""


class DenoisingLoss(Loss):
    """The weighted squared error `w |F(c_in x_t, c_noise) - F*|^2`, the mean over the elements of a sample that count.

    - `time_sampler`: the law of the times of training.
    - `weighting`: the weight w of a noise level.
    - `coupling`: the pairing of noise and data within a batch.
    - `terms`: further terms by name, which are added with their factors and logged without.

    Source: Ho et al. 2020, arXiv 2006.11239, equation 14, generalised by prediction, time sampler and weighting.
    """

    def __init__(
        self,
        time_sampler: TimeSampler,
        weighting: Weighting,
        coupling: Coupling = independent,
        terms: dict[str, Term] | None = None,
    ):
        super().__init__()
        self.time_sampler, self.weighting, self.coupling = time_sampler, weighting, coupling
        if taken := sorted({"loss", "t", "error", "bound", "uncertainty"} & set(terms or {})):
            raise ValueError(f"loss.terms.{taken[0]} has the name of another part of the loss: choose another name")
        self.terms: Any = nn.ModuleDict(terms or {})

    @property
    def logged(self) -> tuple[str, ...]:
        return tuple(self.terms)

    def check(self, denoiser: NetworkDenoiser) -> None:
        """Raises `ValueError` if a time, a target or a weight is not finite at some quantile of the drawn times."""
        t = self.time_sampler.quantile(denoiser.schedule, torch.tensor([0.0, 0.25, 0.5, 0.75, 1 - 1e-12]).double())
        facts = [denoiser.schedule.c_noise(t), weights_at(self.weighting, denoiser.schedule, denoiser.prediction, t)]
        facts += [torch.as_tensor(u) for u in denoiser.prediction.target_weights(denoiser.schedule.point(t))]
        if not all(bool(fact.isfinite().all()) for fact in facts):
            parts = (denoiser.schedule, denoiser.prediction, self.weighting)
            names = ", ".join(type(part).__name__ for part in parts)
            raise ValueError(f"the loss is not finite with {names}: choose another schedule, prediction or weighting")

    def forward(
        self, denoiser: NetworkDenoiser, example: Example, generators: Generators, t: Tensor | None = None
    ) -> LossTerms:
        attempt = self.attempt(denoiser, example, generators, t)
        loss, error = self.errors(denoiser, example, attempt)
        return self.settle(denoiser, example, attempt, generators, loss, {"error": error})

    def attempt(self, denoiser: NetworkDenoiser, example: Example, generators: Generators, t: Tensor | None) -> Attempt:
        """Draws noise for x_0 (B, *), at drawn or given times t (B), and evaluates the network on the noised data."""
        x_0 = example.x_0
        times = self.time_sampler(denoiser.schedule, generators.at("time")) if t is None else Times(t, None)
        now = denoiser.schedule.point(times.t)
        noise = denoiser.noise.within(example.batch)
        x_t, eps = noise.corrupt(x_0, now, generators.at("noise"), self.coupling)
        cond = denoiser.prepare(x_t, now, example.cond, generators.at("prepare"))
        return Attempt(times, now, eps, x_t, *denoiser.output(x_t, now, cond))

    def errors(self, denoiser: NetworkDenoiser, example: Example, attempt: Attempt) -> tuple[Tensor, Tensor]:
        """Returns the squared error (B) of an attempt, with and without the weight of its noise level."""
        target = denoiser.prediction.target(example.x_0, attempt.eps, attempt.now)
        error = example.mean((attempt.F - target).square())
        weight = weights_at(self.weighting, denoiser.schedule, denoiser.prediction, attempt.times.t)
        return _like(weight, error) * error, error

    def settle(
        self,
        denoiser: NetworkDenoiser,
        example: Example,
        attempt: Attempt,
        generators: Generators,
        loss: Tensor,
        parts: dict[str, Tensor],
    ) -> LossTerms:
        """Adds the further terms to the loss (B), and multiplies it by the factors of its times and samples.

        - `denoiser`: the model, whose estimate the terms use.
        - `example`: what the loss knows of the batch.
        - `attempt`: times, x_t and the output of the network.
        - `generators`: random streams, of which each term gets its own.
        - `loss`: the weighted loss of each sample (B), or of each element (B, *).
        - `parts`: values that are logged by name, to which those of the terms are added.

        A time sampler that drew the times observes the loss without these factors.
        """
        if self.terms:
            estimate = denoiser.estimate(attempt.x_t, attempt.now, attempt.F, attempt.extras)
            for name, term in self.terms.items():
                parts[name] = term(example, attempt, estimate, generators.at(f"term {name}"))
                loss = loss + term.factor * parts[name]
        times, factor = attempt.times, example.factor(attempt.times.importance)
        if times.u is not None:
            self.time_sampler.observe(times, loss.detach())
        return LossTerms(loss if factor is None else _like(factor, loss) * loss, times.t, parts, factor)


def _like(factors: Tensor, values: Tensor) -> Tensor:
    return sent(factors, values.device, values.dtype)
