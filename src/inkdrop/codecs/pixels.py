"""Images of 8 bits."""

from __future__ import annotations

import torch
from torch import Tensor

from inkdrop.codecs.base import Codec
from inkdrop.randomness import Generators


class Pixels(Codec):
    """uint8 (B, C, H, W) in 0 ... 255 to `x = data / 127.5 - 1` in [-1, 1]; back by rounding to the nearest level."""

    def encode(self, data: Tensor, generators: Generators | None = None) -> Tensor:
        return data.float() / 127.5 - 1

    def decode(self, x: Tensor) -> Tensor:
        return ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
