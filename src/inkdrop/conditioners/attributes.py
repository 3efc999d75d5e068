"""Numbers that describe a sample."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from inkdrop.conditioners.base import Conditioner
from inkdrop.denoiser import Condition


class Attributes(Conditioner):
    """A learned map of K numbers (B, K) to a vector (B, dim), or a learned vector where they are dropped.

    The numbers should be of order 1. Several labels at once are K zeros and ones. `name` is where a batch has them;
    `ValueError` for another K.
    """

    def __init__(
        self,
        num_attributes: Annotated[int, Ge(1)],
        dim: Annotated[int, Ge(1)],
        dropout: Annotated[float, Ge(0), Le(1)] = 0.1,
        name: str = "attributes",
    ):
        super().__init__()
        self.num_attributes, self.dim, self.dropout, self.names = num_attributes, dim, dropout, (name,)
        self.map = nn.Sequential(nn.Linear(num_attributes, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.absent = nn.Parameter(torch.randn(dim))

    @property
    def dropouts(self) -> Mapping[str, float]:
        return {self.names[0]: self.dropout}

    def condition(self, batch: Mapping[str, Tensor], dropped: Mapping[str, Tensor]) -> Condition:
        (name,) = self.names
        numbers = batch[name].to(self.absent).reshape(len(batch[name]), -1)
        if numbers.shape[1] != self.num_attributes:
            raise ValueError(
                f"{name} has {numbers.shape[1]} numbers for each sample, but num_attributes={self.num_attributes}"
            )
        # Also where none is dropped: distributed training wants every weight in every step.
        empty = dropped.get(name, torch.zeros(len(numbers), dtype=torch.bool)).to(numbers.device)
        return {"vector": torch.where(empty[:, None], self.absent, self.map(numbers))}

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """The condition is a list of K numbers, or a list of such lists, taken in turn."""
        (name,) = self.names
        self.require_known(condition)
        wanted = condition.get(name)
        rows = wanted if isinstance(wanted, list) and wanted and isinstance(wanted[0], list) else [wanted]
        if not all(self._fits(row) for row in rows):
            raise ValueError(
                f"condition.{name}={wanted} must be {self.num_attributes} numbers, [...], or a list of such lists"
            )
        return {name: torch.tensor([rows[seed % len(rows)] for seed in seeds], dtype=torch.float32)}

    def _fits(self, row: Any) -> bool:
        return (
            isinstance(row, list)
            and len(row) == self.num_attributes
            and all(type(each) in (int, float) and math.isfinite(each) for each in row)
        )
