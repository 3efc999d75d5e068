"""The generator of a GAN."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from inkdrop.codecs import Codec
from inkdrop.models.base import Model
from inkdrop.noises import Gaussian, Noise
from inkdrop.pictures import Automatic, View
from inkdrop.randomness import Generators, sent


class Generator(Model):
    """The generator of a GAN: `x = network(eps)` of noise in the shape that the network takes; see `AdversarialLoss`.

    - `network`: the generator, a decoder.
    - `codec`: encodes the raw data to x.
    - `shape`: the shape of x without the batch.
    - `noise`: the law of the noise.
    - `view`: how data are looked at and written.

    Source: Goodfellow et al. 2014, arXiv 1406.2661, section 3.
    """

    draws = True
    estimate = "x = G(eps)"

    def __init__(
        self, network: nn.Module, codec: Codec, shape: list[int], noise: Noise | None = None, view: View | None = None
    ):
        super().__init__()
        if not hasattr(network, "latent_shape"):
            raise ValueError(
                f"network is a {type(network).__name__}, which makes no data from noise alone: "
                "choose network=generator, or network=perceptron_generator for points"
            )
        self.network, self.codec, self.shape = network, codec, tuple(shape)
        self.noise, self.view = noise or Gaussian(), view or Automatic()
        self.latent_shape: tuple[int, ...] = network.latent_shape  # type: ignore[assignment]

    def made(self, generators: Generators) -> Tensor:
        """Returns x (B, *) of noise from these random streams."""
        eps = sent(self.noise(self.latent_shape, generators), self.device)
        made: Tensor = self.network(eps)
        return made

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """Returns nothing: the model takes no condition."""
        if condition:
            raise ValueError(f"condition.{next(iter(condition))} has no effect: this model takes no condition")
        return {}

    @torch.no_grad()
    def check(self) -> None:
        """Raises `ValueError` if the network does not return the shape of x."""
        found = list(self.made(Generators.from_seeds([0])).shape[1:])
        if found != list(self.shape):
            raise ValueError(f"the generator returns {found}, but x is {list(self.shape)}: make them equal")

    def forward(
        self,
        batch: Mapping[str, Tensor],
        seeds: Sequence[int],
        progress: Callable[[int, int, Tensor], None] | None = None,
    ) -> Tensor:
        """Draws raw data (B, *), one sample for each seed."""
        return self.in_one_call(lambda: self.made(Generators.from_seeds(seeds).at("start")), batch, seeds, progress)
