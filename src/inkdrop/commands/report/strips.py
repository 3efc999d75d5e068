"""Strips of the first samples of several results, one row for each result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from inkdrop.errors import UnreadableError
from inkdrop.files.arrays import Npz, has_channels_last

_SHOWN = 12  # samples of each setting
_MOST = 64  # settings
_LONGEST = 4096  # pixels of a side, or steps
_NUMBERS = 2**20  # of samples that are not images


def strips_of(folder: Path, labels: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Returns rows of samples by the label of their result, or nothing unless all are of the same seeds.

    There is nothing either for samples that are not shown one by one, such as points.
    """
    import torch

    from inkdrop.pictures import Automatic

    if not 1 < len(labels) <= _MOST:
        return {}
    rows, seeds = {}, set()
    for name, label in labels.items():
        if (samples := _samples(folder / name / "samples.npz")) is None:
            return {}
        x, own = samples
        seeds.add(tuple(own))
        if (row := Automatic().rows([torch.from_numpy(x)])) is None:
            return {}
        rows[label] = row
    return rows if len(seeds) == 1 and len(rows) > 1 else {}


def _samples(file: Path) -> tuple[np.ndarray, list[int]] | None:
    """Returns the first samples (N, *) of a file with their seeds, or None without samples that can be drawn."""
    try:
        arrays = Npz(file)
        x, seeds = arrays["x"][:_SHOWN], arrays["seeds"]
    except (FileNotFoundError, KeyError, UnreadableError):
        return None
    if x.ndim < 2 or not 0 < min(x.shape) <= max(x.shape) <= _LONGEST or not _drawable(x):
        return None
    if seeds.ndim != 1 or seeds.dtype.kind not in "iu":
        return None
    x = np.moveaxis(x, -1, 1) if has_channels_last(x) else x
    return np.array(x, x.dtype.newbyteorder("="), order="C"), seeds[:_SHOWN].tolist()


def _drawable(x: np.ndarray) -> bool:
    """Returns whether these are levels, or finite numbers that are not too many."""
    if x.dtype == np.uint8:
        return x.ndim == 4 or x.size <= _NUMBERS
    return x.dtype.kind in "if" and x.size <= _NUMBERS and bool(np.isfinite(x).all())
