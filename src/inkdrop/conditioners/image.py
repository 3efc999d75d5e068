"""The conditioner of images: a low-resolution image to enlarge, a sketch, a depth map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge, Le, Len, Lt
from torch import Tensor, nn

from inkdrop.conditioners.base import Conditioner
from inkdrop.denoiser import Condition
from inkdrop.files.pictures import read_images
from inkdrop.randomness import Generators, sent


class Image(Conditioner):
    """Passes an image (B, C, *) as concat (B, C + 1, *); the last channel is 1, and all are 0 where it is dropped.

    uint8 is mapped to [-1, 1], other numbers are unchanged. A smaller image is enlarged to the size of x. Series and
    volumes are images too.

    With `noise` above 0, training adds noise of a level s that is uniform in [0, noise] to the image y before it is
    enlarged, `sqrt(1 - s^2) y + s eps`, and one more channel is s, so that a model of a cascade forgives the errors of
    the one before it; sampling takes the level from `condition.NAME_noise`, by default 0.

    - `shape`: the shape of x without the batch.
    - `concat_channels`: C + 1, or C + 2 with noise.
    - `dropout`: the probability with which training drops the image of a sample.
    - `name`: the key of the images in a batch.
    - `noise`: the largest level s of the noise in training.
    - `enlargement`: how a smaller image is enlarged: by repeating its pixels, linearly, or by bicubic interpolation.

    Raises `ValueError` for another C, and for an image that is larger than x. Source of the noise: Ho et al. 2022,
    arXiv 2106.15282, section 4.2.
    """

    def __init__(
        self,
        shape: Annotated[list[Annotated[int, Ge(1)]], Len(2, 4)],
        concat_channels: Annotated[int, Ge(2)],
        dropout: Annotated[float, Ge(0), Le(1)] = 0.1,
        name: str = "image",
        noise: Annotated[float, Ge(0), Lt(1)] = 0.0,
        enlargement: Literal["nearest", "linear", "cubic"] = "nearest",
    ):
        super().__init__()
        self.sizes, self.concat_channels, self.dropout, self.noise = list(shape[1:]), concat_channels, dropout, noise
        self.channels = concat_channels - (2 if noise else 1)
        if not self.channels:
            raise ValueError(f"conditioner.concat_channels={concat_channels} must be the channels of the image plus 2")
        linear = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(self.sizes)]
        self.mode = {"nearest": "nearest", "linear": linear, "cubic": "bicubic"}[enlargement]
        if enlargement == "cubic" and len(self.sizes) != 2:
            raise ValueError("conditioner.enlargement=cubic is defined for images: choose linear or nearest")
        self.images = (name,)
        self.levels: tuple[str, ...] = (f"{name}_noise",) if noise else ()
        self.names = self.images + self.levels

    @property
    def dropouts(self) -> Mapping[str, float]:
        return dict.fromkeys(self.names, self.dropout)

    def dropped(self, generators: Generators) -> dict[str, Tensor]:
        return {name: each for name, each in super().dropped(generators).items() if name in self.images}

    def completed(self, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        (name,) = self.images
        return {**{level: torch.zeros(len(batch[name])) for level in self.levels if name in batch}, **batch}

    def vary(self, batch: Mapping[str, Tensor], generators: Generators) -> Mapping[str, Tensor]:
        if not self.noise:
            return batch
        (name,) = self.images
        level = self.noise * generators.at("level").uniform().float()
        return {**batch, **self._noised(batch[name], level, generators)}

    def _noised(self, images: Tensor, level: Tensor, generators: Generators) -> dict[str, Tensor]:
        """Returns the fields of images (B, C, *) with noise of the levels (B)."""
        images = _floats(images)
        eps = sent(generators.at("image").normal(images.shape[1:]), images.device)
        name, level_name, level = self.images[0], self.levels[0], sent(level, images.device)
        s = level.reshape(-1, *[1] * (images.dim() - 1))
        return {name: (1 - s**2).sqrt() * images + s * eps, level_name: level}

    def condition(self, batch: Mapping[str, Tensor], dropped: Mapping[str, Tensor]) -> Condition:
        (name,) = self.images
        image = self._enlarged(batch[name], name)
        ones = torch.ones_like(image[:, :1])
        levels = [batch[level].to(image).reshape(-1, *[1] * (image.dim() - 1)) * ones for level in self.levels]
        concat = torch.cat([image, ones, *levels], dim=1)
        if name in dropped:
            concat[sent(dropped[name], concat.device)] = 0
        return {"concat": concat}

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """Returns a raw batch from a file, from a list of files that samples take in turn, or from a tensor (B, C, *).

        A file is a picture, or a .npy or .npz of one array (C, *) or (N, C, *) of uint8 or floats.
        """
        (name,) = self.images
        self.require_known(condition)
        images = self._requested(condition.get(name), seeds)
        if not self.levels:
            return {name: images}
        level = condition.get(self.levels[0])
        level = 0.0 if level is None else level
        if type(level) not in (int, float) or not 0 <= level <= self.noise:
            raise ValueError(
                f"condition.{self.levels[0]}={level} must be from 0 to {self.noise}, the largest level in training"
            )
        streams = Generators.from_seeds(seeds).at("condition")
        return self._noised(images, torch.full((len(images),), float(level)), streams)

    def _requested(self, wanted: Any, seeds: Sequence[int]) -> Tensor:
        (name,) = self.images
        if isinstance(wanted, Tensor):
            if len(wanted) != len(seeds):
                raise ValueError(f"condition.{name} has {len(wanted)} rows for {len(seeds)} samples: give one for each")
            self._enlarged(wanted[:1], f"condition.{name}")
            return wanted
        files: list[Any] = wanted if isinstance(wanted, list) else [wanted]
        if not files or not all(isinstance(file, str) for file in files):
            raise ValueError(f"condition.{name}={wanted} must be a file, or a list of files")
        parts = [_floats(self._read(file)) for file in files]
        enlarged = [self._enlarged(part, f"condition.{name}={file}") for file, part in zip(files, parts, strict=True)]
        if self.levels and len({part.shape for part in parts}) > 1:
            raise ValueError(f"the files of condition.{name} have different shapes: make them equal")
        images = torch.cat(parts if self.levels else enlarged)  # noise is added before the image is enlarged
        return images[[seed % len(images) for seed in seeds]]

    def example(self, count: int) -> dict[str, Tensor]:
        images = {name: torch.zeros(count, self.channels, *self.sizes) for name in self.images}
        return {**images, **{level: torch.zeros(count) for level in self.levels}}

    def _enlarged(self, images: Tensor, source: str) -> Tensor:
        """Returns images as floats of the size of x."""
        channels, *sizes = images.shape[1:]
        if len(sizes) != len(self.sizes) or channels != self.channels:
            raise ValueError(
                f"{source} has the shape {[channels, *sizes]}, but must have {self.channels} channels in "
                f"{len(self.sizes)} dimensions: set conditioner.concat_channels to its channels plus "
                f"{self.concat_channels - self.channels}"
            )
        if any(size > most for size, most in zip(sizes, self.sizes, strict=True)):
            raise ValueError(f"{source} of size {sizes} is larger than the samples, {self.sizes}: scale it down")
        images = _floats(images)
        return images if sizes == self.sizes else nn.functional.interpolate(images, self.sizes, mode=self.mode)

    def _read(self, file: str) -> Tensor:
        """Reads the images (N, C, *) of a file."""
        return read_images(file, f"condition.{self.images[0]}", self.channels, len(self.sizes) + 1)


def _floats(images: Tensor) -> Tensor:
    """Returns images as floats, of which those of 8 bits are in [-1, 1]."""
    return images.float() / 127.5 - 1 if images.dtype == torch.uint8 else images.float()
