"""The conditioner of a hint: an image that steers where things are, such as outlines, depth or a mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor

from inkdrop.conditioners.base import Conditioner
from inkdrop.denoiser import Condition
from inkdrop.files.pictures import read_in_turn
from inkdrop.randomness import Generators, sent


class Hint(Conditioner):
    """Passes an image (B, C, *) of a fixed size on as `door`; uint8 is mapped to [-1, 1], other numbers are unchanged.

    Where it is emptied all is 0. Guidance keeps it unless it is named.

    - `name`: the key of the images in a raw batch.
    - `door`: the name under which the network receives it.
    - `shape`: the shape of an image without the batch.
    - `dropout`: the probability with which training empties it.

    Raises `ValueError` for images of another shape.
    """

    def __init__(self, name: str, door: str, shape: Sequence[int], dropout: Annotated[float, Ge(0), Le(1)] = 0.0):
        super().__init__()
        self.names, self.images = (name,), (name,)
        self.door, self.shape, self.dropout = door, list(shape), dropout

    @property
    def emptied(self) -> tuple[str, ...]:
        return ()

    @property
    def dropouts(self) -> Mapping[str, float]:
        return dict.fromkeys(self.names, self.dropout)

    def condition(self, batch: Mapping[str, Tensor], dropped: Mapping[str, Tensor]) -> Condition:
        (name,) = self.names
        images = batch[name]
        if list(images.shape[1:]) != self.shape:
            raise ValueError(
                f"{name} has the shape {list(images.shape[1:])}, but the adapter takes {self.shape}: set the "
                "shape of the adapter, or scale the image"
            )
        hint = images.float() / 127.5 - 1 if images.dtype == torch.uint8 else images.float()
        if name in dropped:
            hint = hint * ~sent(dropped[name], hint.device).reshape(-1, *[1] * (hint.dim() - 1))
        return {self.door: hint}

    def dropped(self, generators: Generators) -> dict[str, Tensor]:
        return super().dropped(generators.at(self.door))

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """Returns the images of these seeds from a file, from files that samples take in turn, or from (B, C, *)."""
        (name,) = self.names
        self.require_known(condition)
        wanted = condition.get(name)
        if isinstance(wanted, Tensor):
            return {name: wanted}
        if not wanted:
            raise ValueError(f"the model needs condition.{name}: name a picture, or a .npy or .npz file")
        images = read_in_turn(wanted, f"condition.{name}", seeds, len(self.shape))
        if self.shape[0] == 1 and images.shape[1] == 3:  # a grey picture that was saved in colour
            images = images.float().mean(1, keepdim=True).round().to(images.dtype)
        self.condition({name: images[:1]}, {})
        return {name: images}

    def example(self, count: int) -> dict[str, Tensor]:
        return {name: torch.zeros(count, *self.shape) for name in self.names}
