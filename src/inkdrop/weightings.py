"""Weightings: the factor of each noise level on the squared error `|F - F*|^2`.

A published weight is stated for one prediction. Because `|F - F*|^2 = |x_0 - x_0*|^2 / c_out^2`, a weight w on the
error of x_0 is the factor `w c_out^2` for every prediction, and one on the error of eps is `w SNR c_out^2`.
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
    """A factor per sample on the squared error of the output F of the network."""

    @abstractmethod
    def __call__(self, log_snr: Tensor, log_snr_rate: Tensor, c_out: Tensor) -> Tensor:
        """Returns weights (B) from the log-SNR, its derivative with respect to t, and c_out, each (B)."""


class Unit(Weighting):
    """The weight 1 on the error of F: L_simple for noise prediction, and the published loss for flow matching."""

    def __call__(self, log_snr: Tensor, log_snr_rate: Tensor, c_out: Tensor) -> Tensor:
        return torch.ones_like(log_snr)


class Simple(Weighting):
    """The weight 1 on the error of eps for any prediction, which is L_simple.

    Source: Ho et al. 2020, arXiv 2006.11239, equation 14.
    """

    def __call__(self, log_snr: Tensor, log_snr_rate: Tensor, c_out: Tensor) -> Tensor:
        return log_snr.exp() * c_out.square()


class MinSNR(Weighting):
    """The weight min(SNR, gamma) on the error of x_0.

    Source: Hang et al. 2023, arXiv 2303.09556, equation 9 (gamma = 5).
    """

    def __init__(self, gamma: Annotated[float, Gt(0)] = 5.0):
        self.gamma = gamma

    def __call__(self, log_snr: Tensor, log_snr_rate: Tensor, c_out: Tensor) -> Tensor:
        return log_snr.exp().clamp(max=self.gamma) * c_out.square()


class SoftMinSNR(Weighting):
    """The weight 1 / (1 / SNR + 1 / gamma) on the error of x_0, a smooth form of min(SNR, gamma).

    Source: Crowson et al. 2024, arXiv 2401.11605 (gamma = 4).
    """

    def __init__(self, gamma: Annotated[float, Gt(0)] = 4.0):
        self.gamma = gamma

    def __call__(self, log_snr: Tensor, log_snr_rate: Tensor, c_out: Tensor) -> Tensor:
        return c_out.square() / ((-log_snr).exp() + 1 / self.gamma)


class P2(Weighting):
    """The weight 1 / (k + SNR)^gamma on the error of eps.

    Source: Choi et al. 2022, arXiv 2204.00227, equation 8 (1, 1).
    """

    def __init__(self, k: Annotated[float, Gt(0)] = 1.0, gamma: Annotated[float, Ge(0)] = 1.0):
        self.k, self.gamma = k, gamma

    def __call__(self, log_snr: Tensor, log_snr_rate: Tensor, c_out: Tensor) -> Tensor:
        snr = log_snr.exp()
        return snr * c_out.square() / (self.k + snr) ** self.gamma


class EDM(Weighting):
    """The weight of EDM, (s^2 + v^2) / (s v)^2 on the error of x_0, with s = sigma / alpha and v = sigma_data.

    It is 1 on the error of F for Karras prediction.

    Source: Karras et al. 2022, arXiv 2206.00364, table 1.
    """

    def __init__(self, sigma_data: Annotated[float, Gt(0)] = 0.5):
        self.sigma_data = sigma_data

    def __call__(self, log_snr: Tensor, log_snr_rate: Tensor, c_out: Tensor) -> Tensor:
        return (log_snr.exp() + self.sigma_data**-2) * c_out.square()


class Likelihood(Weighting):
    """The weight -(d log SNR / dt) / 2 on the error of eps, which makes the loss the variational bound, in nats.

    With uniform t the loss, a mean over elements, is the bound in continuous time per element, but for prior and
    decoder. Sources: Song et al. 2021, arXiv 2101.09258, theorem 1; Kingma et al. 2021, arXiv 2107.00630, equation 17.
    """

    def __call__(self, log_snr: Tensor, log_snr_rate: Tensor, c_out: Tensor) -> Tensor:
        snr = log_snr.exp()
        falling = torch.where(snr > 0, -log_snr_rate * snr, 0.0)  # -d SNR / dt, which is 0 where alpha is 0
        return falling / 2 * c_out.square()


def weights_at(weighting: Weighting, schedule: Schedule, prediction: Prediction, t: Tensor) -> Tensor:
    """Returns the weights (B) at times t (B) for a prediction on a schedule."""
    c_out = torch.as_tensor(prediction.coefficients(schedule.point(t)).c_out, dtype=t.dtype).expand(len(t))
    return weighting(schedule.log_snr(t), schedule.log_snr_rate(t), c_out)
