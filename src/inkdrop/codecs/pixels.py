"""The codec of 8-bit images."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from inkdrop.codecs.base import Codec
from inkdrop.randomness import Generators
from inkdrop.schedules import Scalar
from inkdrop.variational import discretized


class Pixels(Codec):
    """Maps uint8 (B, C, H, W) in 0 ... 255 to `x = data / 127.5 - 1` in [-1, 1], and back by rounding to a level."""

    discrete = True

    def check(self, data: Tensor) -> None:
        if data.is_floating_point():
            raise ValueError(
                f"codec=pixels encodes levels of 0 to 255, but these data are real numbers of type {data.dtype}: set "
                "codec=standardize"
            )

    def encode(self, data: Tensor, generators: Generators | None = None) -> Tensor:
        return data.float() / 127.5 - 1

    def decode(self, x: Tensor) -> Tensor:
        return ((x.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)

    def log_probability(self, data: Tensor, mean: Tensor, deviation: Scalar) -> Tensor:
        return discretized(self.encode(data), mean, deviation, width=2 / 255)

    def dequantize(self, data: Tensor, generators: Generators) -> tuple[Tensor, float]:
        spread = generators.uniform(data.shape[1:]).to(data.device, torch.float32) - 0.5
        return self.encode(data + spread), math.log(2 / 255)
