"""Extractors: networks whose features distances between data are measured on."""

from __future__ import annotations

import hashlib
import math
from abc import abstractmethod
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Len
from torch import Tensor, nn

from inkdrop.data.loaders import Column


class Extractor(nn.Module):
    """Computes features (B, dim) of raw data (B, *); `name` is part of the names of results on them.

    `resize` says how images are resized to the size of the network, and is part of the protocol. Weights are read when
    they are first needed and not when an extractor is made, because a checkpoint may name an extractor.
    """

    name: str
    dim: int
    resize: str = "none"
    _is_ready = False

    def ready(self) -> None:
        """Reads the weights unless they were read before; raises `ValueError` if they are missing or do not fit."""
        if not self._is_ready:
            self.read()
            self._is_ready = True

    def read(self) -> None:
        """Reads the weights, if there are any."""
        return

    def absent(self) -> str:
        """Returns what a run says of published weights that are not on this machine, or nothing."""
        return ""

    def _apply(self, function: Any, recurse: bool = True) -> Extractor:
        self.ready()  # weights that are read later would stay on the old device
        return super()._apply(function, recurse)

    def __call__(self, data: Tensor) -> Tensor:
        """Returns features (B, dim) of raw data (B, *)."""
        self.ready()
        return super().__call__(data)

    def fit(self, train: Column) -> None:
        """Computes statistics of training items, from which the features are computed; most extractors have none."""
        return

    @abstractmethod
    def forward(self, data: Tensor) -> Tensor:
        """Returns features (B, dim) of raw data (B, *)."""

    def of_levels(self, levels: Tensor) -> Tensor:
        """Returns features (B, dim) of real numbers (B, *) in the unit of raw data, through which gradients pass.

        Raises `ValueError` if the extractor takes whole levels alone.
        """
        raise ValueError(
            f"extractor {self.name} has no gradient: choose another one, such as digits, mnist or thumbnail"
        )

    def logits(self, features: Tensor) -> Tensor:
        """Returns class scores (B, K) of features (B, dim); raises `ValueError` if the extractor has no classes."""
        raise ValueError(f"extractor {self.name} has no classes: choose a classifier, such as inception or mnist")

    def untrained(self) -> Classifier:
        """Returns a classifier of the same layout with random weights; raises `ValueError` if it cannot be fitted."""
        raise ValueError(
            f"extractor {self.name} is not a classifier that can be fitted: choose one, such as digits or mnist"
        )

    @torch.no_grad()
    def check(self, data: Tensor) -> None:
        """Raises `ValueError` unless the extractor makes `dim` features of raw data (B, *) like these."""
        dim = self(data.to(self.device)).shape[1]
        if dim != self.dim:
            raise ValueError(
                f"extractor {self.name} makes {dim} features of data of shape {list(data.shape[1:])}, but "
                f"extractor.dim={self.dim}: set extractor.dim={dim}, or choose another extractor"
            )

    @property
    def device(self) -> torch.device:
        """The device of the weights, or the CPU if there are none."""
        self.ready()
        return next(self.parameters(), torch.empty(0)).device

    def digest(self) -> str:
        """Returns the SHA-256 of the class and the weights: equal digests mean equal features."""
        self.ready()
        digest = hashlib.sha256(type(self).__name__.encode())
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


class Identity(Extractor):
    """The data themselves as features, flattened: for vectors and series; `dim` is their number or their shape."""

    name = "raw"

    def __init__(self, dim: Annotated[int, Ge(1)] | Annotated[list[Annotated[int, Ge(1)]], Len(1)]):
        super().__init__()
        self.dim = dim if isinstance(dim, int) else math.prod(dim)

    def forward(self, data: Tensor) -> Tensor:
        return self.of_levels(data.float())

    def of_levels(self, levels: Tensor) -> Tensor:
        return levels.flatten(1)


class NoFeatures(Extractor):
    """No features, for an evaluation without metrics or with metrics that use the items alone."""

    name, dim = "none", 0

    def forward(self, data: Tensor) -> Tensor:
        return data.new_zeros(len(data), 0, dtype=torch.float32)


class Thumbnail(Extractor):
    """Mean levels, 0 to 255, of `size` x `size` parts of each channel, for images of any size."""

    name = "thumbnail"
    resize = "area"

    def __init__(self, channels: Annotated[int, Ge(1)], size: Annotated[int, Ge(1)] = 8):
        super().__init__()
        self.size, self.dim = size, channels * size**2

    def forward(self, data: Tensor) -> Tensor:
        require_images(data, self.name)
        return self.of_levels(data.float())

    def of_levels(self, levels: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(levels, self.size).flatten(1)


class Classifier(Extractor):
    """A small convolutional classifier of uint8 images, whose features are its last hidden layer.

    - `name`: part of the names of results.
    - `shape`: [C, H, W] of the images.
    - `num_classes`: number of classes.
    - `stages`: channels of the 3 x 3 convolutions of each stage; the size is halved after each stage.
    - `dim`: number of features.
    - `batch_norm`: whether each convolution is normalised.
    - `weights`: a file that `python -m inkdrop make-extractor` wrote, or the name of one that is part of inkdrop; null
      is random weights.

    `ready` raises `ValueError` if the file is missing or does not fit.
    """

    def __init__(
        self,
        name: str,
        shape: Annotated[list[Annotated[int, Ge(1)]], Len(3, 3)],
        num_classes: Annotated[int, Ge(0)],
        stages: list[list[Annotated[int, Ge(1)]]],
        dim: Annotated[int, Ge(1)],
        batch_norm: bool,
        weights: str | None = None,
    ):
        super().__init__()
        self._layout, self._weights = (name, shape, num_classes, stages, dim, batch_norm), weights
        self.name, self.dim = name, dim
        channels, height, width = shape
        layers: list[nn.Module] = []
        for stage in stages:
            for wide in stage:
                layers.append(nn.Conv2d(channels, wide, 3, padding=1))
                layers += [nn.BatchNorm2d(wide), nn.ReLU()] if batch_norm else [nn.ReLU()]
                channels = wide
            layers.append(nn.MaxPool2d(2))
            height, width = height // 2, width // 2
        self.hidden = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * width, dim), nn.ReLU())
        self.classes = nn.Linear(dim, num_classes)

    def read(self) -> None:
        if self._weights is not None:
            self.load_state_dict(_read_weights(self._weights, self.state_dict()))
            self.requires_grad_(False).eval()

    def forward(self, data: Tensor) -> Tensor:
        require_images(data, self.name)
        return self.of_levels(data.float())

    def of_levels(self, levels: Tensor) -> Tensor:
        return self.hidden(levels / 255)

    def logits(self, features: Tensor) -> Tensor:
        return self.classes(features)

    def untrained(self) -> Classifier:
        return Classifier(*self._layout)


def _read_weights(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    shipped = resources.files("inkdrop.metrics").joinpath(name) if Path(name).name == name else Path(name)
    file = Path(name) if Path(name).is_file() else shipped
    if not file.is_file():
        raise ValueError(f"extractor.weights={name} is not a file: make one with `python -m inkdrop make-extractor`")
    try:
        weights = load(file.read_bytes())
    except SafetensorError as error:
        raise ValueError(f"extractor.weights={name} is not a safetensors file: {error}") from None
    if {key: value.shape for key, value in weights.items()} != {key: value.shape for key, value in state.items()}:
        raise ValueError(
            f"extractor.weights={name} was fitted with another shape, classes, stages or dim: "
            "choose another extractor, or fit one with `python -m inkdrop make-extractor`"
        )
    return weights


def require_images(data: Tensor, name: str) -> None:
    """Raises `ValueError` unless data are uint8 images (B, C, H, W), because the range of others is unknown."""
    if data.dtype != torch.uint8 or data.dim() != 4:
        raise ValueError(f"extractor {name} takes uint8 images (B, C, H, W), not {data.dtype} {tuple(data.shape)}")
