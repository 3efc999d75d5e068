"""Images of lower resolution, and blurred ones."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from inkdrop.data.degradations.images import as_type, image
from inkdrop.data.loaders import Batch, Derive
from inkdrop.randomness import Generators


def _divided(fields: Batch, what: str, factor: int) -> Tensor:
    x = fields["x"]
    if x.dim() != 4 or any(side % factor for side in x.shape[2:]):
        raise ValueError(
            f"{what} of factor {factor} needs images whose sides it divides, not {list(x.shape[1:])}: choose another "
            "factor"
        )
    return x


class Downscale(Derive):
    """An image of lower resolution: the means of squares of `factor` pixels, (B, C, H, W) to (B, C, H/f, W/f).

    - `factor`: how many pixels of a row and of a column become one.

    Raises `ValueError` if the sides of the images are not divisible by the factor.
    """

    def __init__(self, factor: Annotated[int, Ge(2)]):
        self.factor = factor

    def __call__(self, fields: Batch, generators: Generators) -> Tensor:
        x = _divided(fields, "Downscale", self.factor)
        return as_type(nn.functional.avg_pool2d(x.float(), self.factor), x.dtype)


class BicubicDownscale(Derive):
    """An image of lower resolution by bicubic interpolation with antialiasing, as image programs scale images.

    - `factor`: how many pixels of a row and of a column become one.

    Raises `ValueError` if the sides of the images are not divisible by the factor.
    """

    def __init__(self, factor: Annotated[int, Ge(2)]):
        self.factor = factor

    def __call__(self, fields: Batch, generators: Generators) -> Tensor:
        x = _divided(fields, "BicubicDownscale", self.factor)
        size = [side // self.factor for side in x.shape[2:]]
        return as_type(nn.functional.interpolate(x.float(), size, mode="bicubic", antialias=True), x.dtype)


class Blur(Derive):
    """A blurred image (B, C, H, W): a Gaussian, cut at four deviations, with the image mirrored at its edges.

    - `low`, `high`: smallest and largest deviation in pixels, between which it is drawn for each sample.

    Raises `ValueError` for data that are not images, and for images of sides below four times `high`.
    """

    def __init__(self, low: Annotated[float, Gt(0)], high: Annotated[float, Gt(0)]):
        if low > high:
            raise ValueError(f"low={low} is above high={high}: swap the two values")
        self.low, self.high = low, high

    def __call__(self, fields: Batch, generators: Generators) -> Tensor:
        x = image(fields, "Blur")
        radius = math.ceil(4 * self.high)
        if min(x.shape[2:]) <= radius:
            raise ValueError(
                f"Blur of {self.high} pixels needs images of more than {radius} pixels, not {list(x.shape[2:])}: lower "
                "high"
            )
        sigma = self.low + (self.high - self.low) * generators.at("blur").uniform().float()
        offsets = torch.arange(-radius, radius + 1).float()
        kernel = torch.exp(-((offsets / sigma[:, None]) ** 2) / 2)
        kernel = torch.where(offsets.abs() <= (4 * sigma[:, None]).ceil(), kernel, 0.0)
        kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(x.shape[1], 0)[:, None]
        flat = nn.functional.pad(x.float(), [radius] * 4, mode="reflect").flatten(0, 1)[None]
        for shaped in (kernel[:, :, None], kernel[..., None]):
            flat = nn.functional.conv2d(flat, shaped, groups=len(kernel))
        return as_type(flat[0].reshape(x.shape), x.dtype)
