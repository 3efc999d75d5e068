"""Pictures of scenes: how much of each pixel an object covers, and what follows from that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from inkdrop.data.contents import COLOURS, SIDE, Contents
from inkdrop.randomness import Generators

_FINE = 8  # points per pixel and axis
_WINDOW = 9  # pixels around an object, beyond which it never reaches
_CHUNK = 1000  # objects drawn at a time


@dataclass(frozen=True)
class Style:
    """The levels, 0 to 255, of a set of scenes: the ground is `tint` times a number between `low` and `high`."""

    low: float
    high: float
    tint: tuple[float, float, float]
    palette: Mapping[str, tuple[int, int, int]]

    def grounds(self, ground: Tensor) -> Tensor:
        """Returns the red, green and blue levels (N, 3) of grounds (N) in [0, 1]."""
        return (self.low + (self.high - self.low) * ground)[:, None] * torch.tensor(self.tint, dtype=ground.dtype)

    def levels(self) -> Tensor:
        """Returns the red, green and blue levels (6, 3), float32, of the colours."""
        return torch.tensor([self.palette[name] for name in COLOURS]).float()


# In both styles colours lie in six directions from the ground, so that a mixture with it keeps its hue. Objects are
# brighter than the ground in both, because a translation by noise keeps what is bright in comparison.
STYLES = {
    "bright": Style(
        10,
        50,
        (1.0, 1.0, 1.0),
        {
            "red": (230, 40, 40),
            "green": (40, 200, 40),
            "blue": (50, 70, 240),
            "yellow": (230, 220, 40),
            "magenta": (220, 40, 220),
            "cyan": (40, 220, 220),
        },
    ),
    "pastel": Style(
        40,
        70,
        (0.8, 0.9, 1.3),
        {
            "red": (255, 95, 110),
            "green": (95, 240, 115),
            "blue": (85, 110, 255),
            "yellow": (250, 240, 95),
            "magenta": (245, 95, 255),
            "cyan": (75, 240, 250),
        },
    ),
}


def coverage(shapes: Tensor, centres: Tensor, halves: Tensor) -> Tensor:
    """Returns the share (M, 16, 16), float32, of each pixel that an object covers, from 8 x 8 points of it.

    - `shapes`: numbers (M) of the shapes; nothing is drawn for -1.
    - `centres`: x and y (M, 2) in pixels.
    - `halves`: half widths h (M). A circle has the radius h, a square the side 1.76 h, a triangle the base 2 h and the
      height 1.9 h, and the two bars of a cross the length 2 h and the thickness 0.6 h.
    """
    parts = [_coverage(*each) for each in zip(*(all_.split(_CHUNK) for all_ in (shapes, centres, halves)), strict=True)]
    return torch.cat(parts) if parts else torch.zeros(0, SIDE, SIDE)


def _coverage(shapes: Tensor, centres: Tensor, halves: Tensor) -> Tensor:
    start = (centres - _WINDOW / 2).round().clamp(0, SIDE - _WINDOW).long()
    points = (torch.arange(_WINDOW * _FINE) + 0.5) / _FINE
    x, y = ((start[:, axis, None] + points - centres[:, axis, None]) / halves[:, None] for axis in (0, 1))
    out = torch.zeros(len(shapes), SIDE, SIDE)
    for number, covers in enumerate((_circle, _square, _triangle, _cross)):
        chosen = (shapes == number).nonzero()[:, 0]
        inside = covers(x[chosen, None, :].float(), y[chosen, :, None].float())
        share = nn.functional.avg_pool2d(inside[:, None].float(), _FINE)[:, 0]
        window = torch.arange(_WINDOW)
        rows, columns = (start[chosen, axis, None] + window for axis in (1, 0))
        out[chosen[:, None, None], rows[:, :, None], columns[:, None, :]] = share
    return out


def _circle(x: Tensor, y: Tensor) -> Tensor:
    return x.square() + y.square() <= 1


def _square(x: Tensor, y: Tensor) -> Tensor:
    return (x.abs() <= 0.88) & (y.abs() <= 0.88)


def _triangle(x: Tensor, y: Tensor) -> Tensor:
    return (y <= 0.95) & (x.abs() * 1.9 <= y + 0.95)


def _cross(x: Tensor, y: Tensor) -> Tensor:
    wide, high = (x.abs() <= 1) & (y.abs() <= 0.3), (x.abs() <= 0.3) & (y.abs() <= 1)
    return wide | high


def covered(scenes: Contents) -> Tensor:
    """Returns the share (N, 2, 16, 16) of each pixel that the objects of scenes cover."""
    flat = coverage(scenes.shapes.flatten(), scenes.centres.flatten(0, 1), scenes.halves.flatten())
    return flat.unflatten(0, (-1, 2))


def pictures(scenes: Contents, shares: Tensor, style: Style) -> Tensor:
    """Returns pictures (N, 3, 16, 16), uint8, of scenes whose objects cover these shares (N, 2, 16, 16) of pixels."""
    ground = style.grounds(scenes.ground).float()
    gain = style.levels()[scenes.colours] - ground[:, None]  # objects that are not there have a share of 0
    levels = ground[:, :, None, None] + torch.einsum("nkc,nkhw->nchw", gain, shares)
    return levels.round().to(torch.uint8)


def mask(shares: Tensor) -> Tensor:
    """Returns 255 (N, 1, 16, 16), uint8, where objects cover at least half of a pixel, and 0 elsewhere."""
    return _white(shares.sum(1, keepdim=True) >= 0.5)


def wider(masks: Tensor) -> Tensor:
    """Returns masks (N, 1, H, W) that are wider by one pixel to all sides, corners included."""
    return _white(nn.functional.max_pool2d(masks.float(), 3, 1, 1) > 0)


def outline(shares: Tensor) -> Tensor:
    """Returns 255 (N, 1, 16, 16), uint8, on the pixels of each object of which a neighbour is outside the object."""
    inside = (shares >= 0.5).float()
    padded = nn.functional.pad(inside, (1, 1, 1, 1))
    neighbours = padded[..., :-2, 1:-1] * padded[..., 2:, 1:-1] * padded[..., 1:-1, :-2] * padded[..., 1:-1, 2:]
    return _white(((inside > 0) & (neighbours == 0)).any(1, keepdim=True))


def textured(shares: Tensor, generators: Generators) -> Tensor:
    """Returns grey pictures (N, 1, 16, 16), uint8, of fine noise within objects and coarse, darker noise around them.

    The levels have the means 170 and 90 and the deviation 20; the coarse noise is one of 2 x 2 pixels.
    """
    fine = generators.at("fine").normal((1, SIDE, SIDE))
    coarse = generators.at("coarse").normal((1, SIDE // 2, SIDE // 2)).repeat_interleave(2, 2).repeat_interleave(2, 3)
    share = shares.sum(1, keepdim=True)
    levels = share * (170 + 20 * fine) + (1 - share) * (90 + 20 * coarse)
    return levels.round().clamp(0, 255).to(torch.uint8)


def _white(inside: Tensor) -> Tensor:
    return inside.to(torch.uint8) * 255
