"""Pictures of samples."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from inkdrop.files.writing import make_folder, replacing

_SHORT_SIDE = 48  # small images are enlarged by whole factors until they are at least this large


def is_images(data: Tensor) -> bool:
    """Returns whether raw data (B, *) are images: uint8 (B, 1 or 3, H, W)."""
    return data.dtype == torch.uint8 and data.dim() == 4 and data.shape[1] in (1, 3)


def as_array(images: Tensor) -> np.ndarray:
    """Returns uint8 images (B, C, H, W) as an array (B, H, W, C)."""
    return images.permute(0, 2, 3, 1).cpu().numpy()


def image(array: np.ndarray) -> Image.Image:
    """Returns an 8-bit image, greyscale or RGB, from an array (H, W, C)."""
    return Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array)


def grid(images: Tensor, columns: int | None = None) -> np.ndarray:
    """Arranges images (B, C, H, W) in rows, small ones enlarged, with a margin: an array (H', W', C)."""
    array = as_array(images)
    columns = columns or math.ceil(math.sqrt(len(array)))
    factor = max(1, _SHORT_SIDE // min(array.shape[1:3]))
    array = array.repeat(factor, 1).repeat(factor, 2)
    count, height, width, channels = array.shape
    rows = math.ceil(count / columns)
    sheet = np.full((rows * (height + 2) + 2, columns * (width + 2) + 2, channels), 255, np.uint8)
    for i, each in enumerate(array):
        top, left = 2 + i // columns * (height + 2), 2 + i % columns * (width + 2)
        sheet[top : top + height, left : left + width] = each
    return sheet


def class_rows(images: Tensor, labels: Tensor, columns: int = 10) -> np.ndarray:
    """Arranges the first images (B, C, H, W) of each class as in `grid`, with a row for each label in labels (B)."""
    rows = [images[labels == label][:columns] for label in labels.unique()]
    columns = max(len(row) for row in rows)
    blank = images.new_full((columns, *images.shape[1:]), 255)
    return grid(torch.cat([torch.cat([row, blank[len(row) :]]) for row in rows]), columns)


def scatter(points: Tensor) -> np.ndarray:
    """Plots the first two coordinates of points (B, D), as an array (H, W, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="tight")
    axes = figure.subplots()
    flat = points.flatten(1).float().cpu().numpy()
    axes.scatter(flat[:, 0], flat[:, -1] if flat.shape[1] == 1 else flat[:, 1], s=4, linewidths=0)
    axes.set_aspect("equal")
    canvas = FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    canvas.print_png(buffer)
    return np.asarray(Image.open(buffer).convert("RGB"))


def sheet(data: Tensor, columns: int | None = None) -> np.ndarray:
    """Returns a picture of raw data (B, *): a grid of images, or otherwise a plot of points."""
    return grid(data, columns) if is_images(data) else scatter(data)


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
