"""Masks (B, 1, H, W) of uint8, which are 1 where an image is known and 0 where it is hidden."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Le, Len
from torch import Tensor

from inkdrop.data.degradations.images import image
from inkdrop.data.loaders import Batch, Derive
from inkdrop.randomness import Generators

_SIDES = ("lower", "upper", "left", "right")


def _checked(low: float, high: float) -> tuple[float, float]:
    if low > high:
        raise ValueError(f"low={low} is above high={high}: swap the two values")
    return low, high


def _rectangles(starts: Tensor, lengths: Tensor, height: int, width: int) -> Tensor:
    """True (B, 1, H, W) within a rectangle for each sample, of starts and lengths (B, 2) of rows and columns."""
    within = [
        (torch.arange(side) >= start[:, None]) & (torch.arange(side) < (start + length)[:, None])
        for side, start, length in zip((height, width), starts.unbind(1), lengths.unbind(1), strict=True)
    ]
    return within[0][:, None, :, None] & within[1][:, None, None, :]


class BoxMask(Derive):
    """A mask (B, 1, H, W) of uint8 that is 0 within a random rectangle and 1 elsewhere, where the image is known.

    - `low`, `high`: the smallest and the largest share of each side that the rectangle covers.
    """

    def __init__(self, low: Annotated[float, Gt(0), Le(1)] = 0.25, high: Annotated[float, Gt(0), Le(1)] = 0.5):
        self.low, self.high = _checked(low, high)

    def __call__(self, fields: Batch, generators: Generators) -> Tensor:
        height, width = image(fields, "BoxMask").shape[2:]
        sides = torch.tensor([height, width]).double()
        u = generators.at("box").uniform((4,))
        lengths = ((self.low + (self.high - self.low) * u[:, :2]) * sides).round().clamp(min=1)
        starts = (u[:, 2:] * (sides - lengths + 1)).floor()
        return (~_rectangles(starts, lengths, height, width)).to(torch.uint8)


class OutpaintingMask(Derive):
    """A mask (B, 1, H, W) of uint8 that is 1 within a rectangle in the middle, and 0 around it.

    - `low`, `high`: the smallest and the largest share of each side that the rectangle covers.
    """

    def __init__(self, low: Annotated[float, Gt(0), Le(1)] = 0.5, high: Annotated[float, Gt(0), Le(1)] = 0.5):
        self.low, self.high = _checked(low, high)

    def __call__(self, fields: Batch, generators: Generators) -> Tensor:
        height, width = image(fields, "OutpaintingMask").shape[2:]
        sides = torch.tensor([height, width]).double()
        u = generators.at("outpainting").uniform((2,))
        lengths = ((self.low + (self.high - self.low) * u) * sides).round().clamp(min=1)
        return _rectangles(((sides - lengths) / 2).floor(), lengths, height, width).to(torch.uint8)


class HalfMask(Derive):
    """A mask (B, 1, H, W) of uint8 that is 0 in one half of the image and 1 in the other.

    - `hidden`: the halves of which each sample hides one at random: lower, upper, left, right.
    """

    def __init__(self, hidden: Annotated[list[Literal["lower", "upper", "left", "right"]], Len(1)]):
        self.hidden = list(hidden)

    def __call__(self, fields: Batch, generators: Generators) -> Tensor:
        height, width = image(fields, "HalfMask").shape[2:]
        known = torch.ones(len(_SIDES), 1, height, width, dtype=torch.uint8)
        known[0, :, height // 2 :], known[1, :, : height // 2] = 0, 0
        known[2, :, :, : width // 2], known[3, :, :, width // 2 :] = 0, 0
        numbers = torch.tensor([_SIDES.index(side) for side in self.hidden])
        return known[numbers[(generators.at("half").uniform() * len(numbers)).long()]]


class PixelMask(Derive):
    """A mask (B, 1, H, W) of uint8 in which each pixel is 0 with the same probability, independently of the others.

    - `low`, `high`: smallest and largest probability, between which it is drawn for each sample.
    """

    def __init__(self, low: Annotated[float, Ge(0), Le(1)] = 0.5, high: Annotated[float, Ge(0), Le(1)] = 0.5):
        self.low, self.high = _checked(low, high)

    def __call__(self, fields: Batch, generators: Generators) -> Tensor:
        size = image(fields, "PixelMask").shape[2:]
        hidden = self.low + (self.high - self.low) * generators.at("share").uniform((1, 1, 1))
        return (generators.at("pixels").uniform((1, *size)) >= hidden).to(torch.uint8)


class StrokeMask(Derive):
    """A mask (B, 1, H, W) of uint8 that is 0 under freeform strokes of a round brush, and 1 elsewhere.

    - `strokes`: number of strokes of a sample.
    - `segments`: number of straight segments of a stroke, each of which turns by up to a quarter circle.
    - `length`: largest length of a segment, as a share of the shorter side.
    - `low`, `high`: smallest and largest width of a stroke, as shares of the shorter side.

    A stroke may leave the image. After the masks of Yu et al. 2019, arXiv 1806.03589.
    """

    def __init__(
        self,
        strokes: Annotated[int, Ge(1), Le(64)] = 3,
        segments: Annotated[int, Ge(1), Le(64)] = 4,
        length: Annotated[float, Gt(0), Le(1)] = 0.4,
        low: Annotated[float, Gt(0), Le(1)] = 0.1,
        high: Annotated[float, Gt(0), Le(1)] = 0.2,
    ):
        self.low, self.high = _checked(low, high)
        self.strokes, self.segments, self.length = strokes, segments, length

    def __call__(self, fields: Batch, generators: Generators) -> Tensor:
        height, width = image(fields, "StrokeMask").shape[2:]
        u = generators.at("strokes").uniform((self.strokes, 4 + 2 * self.segments)).float()
        short = min(height, width)
        radius = short * (self.low + (self.high - self.low) * u[..., 2]) / 2
        turns = (u[..., 4 : 4 + self.segments] - 0.5) * math.pi
        angles = 2 * math.pi * u[..., 3:4] + turns.cumsum(-1) - turns[..., :1]
        moves = short * self.length * u[..., 4 + self.segments :]
        moves = torch.stack([moves * angles.cos(), moves * angles.sin()], -1)
        first = u[..., None, :2] * torch.tensor([width, height])
        ends = first + moves.cumsum(-2)
        starts = torch.cat([first, ends[..., :-1, :]], -2)
        widths = radius[..., None].expand(-1, -1, self.segments)
        hidden = under(starts.flatten(1, 2), ends.flatten(1, 2), widths.flatten(1), height, width)
        return (~hidden[:, None]).to(torch.uint8)


def under(starts: Tensor, ends: Tensor, radii: Tensor, height: int, width: int) -> Tensor:
    """Returns whether the middle of each pixel (B, H, W) is within `radii` (B, S) of a segment.

    `starts` and `ends` (B, S, 2) are x and y in pixels.
    """
    x, y = torch.arange(width) + 0.5, (torch.arange(height) + 0.5)[:, None]
    hidden = torch.zeros(len(starts), height, width, dtype=torch.bool)
    for start, end, radius in zip(starts.unbind(1), ends.unbind(1), radii.unbind(1), strict=True):
        (a, b), (c, d) = (end - start)[..., None, None].unbind(1), start[..., None, None].unbind(1)
        along = ((x - c) * a + (y - d) * b) / (a.square() + b.square()).clamp(min=1e-12)
        along = along.clamp(0, 1)
        hidden |= (x - c - along * a).square() + (y - d - along * b).square() <= radius[:, None, None].square()
    return hidden
