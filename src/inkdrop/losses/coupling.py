"""The coupling of noise and data within a batch: which eps is paired with which x_0."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from inkdrop.losses.assignment import assigned

Coupling: TypeAlias = Callable[[Tensor, Tensor], Tensor]  # x_0 (B, *), eps (B, *) -> eps in another order


def independent(x_0: Tensor, eps: Tensor) -> Tensor:
    """Returns the noise in the order in which it was drawn, independent of the data."""
    return eps


def minibatch_ot(x_0: Tensor, eps: Tensor) -> Tensor:
    """Returns the noise in the order with the least sum of `|x_0 - eps|^2` over the batch, which straightens the paths.

    The loss of a sample then depends on its batch, and with several devices on the batch of its rank. x_t no longer has
    the law that stochastic samplers assume: sample with the probability flow, such as DDIM or Heun. Sources: Tong et
    al. 2024, arXiv 2302.00482; Pooladian et al. 2023, arXiv 2304.14772.
    """
    cost = torch.cdist(x_0.flatten(1).cpu().double(), eps.flatten(1).cpu().double()).square()
    return eps[assigned(cost).to(eps.device)]
