"""What is left of images after lossy compression."""

from __future__ import annotations

import io
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le
from PIL import Image
from torch import Tensor

from inkdrop.data.degradations.images import levels
from inkdrop.data.loaders import Batch, Derive
from inkdrop.randomness import Generators


class JPEG(Derive):
    """Images (B, C, H, W) of 8 bits and 1 or 3 channels, as they come back from a JPEG file, by Pillow.

    - `low`, `high`: lowest and highest quality, 1 to 100, between which it is drawn for each sample.

    Raises `ValueError` for other data.
    """

    def __init__(self, low: Annotated[int, Ge(1), Le(100)], high: Annotated[int, Ge(1), Le(100)]):
        if low > high:
            raise ValueError(f"low={low} is above high={high}: swap the two values")
        self.low, self.high = low, high

    def __call__(self, fields: Batch, generators: Generators) -> Tensor:
        x = levels(fields, "JPEG", (1, 3))
        qualities = self.low + (generators.at("quality").uniform() * (self.high - self.low + 1)).long()
        pixels = x.permute(0, 2, 3, 1).contiguous().numpy()
        rows = [_returned(each, quality) for each, quality in zip(pixels, qualities.tolist(), strict=True)]
        return torch.from_numpy(np.stack(rows)).permute(0, 3, 1, 2).contiguous()


def _returned(pixels: np.ndarray, quality: int) -> np.ndarray:
    """An image (H, W, C) after a round trip."""
    stream = io.BytesIO()
    Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0]).save(stream, "JPEG", quality=quality)
    with Image.open(stream) as image:
        return np.asarray(image).reshape(pixels.shape)
