"""What degradations require of images, and how results become images of 8 bits again."""

from __future__ import annotations

import torch
from torch import Tensor

from inkdrop.data.loaders import Batch


def image(fields: Batch, what: str, channels: tuple[int, ...] = ()) -> Tensor:
    """Returns the images x (B, C, H, W) of a batch; raises `ValueError` if x are others, or C is not in `channels`."""
    x = fields["x"]
    if x.dim() != 4 or (channels and x.shape[1] not in channels):
        kinds = f" of {' or '.join(map(str, channels))} channels" if channels else ""
        raise ValueError(f"{what} needs images{kinds}, not data of shape {list(x.shape[1:])}: choose another field")
    return x


def levels(fields: Batch, what: str, channels: tuple[int, ...]) -> Tensor:
    """Returns what `image` does, and raises `ValueError` for images that are not of 8 bits."""
    x = image(fields, what, channels)
    if x.dtype != torch.uint8:
        raise ValueError(f"{what} needs images of 8 bits, because others have no known range, not {x.dtype}")
    return x


def as_type(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns values in this type; those of 8 bits are rounded and within 0 to 255."""
    return values.round().clamp(0, 255).to(dtype) if dtype == torch.uint8 else values.to(dtype)
