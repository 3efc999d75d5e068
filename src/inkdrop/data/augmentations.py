"""Augmentations of training batches, keyed by the position of each sample in the run."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor

from inkdrop.data.loaders import Batch
from inkdrop.randomness import Generators


def flip(batch: Batch, generators: Generators, probability: Annotated[float, Ge(0), Le(1)] = 0.5) -> Batch:
    """Mirrors images (B, C, H, W) left to right, each with this probability."""
    mirrored = generators.at("flip").uniform() < probability
    return {**batch, "x": torch.where(mirrored[:, None, None, None], batch["x"].flip(3), batch["x"])}


def warp(
    batch: Batch,
    generators: Generators,
    probability: Annotated[float, Ge(0), Le(1)] = 0.12,
    flip_x: Annotated[float, Ge(0), Le(1)] = 0.5,
    flip_y: Annotated[float, Ge(0), Le(1)] = 0.5,
    scale: Annotated[float, Ge(0)] = 0.2,
    rotation: Annotated[float, Ge(0), Le(180)] = 180.0,
    anisotropy: Annotated[float, Ge(0)] = 0.2,
    translation: Annotated[float, Ge(0)] = 0.125,
) -> Batch:
    """Applies a random affine map to images (B, C, H, W), and adds `augmentation` (B, 9), which describes it (0: none).

    The network needs these labels, by conditioner=augmented, or samples are warped too. Each of six kinds of change is
    applied with `probability`, where a is standard normal and drawn anew for each use; a strength of 0 leaves it out:

    - `flip_x`, `flip_y`: mirrors left to right, or upside down, in this share of the cases.
    - `scale`, `rotation`: enlarges by 2^(scale a); rotates by an angle of up to this many degrees.
    - `anisotropy`: stretches by 2^(anisotropy a) along a random direction, and shrinks as much across it.
    - `translation`: shifts by translation a of the width and of the height.

    Images are continued by their reflection. Raises `ValueError` for other samples. Source: Karras et al. 2022, arXiv
    2206.00364, appendix F.2, but for linear interpolation, and labels of twice the direction's angle, which are unique.
    """
    x = batch["x"]
    if x.ndim != 4:
        raise ValueError(f"warp takes images (C, H, W), not samples {tuple(x.shape[1:])}: set data.augment=null")
    streams = generators.at("warp")
    u, n = streams.uniform((10,)), streams.at("normal").normal((4,), torch.float64)
    strengths = torch.tensor([flip_x, flip_y, scale, rotation, anisotropy, translation], dtype=torch.float64)
    on = ((u[:, :6] < probability) & (strengths > 0)).double()
    flipped = on[:, :2] * (u[:, 6:8] < strengths[:2])
    larger, stretch, shift = on[:, 2] * n[:, 0], on[:, 4] * n[:, 1], on[:, 5:] * n[:, 2:]
    angle, direction = on[:, 3] * (2 * u[:, 8] - 1) * math.radians(rotation), math.pi * u[:, 9]
    stretched = [stretch * (2 * direction).cos(), stretch * (2 * direction).sin()]  # half a turn is the same direction
    label = torch.stack([*flipped.unbind(1), larger, angle.cos() - 1, angle.sin(), *stretched, *shift.unbind(1)], dim=1)
    size = torch.tensor([x.shape[3], x.shape[2]], dtype=torch.float64)
    along, zoom = rotated(direction), 2 ** (scale * larger)
    done = (
        moved(translation * shift * size)
        @ (along @ scaled(2 ** (anisotropy * stretch), 2 ** (-anisotropy * stretch)) @ along.mT)
        @ rotated(angle)
        @ scaled(zoom, zoom)
        @ scaled(1 - 2 * flipped[:, 0], 1 - 2 * flipped[:, 1])
    )
    touched = label.any(1)
    if touched.any():
        x = x.clone()
        x[touched] = resampled(x[touched], done[touched])
    return {**batch, "x": x, "augmentation": label.float()}


def scaled(x: Tensor, y: Tensor) -> Tensor:
    """Returns maps (B, 3, 3) of the plane that scale by x (B) to the right and by y (B) downwards."""
    return torch.diag_embed(torch.stack([x, y, torch.ones_like(x)], dim=1))


def rotated(angle: Tensor) -> Tensor:
    """Returns maps (B, 3, 3) that rotate by angles (B), in radians, from the right towards the bottom."""
    matrix = torch.eye(3, dtype=angle.dtype).repeat(len(angle), 1, 1)
    matrix[:, 0, 0] = matrix[:, 1, 1] = angle.cos()
    matrix[:, 1, 0] = angle.sin()
    matrix[:, 0, 1] = -matrix[:, 1, 0]
    return matrix


def moved(shift: Tensor) -> Tensor:
    """Returns maps (B, 3, 3) that shift by pixels (B, 2), to the right and downwards."""
    matrix = torch.eye(3, dtype=shift.dtype).repeat(len(shift), 1, 1)
    matrix[:, :2, 2] = shift
    return matrix


def resampled(x: Tensor, done: Tensor) -> Tensor:
    """Applies maps (B, 3, 3) of the plane, in pixels from the centre, to images (B, C, H, W).

    The interpolation is linear, and images are reflected at their borders.
    """
    height, width = x.shape[2:]
    half = torch.tensor([width / 2, height / 2, 1], dtype=done.dtype)
    back = torch.linalg.inv(done) * half / half[:, None]  # the position that a pixel comes from, in halves of the size
    grid = torch.nn.functional.affine_grid(back[:, :2], list(x.shape), align_corners=False)
    out = torch.nn.functional.grid_sample(x.to(done.dtype), grid, "bilinear", "reflection", align_corners=False)
    return out.to(x.dtype) if x.dtype.is_floating_point else out.round().clamp(0, 255).to(x.dtype)
