"""Class labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from inkdrop.conditioners.base import Conditioner
from inkdrop.denoiser import Condition


class Label(Conditioner):
    """A learned vector (B, dim) per class, and one more for "no class", taken with probability `dropout` in training.

    `name` is where a batch has the classes (B). Source: Ho and Salimans 2022, arXiv 2207.12598, section 3.2 (dropout of
    the condition).
    """

    def __init__(
        self,
        num_classes: Annotated[int, Ge(1)],
        dim: Annotated[int, Ge(1)],
        dropout: Annotated[float, Ge(0), Le(1)] = 0.1,
        name: str = "label",
    ):
        super().__init__()
        self.num_classes, self.dim, self.dropout, self.names = num_classes, dim, dropout, (name,)
        self.embedding = nn.Embedding(num_classes + 1, dim)

    @property
    def dropouts(self) -> Mapping[str, float]:
        return {self.names[0]: self.dropout}

    def condition(self, batch: Mapping[str, Tensor], dropped: Mapping[str, Tensor]) -> Condition:
        (name,) = self.names
        label = batch[name]
        if name in dropped:
            label = torch.where(dropped[name].to(label.device), self.num_classes, label)
        return {"vector": self.embedding(label)}

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """The condition is a class or a list of classes, taken in turn; without it the classes follow the seeds."""
        (name,) = self.names
        self.require_known(condition)
        return {name: labels(seeds, self.num_classes, condition.get(name), name)}


def labels(seeds: Sequence[int], num_classes: int, wanted: Any, name: str = "label") -> Tensor:
    """Classes (B) for samples with these seeds: one, or of a list in turn, or all in turn; `ValueError` for others."""
    classes = list(range(num_classes)) if wanted is None else wanted if isinstance(wanted, list) else [wanted]
    if not classes or any(type(each) is not int or not 0 <= each < num_classes for each in classes):
        raise ValueError(f"condition.{name}={wanted} must be one or more classes of 0 to {num_classes - 1}")
    return torch.tensor([classes[seed % len(classes)] for seed in seeds])
