"""Denoisers whose network is given one number more: the time at which a move ends, or the scale of guidance."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from inkdrop.denoiser.base import Condition, Denoiser, Estimate, Wrapper
from inkdrop.denoiser.network import NetworkDenoiser
from inkdrop.noises import Noise
from inkdrop.predictions import Prediction
from inkdrop.randomness import sent
from inkdrop.schedules import Point, Scalar, Schedule


class FlowMap(NetworkDenoiser):
    """A denoiser that also knows the time s at which a move from x_t ends, and so maps x_t to x_s.

    Its estimate is the x_0 for which the step of DDIM from x_t to s ends on the trajectory of the probability flow.
    With s = t it is the ordinary estimate, which is also that of a caller that names no s. `sampler=ddim` with eta = 0
    names it, so that its steps may be long; other samplers solve the ordinary equation.

    - `network`, `schedule`, `prediction`, `noise`: as in `NetworkDenoiser`.
    - `embedding`: maps the c_noise of s (B) to what is added to the network's vector (B, D).

    Source: Geng et al. 2025, arXiv 2505.13447, for the average velocity; Boffi et al. 2024, arXiv 2406.07507.
    """

    added = ("embedding",)

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        prediction: Prediction,
        embedding: nn.Module,
        noise: Noise | None = None,
    ):
        super().__init__(network, schedule, prediction, noise)
        self.embedding = embedding

    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        return self.toward(x_t, now, now, cond)

    def toward(self, x_t: Tensor, now: Point, next: Point, cond: Condition) -> Estimate:
        """Returns the estimate for a move to `next`."""
        return super().forward(x_t, now, self.aimed(x_t, next.c_noise, cond))

    def aimed(self, x_t: Tensor, until: Scalar, cond: Condition) -> Condition:
        """Returns the condition of the network for moves that end at a c_noise, a number or (B)."""
        return _beside(cond, self.embedding(_column(until, x_t)))

    def begin(self) -> Denoiser:
        return _Aimed(self)


class _Aimed(Wrapper):
    """One sampling run of a map between two times."""

    def __init__(self, denoiser: FlowMap):
        super().__init__(denoiser)
        self.toward = denoiser.toward
        self.next: Point | None = None

    def aim(self, next: Point) -> None:
        self.next = next

    def forward(self, x_t: Tensor, now: Point, cond: Condition) -> Estimate:
        return self.toward(x_t, now, self.next or now, cond)


class ScaleConditioned(NetworkDenoiser):
    """A denoiser that is given the scale of guidance, and needs no second evaluation for it.

    Without a scale it is an ordinary denoiser; `guidance=distilled` names one.

    - `network`, `schedule`, `prediction`, `noise`: as in `NetworkDenoiser`.
    - `embedding`: maps a hundred times the scale (B) to what is added to the network's vector (B, D).

    Source: Meng et al. 2023, arXiv 2210.03142, section 3.1.
    """

    added = ("embedding",)

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        prediction: Prediction,
        embedding: nn.Module,
        noise: Noise | None = None,
    ):
        super().__init__(network, schedule, prediction, noise)
        self.embedding = embedding

    def scaled(self, x_t: Tensor, scale: Scalar, cond: Condition) -> Condition:
        """Returns the condition of the network with a scale of guidance, a number or (B)."""
        return _beside(cond, self.embedding(100 * _column(scale, x_t)))


def _column(values: Scalar, x: Tensor) -> Tensor:
    dtype = torch.promote_types(x.dtype, torch.float32)
    return sent(torch.as_tensor(values, dtype=dtype), x.device).expand(len(x))


def _beside(cond: Condition, embedded: Tensor) -> Condition:
    return {**cond, "vector": cond["vector"] + embedded if "vector" in cond else embedded}
