"""A loss weighted by a learned uncertainty at each noise level."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from inkdrop.denoiser import NetworkDenoiser
from inkdrop.losses.base import Example, Loss, LossTerms
from inkdrop.randomness import Generators, sent

_RANGE = 30.0  # log-SNRs are clamped to plus and minus this


class LearnedUncertainty(Loss):
    """The loss `L exp(-u) + u` with a learned u(log-SNR), so that every noise level counts equally once u = log L.

    u is linear in `num_features` cosines of the log-SNR and starts at 0. It is not used in sampling. Sources: Kendall
    et al. 2018, arXiv 1705.07115; Karras et al. 2024, arXiv 2312.02696, equation 14.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, loss: Loss, num_features: Annotated[int, Ge(1)] = 128):
        super().__init__()
        self.loss = loss
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("frequencies", torch.randn(num_features, generator=generator) / 4)
        self.register_buffer("phases", 2 * math.pi * torch.rand(num_features, generator=generator))
        self.u = nn.Linear(num_features, 1, bias=True)
        nn.init.zeros_(self.u.weight)
        nn.init.zeros_(self.u.bias)

    @property
    def logged(self) -> tuple[str, ...]:
        return self.loss.logged

    def check(self, denoiser: NetworkDenoiser) -> None:
        self.loss.check(denoiser)

    def uncertainty(self, log_snr: Tensor) -> Tensor:
        """Returns u (B) at log-SNRs (B)."""
        clamped = sent(log_snr.clamp(-_RANGE, _RANGE), self.phases.device, self.phases.dtype)
        return self.u(torch.cos(clamped[:, None] * self.frequencies + self.phases)).squeeze(1)

    def forward(
        self, denoiser: NetworkDenoiser, example: Example, generators: Generators, t: Tensor | None = None
    ) -> LossTerms:
        terms = self.loss(denoiser, example, generators, t)
        u = self.uncertainty(denoiser.schedule.log_snr(terms.t))
        penalty = u if terms.importance is None else sent(terms.importance, u.device, u.dtype) * u
        return terms._replace(loss=terms.loss * torch.exp(-u) + penalty, parts={**terms.parts, "uncertainty": u})
