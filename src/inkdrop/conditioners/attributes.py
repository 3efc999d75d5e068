"""The conditioner of real numbers that describe a sample."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor, nn

from inkdrop.codecs import Batches
from inkdrop.conditioners.base import Conditioner
from inkdrop.denoiser import Condition
from inkdrop.randomness import sent

# Statistics before `fit`: they leave numbers unchanged, and no number is out of range.
UNKNOWN = {
    "mean": 0.0,
    "std": 1.0,
    "lowest": -torch.finfo(torch.float32).max,
    "highest": torch.finfo(torch.float32).max,
}


class Attributes(Conditioner):
    """A learned map of K numbers (B, K) in any units to a vector (B, dim), or a learned vector where they are dropped.

    The map receives `(number - mean) / std`, with statistics of each number over the training data. A request outside
    the range of the training data produces a warning. Several labels at once are K zeros and ones.

    - `num_attributes`: K.
    - `dim`: the width of the vector.
    - `dropout`: the probability with which training drops the numbers of a sample.
    - `name`: the key of the numbers in a batch.

    Raises `ValueError` for a batch or a request with another K.
    """

    mean: Tensor
    std: Tensor
    lowest: Tensor
    highest: Tensor

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
        for statistic, value in UNKNOWN.items():
            self.register_buffer(statistic, torch.full((num_attributes,), value))

    def fit(self, batches: Batches) -> None:
        (name,) = self.names
        parts = [self._rows(batch[name]).double() for batch in batches(4096, [name])]
        if not parts:  # the first batch raises the error
            return
        numbers = torch.cat(parts)
        std = numbers.std(0, correction=0)
        self.mean.copy_(numbers.mean(0))
        self.std.copy_(torch.where(std > 0, std, 1.0))
        self.lowest.copy_(numbers.amin(0))
        self.highest.copy_(numbers.amax(0))

    @property
    def dropouts(self) -> Mapping[str, float]:
        return {self.names[0]: self.dropout}

    def condition(self, batch: Mapping[str, Tensor], dropped: Mapping[str, Tensor]) -> Condition:
        (name,) = self.names
        numbers = (self._rows(batch[name]).to(self.absent) - self.mean) / self.std
        # Both branches run in every step, because distributed training needs a gradient of every weight.
        empty = sent(dropped.get(name, torch.zeros(len(numbers), dtype=torch.bool)), numbers.device)
        return {"vector": torch.where(empty[:, None], self.absent, self.map(numbers))}

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """Returns a raw batch from a list of K numbers, or from a list of such lists that samples take in turn."""
        (name,) = self.names
        self.require_known(condition)
        wanted = condition.get(name)
        rows = wanted if isinstance(wanted, list) and wanted and isinstance(wanted[0], list) else [wanted]
        if not all(self._fits(row) for row in rows):
            raise ValueError(
                f"condition.{name}={wanted} must be {self.num_attributes} numbers, as a list, or a list of such lists"
            )
        self._warn_outside(rows)
        return {name: torch.tensor([rows[seed % len(rows)] for seed in seeds], dtype=torch.float32)}

    def example(self, count: int) -> dict[str, Tensor]:
        return {self.names[0]: self.mean.expand(count, -1)}

    def _rows(self, numbers: Tensor) -> Tensor:
        """Returns numbers as (B, K); (B) is accepted if K is 1."""
        rows = numbers.reshape(len(numbers), -1)
        if rows.shape[1] != self.num_attributes:
            raise ValueError(
                f"num_attributes={self.num_attributes}, but {self.names[0]} has {rows.shape[1]} numbers per sample: "
                f"set num_attributes={rows.shape[1]}"
            )
        return rows

    def _warn_outside(self, rows: Sequence[Any]) -> None:
        wanted, lowest, highest = torch.tensor(rows), self.lowest.cpu(), self.highest.cpu()
        outside = (wanted < lowest) | (wanted > highest)
        if (count := int(outside.sum())) == 0:
            return
        row, place = outside.nonzero()[0].tolist()
        which = f"number {place + 1} of " if self.num_attributes > 1 else ""
        more = f", and {count - 1} more numbers are outside their ranges" if count > 1 else ""
        warnings.warn(
            f"{which}condition.{self.names[0]}={rows[row]} is outside the range of the training data, "
            f"{lowest[place]:g} to {highest[place]:g}: the model has to extrapolate{more}",
            stacklevel=4,
        )

    def _fits(self, row: Any) -> bool:
        return (
            isinstance(row, list)
            and len(row) == self.num_attributes
            and all(type(each) in (int, float) and math.isfinite(each) for each in row)
        )
