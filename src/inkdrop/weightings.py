"""How much each noise level counts in the loss: a factor on `|F - F*|^2`.

A published weight is stated for one prediction. As `|F - F*|^2 = |x_0 - x_0*|^2 / c_out^2`, a weight w on the error of
x_0 is the factor `w c_out^2` for every prediction, and one on the error of eps is `w SNR c_out^2`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from inkdrop.predictions import Prediction
from inkdrop.schedules import Schedule


class Weighting(ABC):
    """A factor per sample on the squared error of the network's own output."""

    @abstractmethod
    def __call__(self, log_snr: Tensor, log_snr_rate: Tensor, c_out: Tensor) -> Tensor:
        """Weights (B) from the log-SNR, its derivative with respect to t, and c_out, each (B)."""


class Unit(Weighting):
    """1 on the error of the network's own output: L_simple for noise prediction, the published loss for flow."""

    def __call__(self, log_snr: Tensor, log_snr_rate: Tensor, c_out: Tensor) -> Tensor:
        return torch.ones_like(log_snr)


class Simple(Weighting):
    """1 on the error of eps, whatever the network predicts: L_simple. Source: Ho et al. 2020, equation 14."""

    def __call__(self, log_snr: Tensor, log_snr_rate: Tensor, c_out: Tensor) -> Tensor:
        return log_snr.exp() * c_out.square()


class MinSNR(Weighting):
    """min(SNR, gamma) on the error of x_0. Source: Hang et al. 2023, arXiv 2303.09556, equation 9 (gamma = 5)."""

    def __init__(self, gamma: Annotated[float, Gt(0)] = 5.0):
        self.gamma = gamma

    def __call__(self, log_snr: Tensor, log_snr_rate: Tensor, c_out: Tensor) -> Tensor:
        return log_snr.exp().clamp(max=self.gamma) * c_out.square()


class SoftMinSNR(Weighting):
    """1 / (1 / SNR + 1 / gamma) on the error of x_0. Source: Crowson et al. 2024, arXiv 2401.11605 (gamma = 4)."""

    def __init__(self, gamma: Annotated[float, Gt(0)] = 4.0):
        self.gamma = gamma

    def __call__(self, log_snr: Tensor, log_snr_rate: Tensor, c_out: Tensor) -> Tensor:
        return c_out.square() / ((-log_snr).exp() + 1 / self.gamma)


class P2(Weighting):
    """1 / (k + SNR)^gamma on the error of eps. Source: Choi et al. 2022, arXiv 2204.00227, equation 8 (1, 1)."""

    def __init__(self, k: Annotated[float, Gt(0)] = 1.0, gamma: Annotated[float, Ge(0)] = 1.0):
        self.k, self.gamma = k, gamma

    def __call__(self, log_snr: Tensor, log_snr_rate: Tensor, c_out: Tensor) -> Tensor:
        snr = log_snr.exp()
        return snr * c_out.square() / (self.k + snr) ** self.gamma


class EDM(Weighting):
    """(s^2 + v^2) / (s v)^2 on the error of x_0, s = sigma / alpha, v = sigma_data: 1 for Karras prediction.

    Source: Karras et al. 2022, arXiv 2206.00364, table 1.
    """

    def __init__(self, sigma_data: Annotated[float, Gt(0)] = 0.5):
        self.sigma_data = sigma_data

    def __call__(self, log_snr: Tensor, log_snr_rate: Tensor, c_out: Tensor) -> Tensor:
        return (log_snr.exp() + self.sigma_data**-2) * c_out.square()


class Likelihood(Weighting):
    """-(d log SNR / dt) / 2 on the error of eps: with uniform t the variational bound in continuous time, in nats.

    The loss, a mean over elements, is then the bound per element without its ends. Sources: Song et al. 2021, arXiv
    2101.09258, theorem 1; Kingma et al. 2021, arXiv 2107.00630, equation 17.
    """

    def __call__(self, log_snr: Tensor, log_snr_rate: Tensor, c_out: Tensor) -> Tensor:
        snr = log_snr.exp()
        falling = torch.where(snr > 0, -log_snr_rate * snr, 0.0)  # -d SNR / dt, which is 0 where alpha is
        return falling / 2 * c_out.square()


def weights_at(weighting: Weighting, schedule: Schedule, prediction: Prediction, t: Tensor) -> Tensor:
    """The weights (B) at times t (B) of a network with this prediction on this schedule."""
    c_out = torch.as_tensor(prediction.coefficients(schedule.point(t)).c_out, dtype=t.dtype).expand(len(t))
    return weighting(schedule.log_snr(t), schedule.log_snr_rate(t), c_out)
