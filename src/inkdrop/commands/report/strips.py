"""Strips of the first images of several results, one row for each result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from inkdrop.errors import UnreadableError
from inkdrop.files.arrays import Npz

_SHOWN = 12  # samples of each setting
_MOST = 64  # settings
_LONGEST = 4096  # pixels of a side


def strips_of(folder: Path, labels: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Returns rows of images by the label of their result, or nothing unless all are images of the same seeds."""
    import torch

    from inkdrop.pictures import grid

    if not 1 < len(labels) <= _MOST:
        return {}
    rows, seeds = {}, set()
    for name, label in labels.items():
        if (images := _images(folder / name / "samples.npz")) is None:
            return {}
        x, own = images
        seeds.add(tuple(own))
        rows[label] = grid(torch.from_numpy(x.copy()).permute(0, 3, 1, 2), len(x))
    return rows if len(seeds) == 1 and len(rows) > 1 else {}


def _images(file: Path) -> tuple[np.ndarray, list[int]] | None:
    """Returns the first 8-bit images (N, H, W, C) of a file with their seeds, or None without images."""
    try:
        arrays = Npz(file)
        x, seeds = arrays["x"][:_SHOWN], arrays["seeds"]
    except (FileNotFoundError, KeyError, UnreadableError):
        return None
    if (
        x.dtype != np.uint8
        or x.ndim != 4
        or x.shape[3] not in (1, 3)
        or not 0 < min(x.shape) <= max(x.shape) <= _LONGEST
    ):
        return None
    if seeds.ndim != 1 or seeds.dtype.kind not in "iu":
        return None
    return x, seeds[:_SHOWN].tolist()
