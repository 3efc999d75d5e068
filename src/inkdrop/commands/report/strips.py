"""Samples of settings side by side: of equal seeds, from `samples.npz`, or from the pictures of training runs."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from inkdrop.commands.report.leaderboard import Setting
from inkdrop.commands.report.results import Result
from inkdrop.errors import UnreadableError
from inkdrop.files.arrays import Npz, has_channels_last
from inkdrop.files.plain import read_bytes

_SHOWN = 12  # samples of each setting
_MOST = 64  # settings
_LONGEST = 4096  # pixels of a side, or steps
_NUMBERS = 2**20  # of samples that are not images
_WIDTH, _HEIGHT = 480, 480  # of a picture on the page
_BUDGET = 500_000  # bytes of all pictures on the page
_SMALL = 12_000  # bytes up to which a picture is kept without loss


def representatives(rows: Sequence[Setting]) -> dict[str, Result]:
    """Returns a run of each setting by its label: that of the seed which most settings have, or else the first."""
    counts = Counter(run.seed for row in rows for run in row.runs if run.seed is not None)
    common = min(counts, key=lambda seed: (-counts[seed], seed)) if counts else None
    return {row.label: next((run for run in row.runs if run.seed == common), row.runs[0]) for row in rows}


def strips_of(runs: Mapping[str, Result]) -> dict[str, np.ndarray]:
    """Returns rows of samples by the labels of the settings, or nothing unless all are of the same seeds.

    There is nothing either for samples that are not shown one by one, such as points.
    """
    if not 1 < len(runs) <= _MOST or not all((run.folder / "samples.npz").exists() for run in runs.values()):
        return {}
    import torch

    from inkdrop.pictures import Automatic

    rows, seeds = {}, set()
    for label, run in runs.items():
        if (samples := _samples(run.folder / "samples.npz")) is None:
            return {}
        x, own = samples
        seeds.add(tuple(own))
        if (row := Automatic().rows([torch.from_numpy(x)])) is None:
            return {}
        rows[label] = row
    return rows if len(seeds) == 1 and len(rows) > 1 else {}


def pictures_of(runs: Mapping[str, Result], strips: Mapping[str, np.ndarray]) -> dict[str, bytes]:
    """Returns an image file for each setting by its label, as far as they fit into half a megabyte.

    They are the strips, if there are any, and else the latest sheet of samples of each training run, whose seeds are
    equal in all runs.
    """
    found: dict[str, bytes] = {}
    left = _BUDGET
    for label, run in runs.items():
        image = Image.fromarray(strips[label].squeeze()) if label in strips else None
        if image is None and not strips:
            image = _sheet(run.folder / "pictures")
        if image is None:
            continue
        content = _encoded(image)
        if (left := left - len(content)) < 0:
            break
        found[label] = content
    return found


def _sheet(folder: Path) -> Image.Image | None:
    """Returns the latest sheet of samples in a folder, or None without one that can be read."""
    names = sorted(file.name for file in folder.glob("samples-*.png"))
    if not names:
        return None
    try:
        content = read_bytes(folder / names[-1], max_bytes=2**23)
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            if max(image.size) > _LONGEST or min(image.size) < 1:
                return None
            return image.convert("L" if image.mode in ("1", "L") else "RGB")
    except (UnreadableError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _encoded(image: Image.Image) -> bytes:
    """Returns an image of limited size as PNG, or as JPEG if that takes many bytes."""
    if image.width > _WIDTH:
        image = image.resize((_WIDTH, max(1, image.height * _WIDTH // image.width)), Image.Resampling.BOX)
    image = image.crop((0, 0, image.width, min(image.height, _HEIGHT)))
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    if stream.tell() > _SMALL:
        stream = io.BytesIO()
        image.save(stream, "JPEG", quality=80)
    return stream.getvalue()


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
