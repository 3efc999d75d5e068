"""The codec of a trained model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from inkdrop.codecs import Batches, Codec
from inkdrop.codecs.base import NOTHING
from inkdrop.models.base import Model
from inkdrop.models.holding import Frozen
from inkdrop.randomness import Generators


class CodecOf(Codec):
    """The codec of a trained model, which stays as it is: a classifier then sees x as that model does.

    The model is a part of the checkpoint, which is then enough on its own.

    - `model`: the model.
    """

    def __init__(self, model: Model):
        super().__init__()
        self.model = Frozen(model)
        self.discrete, self.range = self.codec.discrete, self.codec.range

    @property
    def codec(self) -> Codec:
        """The codec itself."""
        codec: Codec = self.model.model.codec
        return codec

    def check(self, data: Tensor) -> None:
        self.codec.check(data)

    def example(self, count: int) -> dict[str, Tensor]:
        return self.codec.example(count)

    def shape(self, raw: Sequence[int]) -> list[int]:
        return self.codec.shape(raw)

    def fit(self, batches: Batches, device: torch.device) -> None:
        self.to(device)

    @torch.no_grad()
    def encode(self, batch: Mapping[str, Tensor], generators: Generators | None = None) -> Tensor:
        return self.codec.encode(batch, generators)

    def decode(
        self, x: Tensor, batch: Mapping[str, Tensor] = NOTHING, extras: Mapping[str, Tensor] = NOTHING
    ) -> Tensor:
        return self.codec.decode(x, batch, extras)

    def reconstruct(self, x: Tensor) -> Tensor:
        return self.codec.reconstruct(x)
