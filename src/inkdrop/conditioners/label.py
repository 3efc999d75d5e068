"""Class labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from inkdrop.conditioners.base import Conditioner
from inkdrop.denoiser import Condition
from inkdrop.randomness import Generators


class Label(Conditioner):
    """A learned vector (B, dim) per class, and one more for "no class", taken with probability `dropout` in training.

    Source: Ho and Salimans 2022, arXiv 2207.12598, section 3.2 (dropout of the condition).
    """

    def __init__(
        self,
        num_classes: Annotated[int, Ge(1)],
        dim: Annotated[int, Ge(1)],
        dropout: Annotated[float, Ge(0), Le(1)] = 0.0,
    ):
        super().__init__()
        self.num_classes, self.dropout = num_classes, dropout
        self.embedding = nn.Embedding(num_classes + 1, dim)

    def forward(self, batch: Mapping[str, Tensor], generators: Generators | None = None) -> Condition:
        label = batch["label"]
        if generators is not None and self.dropout > 0:
            dropped = (generators.uniform() < self.dropout).to(label.device)
            label = torch.where(dropped, self.num_classes, label)
        return {"vector": self.embedding(label)}

    def null(self, cond: Condition) -> Condition:
        return {**cond, "vector": self.embedding.weight[-1].expand_as(cond["vector"])}

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """`label` is a class or a list of classes, taken in turn; without it the classes follow the seeds."""
        if unknown := set(condition) - {"label"}:
            raise ValueError(f"condition.{min(unknown)} is unknown: this model takes condition.label")
        label = condition.get("label")
        labels = list(range(self.num_classes)) if label is None else label if isinstance(label, list) else [label]
        if not labels or any(type(each) is not int or not 0 <= each < self.num_classes for each in labels):
            raise ValueError(f"condition.label={label} must be one or more classes of 0 to {self.num_classes - 1}")
        return {"label": torch.tensor([labels[seed % len(labels)] for seed in seeds])}
