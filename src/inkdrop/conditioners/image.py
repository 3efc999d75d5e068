"""The conditioner of images: a low-resolution image to enlarge, a sketch, a depth map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le, Len
from torch import Tensor, nn

from inkdrop.conditioners.base import Conditioner
from inkdrop.denoiser import Condition
from inkdrop.files.pictures import read_images


class Image(Conditioner):
    """Passes an image (B, C, *) as concat (B, C + 1, *); the last channel is 1, and all are 0 where it is dropped.

    uint8 is mapped to [-1, 1], other numbers are unchanged. A smaller image is enlarged to the size of x by repeating
    its pixels. Series and volumes are images too.

    - `shape`: the shape of x without the batch.
    - `concat_channels`: C + 1.
    - `dropout`: the probability with which training drops the image of a sample.
    - `name`: the key of the images in a batch.

    Raises `ValueError` for another C, and for an image that is larger than x.
    """

    def __init__(
        self,
        shape: Annotated[list[Annotated[int, Ge(1)]], Len(2, 4)],
        concat_channels: Annotated[int, Ge(2)],
        dropout: Annotated[float, Ge(0), Le(1)] = 0.1,
        name: str = "image",
    ):
        super().__init__()
        self.sizes, self.concat_channels, self.dropout, self.names = list(shape[1:]), concat_channels, dropout, (name,)

    @property
    def dropouts(self) -> Mapping[str, float]:
        return {self.names[0]: self.dropout}

    def condition(self, batch: Mapping[str, Tensor], dropped: Mapping[str, Tensor]) -> Condition:
        (name,) = self.names
        image = self._enlarged(batch[name], name)
        concat = torch.cat([image, torch.ones_like(image[:, :1])], dim=1)
        if name in dropped:
            concat[dropped[name].to(concat.device)] = 0
        return {"concat": concat}

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """Returns a raw batch from a file, or from a list of files that samples take in turn.

        A file is a picture, or a .npy or .npz of one array (C, *) or (N, C, *) of uint8 or floats.
        """
        (name,) = self.names
        self.require_known(condition)
        wanted = condition.get(name)
        files: list[Any] = wanted if isinstance(wanted, list) else [wanted]
        if not files or not all(isinstance(file, str) for file in files):
            raise ValueError(f"condition.{name}={wanted} must be a file, or a list of files")
        images = torch.cat([self._enlarged(self._read(file), f"condition.{name}={file}") for file in files])
        return {name: images[[seed % len(images) for seed in seeds]]}

    def example(self, count: int) -> dict[str, Tensor]:
        return {self.names[0]: torch.zeros(count, self.concat_channels - 1, *self.sizes)}

    def _enlarged(self, images: Tensor, source: str) -> Tensor:
        """Returns images as floats of the size of x."""
        channels, *sizes = images.shape[1:]
        if len(sizes) != len(self.sizes) or channels != self.concat_channels - 1:
            raise ValueError(
                f"{source} has the shape {[channels, *sizes]}, but must have {self.concat_channels - 1} channels "
                f"in {len(self.sizes)} dimensions: set conditioner.concat_channels to its channels plus 1"
            )
        if any(size > most for size, most in zip(sizes, self.sizes, strict=True)):
            raise ValueError(f"{source} of size {sizes} is larger than the samples, {self.sizes}: scale it down")
        images = images.float() / 127.5 - 1 if images.dtype == torch.uint8 else images.float()
        return images if sizes == self.sizes else nn.functional.interpolate(images, self.sizes, mode="nearest")

    def _read(self, file: str) -> Tensor:
        """Reads the images (N, C, *) of a file."""
        return read_images(file, f"condition.{self.names[0]}", self.concat_channels - 1, len(self.sizes) + 1)
