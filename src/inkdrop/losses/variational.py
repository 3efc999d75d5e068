"""The variational bound as a training loss, alone or added to the denoising loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from inkdrop.denoiser import NetworkDenoiser
from inkdrop.deviations import Deviation, decoder
from inkdrop.losses.base import Example, Loss, LossTerms
from inkdrop.losses.coupling import independent
from inkdrop.losses.denoising import Attempt, DenoisingLoss
from inkdrop.randomness import Generators, sent
from inkdrop.schedules import Point, over
from inkdrop.variational import decoder_term, discretized, gaussian, prior_term, step_terms


class VariationalLoss(Loss):
    """The variational bound of a discrete schedule of T steps, in nats per element.

    It is estimated by T times the term of one drawn step, plus the term of the prior. The term of a step is its KL
    divergence, or the decoder's negative log-likelihood at the first step.

    - `denoising`: the denoising loss; its time sampler draws the steps.
    - `deviation`: the standard deviation of the reverse chain; `inkdrop.deviations.learned` is trained too.
    - `levels`: the number of values that the data take from -1 to 1; null bounds a density.

    `check` raises `ValueError` if the schedule is not discrete, if the times are not steps of it, or if the noise is
    not standard and independent of the data. Sources: Ho et al. 2020, arXiv 2006.11239, equation 5; Nichol and Dhariwal
    2021, arXiv 2102.09672.
    """

    def __init__(self, denoising: DenoisingLoss, deviation: Deviation, levels: Annotated[int, Ge(2)] | None):
        super().__init__()
        self.denoising, self.deviation = denoising, deviation
        self.log_probability = gaussian if levels is None else partial(discretized, width=2 / (levels - 1))

    @property
    def logged(self) -> tuple[str, ...]:
        return self.denoising.logged

    def check(self, denoiser: NetworkDenoiser) -> None:
        if denoiser.schedule.num_timesteps is None:
            raise ValueError(
                f"{type(denoiser.schedule).__name__} has no discrete steps to sum over: choose weighting=likelihood"
            )
        coupling = self.denoising.coupling
        coupled = getattr(coupling, "func", coupling) is not independent  # a configuration gives a partial of it
        if coupled or not denoiser.noise.standard:
            raise ValueError("the variational bound needs standard noise: set noise=gaussian and coupling=independent")
        drawn = self.denoising.time_sampler.quantile(denoiser.schedule, torch.tensor([0.1, 0.7]).double())
        if not all(denoiser.schedule.snap(t) == t for t in drawn.tolist()):
            raise ValueError("the variational bound is a sum over discrete steps: choose time_sampler=discrete")
        self.denoising.check(denoiser)

    def forward(
        self, denoiser: NetworkDenoiser, example: Example, generators: Generators, t: Tensor | None = None
    ) -> LossTerms:
        attempt = self.denoising.attempt(denoiser, example, generators, t)
        _, error = self.denoising.errors(denoiser, example, attempt)
        prior = (
            prior_term(example.x_0, denoiser.schedule.points([1.0])[0], example.element_weight) / example.num_elements
        )
        bound = prior + self.bound(denoiser, example, attempt, attempt.F)
        return self.denoising.settle(denoiser, example, attempt, generators, bound, {"error": error, "bound": bound})

    def bound(self, denoiser: NetworkDenoiser, example: Example, attempt: Attempt, F: Tensor) -> Tensor:
        """Returns T times the term (B) of the attempt's step, with the output F (B, *), in nats per element."""
        schedule, now, x_0 = denoiser.schedule, attempt.now, example.x_0
        weight = None if example.element_weight is None else example.element_weight.expand_as(x_0)
        num_timesteps = schedule.num_timesteps
        assert num_timesteps is not None
        c_skip, c_out, _, _ = denoiser.prediction.coefficients(now)
        estimate = over(c_skip, F) * attempt.x_t.to(F.dtype) + over(c_out, F) * F
        step = torch.round(attempt.times.t * num_timesteps)
        first, later = (step == 1).nonzero().squeeze(1), (step > 1).nonzero().squeeze(1)
        value = F.new_zeros(len(x_0))
        if len(later):
            next = schedule.point((step[later] - 1) / num_timesteps)
            here, extras = _rows(now, later), _choose(attempt.extras, later)
            on = sent(later, F.device)
            counts = None if weight is None else weight[on]
            terms = step_terms(x_0[on], estimate[on], here, next, self.deviation(here, next, extras), counts)
            value = value.index_add(0, on, terms)
        if len(first):
            one, two = schedule.points([1 / num_timesteps, min(2, num_timesteps) / num_timesteps])
            on, extras = sent(first, F.device), _choose(attempt.extras, first)
            deviation = decoder(one, two if num_timesteps > 1 else None, extras)
            counts = None if weight is None else weight[on]
            terms = decoder_term(x_0[on], estimate[on], deviation, self.log_probability, counts)
            value = value.index_add(0, on, terms)
        return num_timesteps * value / example.num_elements


class HybridLoss(Loss):
    """The loss `L_simple + weight L_vlb`, with L_vlb in bits per element, for networks that learn the variance too.

    L_simple trains the mean. The mean is detached in the bound, which trains the variance only. The network must return
    "variance" as a further output, such as `network=learned_variance`.
    Source: Nichol and Dhariwal 2021, arXiv 2102.09672, equation 16 (0.001).
    """

    def __init__(self, variational: VariationalLoss, weight: Annotated[float, Ge(0)] = 0.001):
        super().__init__()
        self.variational, self.weight = variational, weight

    @property
    def logged(self) -> tuple[str, ...]:
        return self.variational.logged

    def check(self, denoiser: NetworkDenoiser) -> None:
        self.variational.check(denoiser)

    def forward(
        self, denoiser: NetworkDenoiser, example: Example, generators: Generators, t: Tensor | None = None
    ) -> LossTerms:
        denoising = self.variational.denoising
        attempt = denoising.attempt(denoiser, example, generators, t)
        simple, error = denoising.errors(denoiser, example, attempt)
        bound = self.variational.bound(denoiser, example, attempt, attempt.F.detach())
        loss = simple + self.weight / math.log(2) * bound
        return denoising.settle(denoiser, example, attempt, generators, loss, {"error": error, "bound": bound})


def _rows(point: Point, rows: Tensor) -> Point:
    return Point(*(torch.as_tensor(value)[rows] for value in point))


def _choose(extras: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    return {name: value[sent(rows, value.device)] for name, value in extras.items()}
