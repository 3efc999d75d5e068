"""The codec of 8-bit images."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from inkdrop.codecs.base import NOTHING, Codec
from inkdrop.randomness import Generators
from inkdrop.schedules import Scalar
from inkdrop.variational import discretized


class Pixels(Codec):
    """Maps uint8 (B, C, H, W) in 0 ... 255 to `x = data / 127.5 - 1` in [-1, 1], and back by rounding to a level."""

    discrete = True
    range = (-1.0, 1.0)

    @staticmethod
    def fits(data: Tensor) -> bool:
        """Returns whether raw data (B, *) are images of 8 bits."""
        return data.dtype == torch.uint8 and data.dim() >= 4

    def check(self, data: Tensor) -> None:
        if not self.fits(data):
            raise ValueError(
                f"codec=pixels encodes images of 8 bits, uint8 of [channels, height, width], but these data are "
                f"{str(data.dtype).removeprefix('torch.')} of {list(data.shape[1:])}: set codec=standardize"
            )

    def encode(self, batch: Mapping[str, Tensor], generators: Generators | None = None) -> Tensor:
        return batch["x"].float() / 127.5 - 1

    def decode(
        self, x: Tensor, batch: Mapping[str, Tensor] = NOTHING, extras: Mapping[str, Tensor] = NOTHING
    ) -> Tensor:
        return self.reconstruct(x).round().clamp(0, 255).to(torch.uint8)

    def reconstruct(self, x: Tensor) -> Tensor:
        return (x.float() + 1) * 127.5

    def log_probability(self, data: Tensor, mean: Tensor, deviation: Scalar) -> Tensor:
        return discretized(self.encode({"x": data}), mean, deviation, width=2 / 255)

    def dequantize(self, data: Tensor, generators: Generators) -> tuple[Tensor, Tensor]:
        spread = generators.uniform(data.shape[1:]).to(data.device, torch.float32) - 0.5
        return self.encode({"x": data + spread}), torch.tensor(2 / 255).double().log()
