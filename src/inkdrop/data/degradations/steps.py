"""Masks (B, 1, T) of uint8 of series, which are 1 at steps that are known and 0 at those that are hidden."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from inkdrop.data.loaders import Batch, Derive
from inkdrop.randomness import Generators


class FutureMask(Derive):
    """A mask (B, 1, T) of uint8 that is 0 at the last `horizon` steps of x, which are forecast, and 1 before them.

    Raises `ValueError` for data that are no series, or that are not longer than the horizon.
    """

    def __init__(self, horizon: Annotated[int, Ge(1)]):
        self.horizon = horizon

    def __call__(self, fields: Batch, generators: Generators) -> Tensor:
        count, steps = _sizes(fields, "FutureMask")
        if self.horizon >= steps:
            raise ValueError(f"horizon={self.horizon} of FutureMask hides all {steps} steps: lower it")
        return (torch.arange(steps) < steps - self.horizon).to(torch.uint8).expand(count, 1, steps).clone()


class GapMask(Derive):
    """A mask (B, 1, T) of uint8 that is 0 at a run of steps at a random place, with known steps at both ends.

    - `low`, `high`: smallest and largest share of the steps in the gap, between which it is drawn for each sample.

    Raises `ValueError` for data that are no series of at least three steps.
    """

    def __init__(self, low: Annotated[float, Gt(0), Le(1)] = 0.25, high: Annotated[float, Gt(0), Le(1)] = 0.5):
        if low > high:
            raise ValueError(f"low={low} is above high={high}: swap the two values")
        self.low, self.high = low, high

    def __call__(self, fields: Batch, generators: Generators) -> Tensor:
        _, steps = _sizes(fields, "GapMask")
        if steps < 3:
            raise ValueError(f"GapMask needs series of at least three steps, not of {steps}: change data.shape")
        u = generators.at("gap").uniform((2, 1))
        length = ((self.low + (self.high - self.low) * u[:, 0]) * steps).round().clamp(1, steps - 2)
        start = 1 + (u[:, 1] * (steps - 1 - length)).floor()
        step = torch.arange(steps)
        return ((step < start) | (step >= start + length)).to(torch.uint8)[:, None]


def _sizes(fields: Batch, what: str) -> tuple[int, int]:
    """The numbers of samples and steps of x (B, C, T)."""
    if fields["x"].dim() != 3:
        raise ValueError(f"{what} hides steps of series [C,T], not of data of shape {list(fields['x'].shape[1:])}")
    return len(fields["x"]), fields["x"].shape[2]
