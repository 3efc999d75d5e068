"""The conditioner of known elements, for a model that is trained to fill in the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le, Len
from torch import Tensor

from inkdrop.conditioners.base import Conditioner
from inkdrop.constraints.observed import NAMES, requested
from inkdrop.denoiser import Condition
from inkdrop.randomness import sent


class Masked(Conditioner):
    """Passes the known part of data (B, C, *) and a mask (B, 1, *) as concat (B, C + 1, *): `[m y, m]`.

    m is 1 where y is known. uint8 is mapped to [-1, 1], other numbers are unchanged. Without the condition nothing is
    known, and all channels are 0. The conditions are those of constraints on known data, `known` and `mask`.

    - `shape`: the shape of x without the batch.
    - `concat_channels`: C + 1.
    - `dropout`: the probability with which training hides everything.

    Raises `ValueError` for data or masks of another shape. Source: Saharia et al. 2022, arXiv 2111.05826, section 3.
    """

    names = NAMES

    def __init__(
        self,
        shape: Annotated[list[Annotated[int, Ge(1)]], Len(2, 4)],
        concat_channels: Annotated[int, Ge(2)],
        dropout: Annotated[float, Ge(0), Le(1)] = 0.1,
    ):
        super().__init__()
        if concat_channels != shape[0] + 1:
            raise ValueError(f"conditioner.concat_channels={concat_channels} must be {shape[0] + 1}, those of x plus 1")
        self.shape, self.concat_channels, self.dropout = list(shape), concat_channels, dropout

    @property
    def dropouts(self) -> Mapping[str, float]:
        return dict.fromkeys(self.names, self.dropout)

    def condition(self, batch: Mapping[str, Tensor], dropped: Mapping[str, Tensor]) -> Condition:
        known, mask = batch["known"], (batch["mask"] > 0).float()
        for name, values, shape in (("known", known, self.shape), ("mask", mask, [1, *self.shape[1:]])):
            if list(values.shape[1:]) != shape:
                raise ValueError(f"{name} has the shape {list(values.shape[1:])}, and this model needs {shape}")
        known = known.float() / 127.5 - 1 if known.dtype == torch.uint8 else known.float()
        for empty in dropped.values():
            mask = mask * ~sent(empty, mask.device).reshape(-1, *[1] * (mask.dim() - 1))
        return {"concat": torch.cat([known * mask, mask], dim=1)}

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """Returns the known data and the masks of these seeds from files, or from lists of files in turn."""
        self.require_known(condition)
        return requested(seeds, **condition)

    def example(self, count: int) -> dict[str, Tensor]:
        return {"known": torch.zeros(count, *self.shape), "mask": torch.ones(count, 1, *self.shape[1:])}
