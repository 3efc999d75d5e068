"""Pictures of samples."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from torch import Tensor

from inkdrop.files.writing import make_folder, replacing
from inkdrop.pictures.lettering import lettered

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHORT_SIDE = 48  # small images are enlarged by whole factors until they are at least this large
_WITH_TEXTS = 96  # the same for images with texts


def as_array(images: Tensor) -> np.ndarray:
    """Returns uint8 images (B, C, H, W) as an array (B, H, W, C)."""
    return images.permute(0, 2, 3, 1).cpu().numpy()


def image(array: np.ndarray) -> Image.Image:
    """Returns an 8-bit image, greyscale or RGB, from an array (H, W, C)."""
    return Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array)


def grid(images: Tensor, columns: int | None = None, texts: Sequence[Sequence[str]] = ()) -> np.ndarray:
    """Arranges images (B, C, H, W) in rows, small ones enlarged, with a margin, and with the texts of each below it.

    It is an array (H', W', C).
    """
    array = as_array(images)
    columns = columns or math.ceil(math.sqrt(len(array)))
    factor = max(1, (_WITH_TEXTS if texts else _SHORT_SIDE) // min(array.shape[1:3]))
    array = array.repeat(factor, 1).repeat(factor, 2)
    if texts:
        array = np.concatenate([array, lettered(texts, *array.shape[2:])], 1)
    count, height, width, channels = array.shape
    rows = math.ceil(count / columns)
    sheet = np.full((rows * (height + 2) + 2, columns * (width + 2) + 2, channels), 255, np.uint8)
    for i, each in enumerate(array):
        top, left = 2 + i // columns * (height + 2), 2 + i % columns * (width + 2)
        sheet[top : top + height, left : left + width] = each
    return sheet


def scatter(points: Tensor) -> np.ndarray:
    """Plots the first two coordinates of points (B, D), as an array (H, W, 3).

    Both axes have one scale, unless one coordinate spans more than ten times the other, as columns of a table may.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="tight")
    axes = figure.subplots()
    flat = points.flatten(1).float().cpu().numpy()
    x, y = flat[:, 0], flat[:, -1] if flat.shape[1] == 1 else flat[:, 1]
    axes.scatter(x, y, s=4, linewidths=0)
    low, high = sorted((float(np.ptp(x)), float(np.ptp(y))))
    if not high > 10 * low > 0:
        axes.set_aspect("equal")
    return rendered(figure)


def rendered(figure: Figure) -> np.ndarray:
    """Draws a figure of matplotlib, as an array (H, W, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return np.asarray(Image.open(buffer).convert("RGB"))


def save_png(array: np.ndarray, path: Path) -> None:
    """Writes an array (H, W, C) as PNG."""
    make_folder(path.parent)
    with replacing(path) as file:
        image(array).save(file, "PNG")


def save_gif(frames: Sequence[np.ndarray], path: Path, seconds: float = 4.0) -> None:
    """Writes arrays (H, W, C) as a looping GIF of about this length, which shows the last one for a second."""
    images = [image(frame) for frame in frames]
    durations = [max(20, round(1000 * seconds / len(images)))] * (len(images) - 1) + [1000]
    with replacing(path) as file:
        images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0)
