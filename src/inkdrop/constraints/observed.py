"""What is known of the samples: data and a mask, from files or from fields of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from inkdrop.constraints.base import Constrained
from inkdrop.files.pictures import read_images

NAMES = ("known", "mask")


def observed(pipeline: Constrained, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Returns the known x (B, *), and where it is known, a bool tensor of the same shape, from a raw batch.

    Where x has fewer elements than the data, as in a latent space, an element of x is known if all that it stands for
    are. Raises `ValueError` if one of the two is missing or has another shape than samples.
    """
    if missing := [name for name in NAMES if name not in batch]:
        raise ValueError(
            f"a constraint on known data needs condition.{missing[0]}: set condition.known=FILE condition.mask=FILE"
        )
    known, mask = pipeline.codec.encode({**batch, "x": batch["known"]}), batch["mask"] > 0
    if known.shape[1:] != pipeline.shape:
        shapes = f"{list(known.shape[1:])}, but samples have the shape {list(pipeline.shape)}"
        raise ValueError(f"condition.known has the shape {shapes}: give data of the same shape")
    try:
        return known, _pooled(mask, known.shape[2:]).expand_as(known)
    except RuntimeError:
        shapes = f"{list(mask.shape[1:])}, but samples have the shape {list(pipeline.shape)}"
        raise ValueError(f"condition.mask has the shape {shapes}: give one channel, or as many as those") from None


def _pooled(mask: Tensor, sizes: Sequence[int]) -> Tensor:
    """Returns a mask (B, C, *) of these sizes, which is true where whole blocks of the given one are."""
    if mask.dim() != len(sizes) + 2:
        return mask
    for axis, size in enumerate(sizes, 2):
        if mask.shape[axis] > size and mask.shape[axis] % size == 0:
            mask = mask.unflatten(axis, (size, -1)).all(axis + 1)
    return mask[:, :1] if mask.shape[1] > 1 and (mask == mask[:, :1]).all() else mask


def requested(seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
    """Returns the known data and the masks of these seeds from the files that a user names.

    Files of a list are taken in turn. Raises `ValueError` for files that are missing or cannot be read.
    """
    return {name: _read(name, condition.get(name), seeds) for name in NAMES}


def _read(name: str, wanted: Any, seeds: Sequence[int]) -> Tensor:
    files: list[Any] = wanted if isinstance(wanted, list) else [wanted]
    if not files or not all(isinstance(file, str) for file in files):
        raise ValueError(f"condition.{name}={wanted} must be a file, or a list of files")
    images = [read_images(file, f"condition.{name}") for file in files]
    if len({each.shape[1:] for each in images}) > 1:
        raise ValueError(f"the files of condition.{name} have different shapes: make them equal")
    together = torch.cat(images)
    together = together[[seed % len(together) for seed in seeds]]
    return together if name == "known" else (together > (127 if together.dtype == torch.uint8 else 0.5)).to(torch.uint8)
