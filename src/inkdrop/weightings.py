"""How much each noise level counts in the loss: a factor on `|F - F*|^2`."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor


class Weighting(ABC):
    """A factor per sample on the squared error of the network's own output."""

    @abstractmethod
    def __call__(self, log_snr: Tensor, log_snr_rate: Tensor, c_out: Tensor) -> Tensor:
        """Weights (B) from the log-SNR, its derivative with respect to t, and c_out, each (B)."""


class Unit(Weighting):
    """1 at every level: for noise prediction the published L_simple. Source: Ho et al. 2020, equation 14."""

    def __call__(self, log_snr: Tensor, log_snr_rate: Tensor, c_out: Tensor) -> Tensor:
        return torch.ones_like(log_snr)
