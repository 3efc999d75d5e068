"""The loss of masked diffusion.

B batch, V categories without the mask.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inkdrop.denoiser import MaskedDenoiser
from inkdrop.losses.base import Example, Loss, LossTerms
from inkdrop.randomness import Generators
from inkdrop.schedules import Schedule, over
from inkdrop.time_samplers import Times, TimeSampler

_LAST = 1 - 1e-6  # the largest time at which the rate of the log-SNR is computed, which is infinite at 1


class MaskedCrossEntropy(Loss):
    """The bound of masked diffusion on -log p(x_0), divided by the places of x: `-log p(x_0 | x_t) / t` of masked ones.

    The weight of a time is `-alpha' / sigma`, which is 1 / t on the linear schedule. The part `nats` is the bound of a
    whole sample. The loss requires `denoiser=masked`. Sources: Sahoo et al. 2024, arXiv 2406.07524, equation 10; Shi et
    al. 2024, arXiv 2406.04329, equation 4.

    - `time_sampler`: the law of the times of training.
    """

    def __init__(self, time_sampler: TimeSampler):
        super().__init__()
        self.time_sampler = time_sampler

    @property
    def logged(self) -> tuple[str, ...]:
        return ("nats",)

    def check(self, denoiser: MaskedDenoiser) -> None:
        if not isinstance(denoiser, MaskedDenoiser):
            raise ValueError(f"loss=masked_cross_entropy cannot train {type(denoiser).__name__}: set denoiser=masked")

    def forward(
        self, denoiser: MaskedDenoiser, example: Example, generators: Generators, t: Tensor | None = None
    ) -> LossTerms:
        times = self.time_sampler(denoiser.schedule, generators.at("time")) if t is None else Times(t, None)
        nats, error = masked_nats(denoiser, example, generators, times.t)
        loss = nats / example.x_0[0, 0].numel()
        if times.u is not None:
            self.time_sampler.observe(times, loss.detach())
        factor = example.factor(times.importance)
        loss = loss if factor is None else factor.to(loss) * loss
        return LossTerms(loss, times.t, {"error": error, "nats": nats.detach()}, factor)


def masked_nats(denoiser: MaskedDenoiser, example: Example, generators: Generators, t: Tensor) -> tuple[Tensor, Tensor]:
    """Returns an unbiased estimate of the bound on -log p(x_0) from one time (B) of each sample, in nats (B).

    The second value is the mean of -log p(x_0 | x_t) over masked places, without the weight of the time.
    """
    x_0, now = example.x_0, denoiser.schedule.point(t)
    x_t, _ = denoiser.noise.within(example.batch).corrupt(x_0, now, generators.at("noise"))
    F, _ = denoiser.output(x_t, now, denoiser.prepare(x_t, now, example.cond, generators.at("prepare")))
    each = nn.functional.cross_entropy(F[:, :-1], x_0.argmax(1), reduction="none")
    masked = x_t[:, -1] if example.element_weight is None else x_t[:, -1] * example.element_weight[:, 0]
    total = (masked * each).flatten(1).sum(1)
    weight = _weight(denoiser.schedule, t).to(total.device, total.dtype)
    return weight * total, total.detach() / masked.flatten(1).sum(1).clamp(min=1)


def _weight(schedule: Schedule, t: Tensor) -> Tensor:
    """The weight `-alpha' / sigma = -alpha rate / 2` (B) of times, where alpha + sigma = 1."""
    t = t.double().clamp(max=_LAST)
    return -torch.as_tensor(over(schedule.alpha(t), t)) * schedule.log_snr_rate(t) / 2
