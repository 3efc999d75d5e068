"""The discriminator of a GAN, and the losses of both players."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.func import functional_call


class Adversary(nn.Module):
    """A discriminator D, and what it and the generator minimise; each player's loss moves that player alone.

    - `network`: D, from x (B, *) to logits (B, *) that are large for real data; the loss is the mean over logits.
    - `penalty`: the factor of `|grad D(x)|^2 / 2` on real data, R1 of Mescheder et al. 2018, arXiv 1801.04406.
    """

    def __init__(self, network: nn.Module, penalty: Annotated[float, Ge(0)] = 0.0):
        super().__init__()
        self.network, self.penalty = network, penalty

    @abstractmethod
    def real(self, logits: Tensor) -> Tensor:
        """Returns the discriminator's loss of logits of real data."""

    @abstractmethod
    def false(self, logits: Tensor) -> Tensor:
        """Returns the discriminator's loss of logits of samples."""

    @abstractmethod
    def fooled(self, logits: Tensor) -> Tensor:
        """Returns the generator's loss of logits of its samples."""

    def generator(self, made: Tensor) -> Tensor:
        """Returns the generator's loss (B) of samples x (B, *)."""
        fixed = {name: value.detach() for name, value in self.network.named_parameters()}
        return self.fooled(functional_call(self.network, fixed, made)).flatten(1).mean(1)

    def discriminator(self, x: Tensor, made: Tensor) -> Tensor:
        """Returns the discriminator's loss (B) of as many real data and samples; validation has no penalty."""
        false = self.false(self.network(made.detach())).flatten(1).mean(1)
        if not self.penalty or not torch.is_grad_enabled():
            return self.real(self.network(x)).flatten(1).mean(1) + false
        x = x.detach().requires_grad_()
        logits = self.network(x)
        (slope,) = torch.autograd.grad(logits.flatten(1).mean(1).sum(), x, create_graph=True)
        return self.real(logits).flatten(1).mean(1) + false + self.penalty / 2 * slope.square().flatten(1).sum(1)


class Hinge(Adversary):
    """D minimises `max(0, 1 - D(x)) + max(0, 1 + D(x'))`, and the generator `-D(x')`.

    Source: Lim and Ye 2017, arXiv 1705.02894, section 3.
    """

    def real(self, logits: Tensor) -> Tensor:
        return nn.functional.relu(1 - logits)

    def false(self, logits: Tensor) -> Tensor:
        return nn.functional.relu(1 + logits)

    def fooled(self, logits: Tensor) -> Tensor:
        return -logits


class NonSaturating(Adversary):
    """D minimises the cross-entropy of real and made, and the generator `-log D(x')` with D as a probability.

    Source: Goodfellow et al. 2014, arXiv 1406.2661, section 3.
    """

    def real(self, logits: Tensor) -> Tensor:
        return nn.functional.softplus(-logits)

    def false(self, logits: Tensor) -> Tensor:
        return nn.functional.softplus(logits)

    def fooled(self, logits: Tensor) -> Tensor:
        return nn.functional.softplus(-logits)
