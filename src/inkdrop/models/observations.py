"""Observations: the law p(x | z) of data given the output of a decoder, which an autoencoder assumes."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn


class Observation(nn.Module):
    """The law of x given the output of a decoder of the same shape (B, *)."""

    @abstractmethod
    def nats(self, x: Tensor, output: Tensor) -> Tensor:
        """Returns `-log p(x | z)` of each sample (B), in nats."""

    def mean(self, output: Tensor) -> Tensor:
        """Returns the mean of x."""
        return output


class _Scaled(Observation):
    """A law around the output with one scale for all elements, which is learned unless it is given."""

    def __init__(self, scale: Annotated[float, Gt(0)] | None = None):
        super().__init__()
        log_scale = torch.tensor(0.0 if scale is None else math.log(scale))
        self.log_scale = nn.Parameter(log_scale, requires_grad=scale is None)


class Gaussian(_Scaled):
    """`x ~ N(output, scale^2)`, whose error is the squared one; with `scale: null` the scale is learned.

    Source: Rybkin et al. 2021, arXiv 2006.13202, section 3.
    """

    def nats(self, x: Tensor, output: Tensor) -> Tensor:
        deviation = (x - output) / self.log_scale.exp()
        return (0.5 * deviation.square() + self.log_scale + 0.5 * math.log(2 * math.pi)).flatten(1).sum(1)


class Laplace(_Scaled):
    """`p(x) = exp(-|x - output| / scale) / (2 scale)`, whose error is the absolute one; `scale: null` learns it."""

    def nats(self, x: Tensor, output: Tensor) -> Tensor:
        distance = (x - output).abs() / self.log_scale.exp()
        return (distance + self.log_scale + math.log(2)).flatten(1).sum(1)


class Bernoulli(Observation):
    """Elements of -1 or 1, and 1 with the probability `1 / (1 + exp(-output))`; for binary images.

    Source: Kingma and Welling 2014, arXiv 1312.6114, appendix C.1.
    """

    def nats(self, x: Tensor, output: Tensor) -> Tensor:
        return nn.functional.softplus(-x * output).flatten(1).sum(1)

    def mean(self, output: Tensor) -> Tensor:
        return (0.5 * output).tanh()
