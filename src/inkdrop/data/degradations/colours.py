"""Images without colours, in other colours, and their edges."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor, nn

from inkdrop.data.degradations.images import as_type, image, levels
from inkdrop.data.loaders import Batch, Derive
from inkdrop.randomness import Generators

_LUMA = (19595, 38470, 7471)  # of red, green and blue in units of 2^-16, that is 0.299, 0.587 and 0.114


class Grey(Derive):
    """The luma (B, 1, H, W) of colours (B, 3, H, W): 0.299 red + 0.587 green + 0.114 blue. Source: ITU-R BT.601.

    Raises `ValueError` for images without three channels.
    """

    def __call__(self, fields: Batch, generators: Generators) -> Tensor:
        x = image(fields, "Grey", (3,))
        if x.dtype == torch.uint8:
            return ((_weighted(x.int()) + 2**15) >> 16).to(torch.uint8)
        return (_weighted(x) / 2**16).to(x.dtype)


def _weighted(x: Tensor) -> Tensor:
    red, green, blue = x.split(1, 1)
    return _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue


class Edges(Derive):
    """The edges (B, 1, H, W) of images of 8 bits: 255 where the luma changes by `threshold` levels per pixel, or more.

    The gradient is that of the operator of Sobel divided by 8, with the pixels of the border repeated beyond it.

    Raises `ValueError` for data that are not images of 8 bits with 1 or 3 channels.
    """

    def __init__(self, threshold: Annotated[float, Gt(0)] = 20.0):
        self.threshold = threshold

    def __call__(self, fields: Batch, generators: Generators) -> Tensor:
        x = levels(fields, "Edges", (1, 3)).float()
        luma = _weighted(x) / 2**16 if x.shape[1] == 3 else x
        smooth, slope = torch.tensor([1.0, 2.0, 1.0]) / 4, torch.tensor([-1.0, 0.0, 1.0]) / 2
        kernels = torch.stack([smooth[:, None] * slope, slope[:, None] * smooth])[:, None]
        gradient = nn.functional.conv2d(nn.functional.pad(luma, [1] * 4, mode="replicate"), kernels)
        return (gradient.square().sum(1, keepdim=True) >= self.threshold**2).to(torch.uint8) * 255


class ColourJitter(Derive):
    """Images (B, 3, H, W) of 8 bits with other brightness, contrast, saturation and hue, in this order.

    - `brightness`, `contrast`, `saturation`: the factor of each sample is uniform in [1 - value, 1 + value].
    - `hue`: the hue is turned by a share of the circle, uniform in [-value, value].

    Each step is cut to the range of the levels. Raises `ValueError` for other data.
    """

    def __init__(
        self,
        brightness: Annotated[float, Ge(0), Le(1)] = 0.4,
        contrast: Annotated[float, Ge(0), Le(1)] = 0.4,
        saturation: Annotated[float, Ge(0), Le(1)] = 0.4,
        hue: Annotated[float, Ge(0), Le(0.5)] = 0.1,
    ):
        self.brightness, self.contrast, self.saturation, self.hue = brightness, contrast, saturation, hue

    def __call__(self, fields: Batch, generators: Generators) -> Tensor:
        x = levels(fields, "ColourJitter", (3,))
        u = 2 * generators.at("jitter").uniform((4,)).float() - 1
        strengths = torch.tensor([self.brightness, self.contrast, self.saturation, self.hue])
        factors = (u * strengths + torch.tensor([1.0, 1.0, 1.0, 0.0]))[:, :, None, None, None]
        return as_type(255 * jittered(x.float() / 255, *factors.unbind(1)), x.dtype)


def jittered(x: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, turn: Tensor) -> Tensor:
    """Returns images (B, 3, H, W) in [0, 1] changed by these factors and turned by this share of the circle of hues.

    Each of these is (B, 1, 1, 1).
    """
    x = (brightness * x).clamp(0, 1)
    x = _blended(x, (_weighted(x) / 2**16).mean((1, 2, 3), keepdim=True), contrast)
    x = _blended(x, _weighted(x) / 2**16, saturation)
    most, least = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
    spread = most - least
    red, green, blue = x.split(1, 1)
    safe = torch.where(spread > 0, spread, 1.0)
    sixths = torch.where(
        most == red,
        (green - blue) / safe,
        torch.where(most == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    corners = torch.tensor([5.0, 3.0, 1.0])[:, None, None]
    place = torch.remainder(corners + sixths + 6 * turn, 6)
    return most - spread * torch.minimum(place, 4 - place).clamp(0, 1)


def _blended(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (factor * x + (1 - factor) * other).clamp(0, 1)
