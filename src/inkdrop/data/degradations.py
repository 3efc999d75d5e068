"""Fields that are derived from the data: what a model is conditioned on, or what a constraint knows."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from inkdrop.data.loaders import Batch, Derive
from inkdrop.randomness import Generators


class Copy(Derive):
    """A copy of another field, such as of the data as those that a constraint knows.

    - `field`: the name of the field.
    """

    def __init__(self, field: str = "x"):
        self.field = field

    def __call__(self, fields: Batch, generators: Generators) -> Tensor:
        return fields[self.field]


class Downscale(Derive):
    """An image of lower resolution: the means of squares of `factor` pixels, (B, C, H, W) to (B, C, H/f, W/f).

    - `factor`: how many pixels of a row and of a column become one.

    Raises `ValueError` if the sides of the images are not divisible by the factor.
    """

    def __init__(self, factor: Annotated[int, Ge(2)]):
        self.factor = factor

    def __call__(self, fields: Batch, generators: Generators) -> Tensor:
        x = fields["x"]
        if x.dim() != 4 or any(side % self.factor for side in x.shape[2:]):
            raise ValueError(
                f"Downscale of factor {self.factor} needs images whose sides it divides, not {list(x.shape[1:])}: "
                "choose another factor"
            )
        means = torch.nn.functional.avg_pool2d(x.float(), self.factor)
        return means.round().to(x.dtype) if x.dtype == torch.uint8 else means.to(x.dtype)


class BoxMask(Derive):
    """A mask (B, 1, H, W) of uint8 that is 0 within a random rectangle and 1 elsewhere, where the image is known.

    - `low`, `high`: the smallest and the largest share of each side that the rectangle covers.
    """

    def __init__(self, low: Annotated[float, Gt(0), Le(1)] = 0.25, high: Annotated[float, Gt(0), Le(1)] = 0.5):
        if low > high:
            raise ValueError(f"low={low} is above high={high}: swap the two values")
        self.low, self.high = low, high

    def __call__(self, fields: Batch, generators: Generators) -> Tensor:
        sides = torch.tensor(fields["x"].shape[2:]).double()
        u = generators.at("box").uniform((4,))
        lengths = ((self.low + (self.high - self.low) * u[:, :2]) * sides).round().clamp(min=1)
        starts = (u[:, 2:] * (sides - lengths + 1)).floor()
        within = [
            (torch.arange(int(side)) >= start[:, None]) & (torch.arange(int(side)) < (start + length)[:, None])
            for side, start, length in zip(sides, starts.unbind(1), lengths.unbind(1), strict=True)
        ]
        return (~(within[0][:, None, :, None] & within[1][:, None, None, :])).to(torch.uint8)
