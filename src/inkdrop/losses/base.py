"""What every loss promises, the example that it receives, and the terms that it returns."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from inkdrop.codecs import Codec
from inkdrop.denoiser import Condition
from inkdrop.randomness import Generators, sent

_NOTHING: Mapping[str, Tensor] = MappingProxyType({})


class Example(NamedTuple):
    """A batch of training data as a loss receives it.

    - `x_0` (B, *): the encoded data.
    - `cond`: the condition that the network receives.
    - `batch`: all fields of the raw data by name.
    - `codec`: the codec that encoded the data.
    - `weight`: which samples (B) or which elements (B, *) count, and how much; the loss is the mean over these.
    - `progress` (B): the share of the training run, from 0 to 1, that lies before each sample; on the host.
    """

    x_0: Tensor
    cond: Condition = _NOTHING
    batch: Mapping[str, Tensor] = _NOTHING
    codec: Codec | None = None
    weight: Tensor | None = None
    progress: Tensor | None = None

    @property
    def element_weight(self) -> Tensor | None:
        """Weights that broadcast to x_0 (B, *), if there are any for elements."""
        return None if self.weight is None or self.weight.numel() == len(self.x_0) else self.weight.to(self.x_0)

    @property
    def sample_weight(self) -> Tensor | None:
        """Weights (B) of samples with a mean of 1 over the batch, if there are any; all 0 stay 0."""
        if self.weight is None or self.weight.numel() != len(self.x_0):
            return None
        weight = self.weight.reshape(-1).to(self.x_0)
        return weight / weight.mean().clamp(min=torch.finfo(weight.dtype).tiny)

    def factor(self, importance: Tensor | None) -> Tensor | None:
        """The factor (B) of each sample's loss: the importance of its time multiplied by its weight; None is 1."""
        weight = self.sample_weight
        if weight is None or importance is None:
            return importance if weight is None else weight
        return sent(importance, weight.device, weight.dtype) * weight

    def weighed(self, loss: Tensor) -> Tensor:
        """The loss (B) of samples multiplied by their weights.

        Raises `ValueError` for weights of elements, which have no part in a loss of whole samples.
        """
        if self.element_weight is not None:
            raise ValueError(
                "task.weight names weights of elements (B, *), but this loss is one of samples: make it (B)"
            )
        weight = self.sample_weight
        return loss if weight is None else weight * loss

    def mean(self, values: Tensor) -> Tensor:
        """The mean (B) of values (B, *) over the elements of each sample that count; 0 where none does."""
        weight = self.element_weight
        return values.flatten(1).mean(1) if weight is None else (weight * values).flatten(1).sum(1) / self.num_elements

    @property
    def num_elements(self) -> Tensor | int:
        """The number of elements of a sample that count: one number for all samples, or (B)."""
        if self.element_weight is None:
            return self.x_0[0].numel()
        total = self.element_weight.expand_as(self.x_0).flatten(1).sum(1)
        return total.clamp(min=torch.finfo(total.dtype).tiny)


class LossTerms(NamedTuple):
    """The loss of each sample in a batch, with what is logged and plotted about it.

    - `loss`: (B), minimised by its mean over the batch.
    - `t`: (B), the times at which the loss was evaluated.
    - `parts`: named terms (B) for the log.
    - `importance`: (B), a factor that `loss` already contains. It is the weight of the sample, and makes the mean
      independent of the law of the times.
    """

    loss: Tensor
    t: Tensor | None
    parts: Mapping[str, Tensor]
    importance: Tensor | None = None


class Loss(nn.Module):
    """A training objective; its own trainable parameters are trained and saved together with the model."""

    higher: tuple[str, ...] = ()  # names in `logged` whose higher values are better

    @property
    def logged(self) -> tuple[str, ...]:
        """Names of the parts whose means are logged next to the loss."""
        return ()

    @property
    def players(self) -> Mapping[str, nn.Module]:
        """Modules of this loss by name, such as a discriminator, whose gradients have a norm apart from the model's."""
        return {}

    def check(self, model: Any) -> None:
        """Raises `ValueError`, before anything is trained, if this loss cannot train the model."""

    @abstractmethod
    def forward(self, model: Any, example: Example, generators: Generators, t: Tensor | None = None) -> LossTerms:
        """Returns the loss of each sample at times that are drawn for it, or at given times t (B).

        The model is what the task trains: a denoiser, or a classifier.
        """
