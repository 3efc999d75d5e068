"""The conditioner of images: a low-resolution image to enlarge, a sketch, a depth map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import PIL.Image
import torch
from annotated_types import Ge, Le, Len
from torch import Tensor, nn

from inkdrop.conditioners.base import Conditioner
from inkdrop.denoiser import Condition
from inkdrop.errors import UnreadableError
from inkdrop.files import open_regular
from inkdrop.files.arrays import Npz, map_npy
from inkdrop.files.showing import harmless

_MODES = {1: "L", 3: "RGB"}


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
        name, path = f"condition.{self.names[0]}={file}", Path(file)
        try:
            array = _array(path) if path.suffix in (".npy", ".npz") else _picture(path, self.concat_channels - 1)
        except FileNotFoundError:
            raise ValueError(f"{name} does not exist") from None
        except UnreadableError as error:
            raise ValueError(f"condition.{self.names[0]}={error}") from None
        except Exception as error:  # image libraries raise any kind of error on a foreign file
            raise ValueError(f"{name} cannot be read: {harmless(str(error) or type(error).__name__)}") from None
        floats = array.dtype.kind == "f"
        if not floats and array.dtype != np.uint8:
            raise ValueError(f"{name} holds {array.dtype}: convert it to uint8, 0 to 255, or to floats")
        if floats and not np.isfinite(array).all():
            raise ValueError(f"{name} holds numbers that are not finite: replace them")
        tensor = torch.from_numpy(array.astype(np.float32 if floats else np.uint8))
        return tensor if tensor.ndim == len(self.sizes) + 2 else tensor[None]


def _array(path: Path) -> np.ndarray:
    """Reads the only array of a numpy file."""
    if path.suffix == ".npy":
        return map_npy(path)
    arrays = Npz(path)
    if len(arrays) != 1:
        raise ValueError(f"it holds {len(arrays)} arrays, {', '.join(arrays)}: keep one of them")
    return next(iter(arrays.values()))


def _picture(path: Path, channels: int) -> np.ndarray:
    """Reads the pixels (C, H, W) of a picture, in greyscale if C = 1 and in RGB if C = 3."""
    if channels not in _MODES:
        raise ValueError(f"a picture has 1 or 3 channels, not {channels}: use a .npy file")
    with open_regular(path) as file, PIL.Image.open(file) as picture:
        if picture.mode.startswith(("I", "F")):
            raise ValueError(
                f"its pixels have more than 8 bits ({picture.mode}): convert it to 8 bits, or use a .npy file"
            )
        pixels = np.asarray(picture.convert(_MODES[channels]))
    return pixels.reshape(*pixels.shape[:2], channels).transpose(2, 0, 1)
