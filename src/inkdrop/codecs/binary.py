"""The codec of images whose pixels are on or off."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from inkdrop.codecs.base import NOTHING, Codec
from inkdrop.codecs.pixels import Pixels
from inkdrop.randomness import Generators, sent


class Binary(Codec):
    """Maps levels of 8 bits to -1 or 1, and 1 with the probability `level / 255`; without generators to the nearest.

    Decoded x in [-1, 1] are levels, so that a mean of x is a probability. With `observation=bernoulli` the ELBO of a
    VAE is then a bound of the probability of binary images. Source: Salakhutdinov and Murray 2008, ICML, section 5.
    """

    discrete = True
    range = (-1.0, 1.0)

    def check(self, data: Tensor) -> None:
        if not Pixels.fits(data):
            raise ValueError(
                f"codec=binary encodes images of 8 bits, uint8 of [channels, height, width], but these data are "
                f"{str(data.dtype).removeprefix('torch.')} of {list(data.shape[1:])}: choose another codec"
            )

    def encode(self, batch: Mapping[str, Tensor], generators: Generators | None = None) -> Tensor:
        share = batch["x"].float() / 255
        threshold = (
            0.5 if generators is None else sent(generators.uniform(share.shape[1:], torch.float32), share.device)
        )
        return torch.where(share > threshold, 1.0, -1.0)

    def decode(
        self, x: Tensor, batch: Mapping[str, Tensor] = NOTHING, extras: Mapping[str, Tensor] = NOTHING
    ) -> Tensor:
        return self.reconstruct(x).round().clamp(0, 255).to(torch.uint8)

    def reconstruct(self, x: Tensor) -> Tensor:
        return (x.float() + 1) * 127.5
