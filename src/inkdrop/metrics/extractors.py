"""What distances between images are measured on."""

from __future__ import annotations

import hashlib
import io
import math
from abc import abstractmethod
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge, Len
from torch import Tensor, nn

from inkdrop.files import open_regular
from inkdrop.files.showing import harmless


class Extractor(nn.Module):
    """Raw data (B, *) to features (B, dim); `name` stands in the names of what is measured on them.

    `resize` says how images of other sizes are brought to that of the network, and stands in the protocol. Weights are
    read when they are first needed, not when an extractor is made: a checkpoint may name one.
    """

    name: str
    dim: int
    resize: str = "none"
    _is_ready = False

    def ready(self) -> None:
        """Reads the weights, unless that was done; `ValueError` if they are absent or do not fit."""
        if not self._is_ready:
            self.read()
            self._is_ready = True

    def read(self) -> None:
        """Reads the weights, where there are any."""
        return

    def _apply(self, function: Any, recurse: bool = True) -> Extractor:
        self.ready()  # what comes later would stay behind
        return super()._apply(function, recurse)

    def __call__(self, data: Tensor) -> Tensor:
        """Features (B, dim) of raw data (B, *)."""
        self.ready()
        return super().__call__(data)

    @abstractmethod
    def forward(self, data: Tensor) -> Tensor:
        """Features (B, dim) of raw data (B, *)."""

    def logits(self, features: Tensor) -> Tensor:
        """Class scores (B, K) of features (B, dim); `ValueError` if the extractor knows no classes."""
        raise ValueError(f"extractor {self.name} knows no classes: choose a classifier, such as inception or mnist")

    def untrained(self) -> Classifier:
        """A classifier of the same layout with random weights; `ValueError` if the extractor cannot be fitted."""
        raise ValueError(
            f"extractor {self.name} is no classifier that can be fitted: choose one, such as digits or mnist"
        )

    @torch.no_grad()
    def check(self, data: Tensor) -> None:
        """`ValueError` unless it makes `dim` features of raw data (B, *) like these."""
        found = self(data.to(self.device)).shape[1]
        if found != self.dim:
            raise ValueError(
                f"extractor {self.name} makes {found} features of data of shape {list(data.shape[1:])}, and not "
                f"extractor.dim={self.dim}: set extractor.dim={found}, or choose another extractor"
            )

    @property
    def device(self) -> torch.device:
        """Where its weights are, or the CPU if it has none."""
        self.ready()
        return next(self.parameters(), torch.empty(0)).device

    def digest(self) -> str:
        """SHA-256 of the kind and the weights: equal digests give equal features."""
        self.ready()
        digest = hashlib.sha256(type(self).__name__.encode())
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


class Identity(Extractor):
    """The data themselves, flattened: `dim` numbers, or the product of these."""

    name = "raw"

    def __init__(self, dim: Annotated[int, Ge(1)] | Annotated[list[Annotated[int, Ge(1)]], Len(1)]):
        super().__init__()
        self.dim = dim if isinstance(dim, int) else math.prod(dim)

    def forward(self, data: Tensor) -> Tensor:
        return data.flatten(1).float()


class Thumbnail(Extractor):
    """The mean levels, 0 to 255, of `size` x `size` parts of an image of any size, channel by channel."""

    name = "thumbnail"
    resize = "area"

    def __init__(self, channels: Annotated[int, Ge(1)], size: Annotated[int, Ge(1)] = 8):
        super().__init__()
        self.size, self.dim = size, channels * size**2

    def forward(self, data: Tensor) -> Tensor:
        require_images(data, self.name)
        return nn.functional.adaptive_avg_pool2d(data.float(), self.size).flatten(1)


class Classifier(Extractor):
    """A small convolutional classifier of uint8 images; its features are its last hidden layer.

    `stages` lists the channels of the 3 x 3 convolutions of each resolution, halved after each stage; `batch_norm`
    normalises each. `weights` is a file, or the name of one that comes with inkdrop, fitted by `python -m inkdrop
    make-extractor`; null leaves random weights. `ready` raises a `ValueError` if the file is absent or does not fit.
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
        return self.hidden(data.float() / 255)

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
        raise ValueError(f"extractor.weights={name} is no file: `python -m inkdrop make-extractor` makes one")
    try:
        weights = load(file.read_bytes())
    except SafetensorError as error:
        raise ValueError(f"extractor.weights={name} is no safetensors file: {error}") from None
    if {key: value.shape for key, value in weights.items()} != {key: value.shape for key, value in state.items()}:
        raise ValueError(
            f"extractor.weights={name} was fitted with another shape, classes, stages or dim: "
            "choose another extractor, or fit one with `python -m inkdrop make-extractor`"
        )
    return weights


class Inception(Extractor):
    """The Inception network of the published FID, by torch-fidelity; only what is measured on it is called FID.

    Takes uint8 images (B, 3, H, W). `weights` is a file, or null for the published one, which is fetched when it is
    first needed. A `ValueError` of `ready` says which file goes where when it cannot be had.
    """

    name = "inception"
    dim = 2048
    resize = "bilinear of TensorFlow 1"  # without antialiasing, as in published values
    FILE = "weights-inception-2015-12-05-6726825d.pth"

    def __init__(self, weights: str | None = None):
        super().__init__()
        self._weights = weights

    def read(self) -> None:
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError:
            raise ValueError("extractor=inception needs torch-fidelity: pip install torch-fidelity") from None
        # torch-fidelity would unpickle whatever is in the file: it is given what was read as tensors alone.
        stream = io.BytesIO()
        torch.save(self._tensors(), stream)
        stream.seek(0)
        try:
            self.network = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=stream)
        except (RuntimeError, TypeError, AttributeError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"extractor.weights={self._weights} are not those of {self.FILE}: {reason}") from None
        self.requires_grad_(False).eval()

    def _tensors(self) -> Any:
        """The content of the file with the weights, as tensors and plain data."""
        file = Path(self._weights) if self._weights is not None else self._published()
        if not file.is_file():
            raise ValueError(f"extractor.weights={file} is not a file: put {self.FILE} there")
        try:
            with open_regular(file) as stream:  # the published file is older than torch's archives
                return torch.load(stream, map_location="cpu", weights_only=True)
        except Exception as error:  # the unpickler runs into anything on a foreign file
            raise ValueError(f"extractor.weights={harmless(file)} holds no weights: {type(error).__name__}") from None

    def _published(self) -> Path:
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

        place = Path(torch.hub.get_dir()) / "checkpoints" / self.FILE
        if not place.is_file():
            digest = place.stem.rpartition("-")[2]
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                torch.hub.download_url_to_file(URL_INCEPTION_V3, str(place), hash_prefix=digest)
            except (OSError, RuntimeError) as error:
                raise ValueError(
                    f"Inception's weights cannot be downloaded ({error}): put {self.FILE} of torch-fidelity's releases "
                    f"at {place}, or set extractor.weights=FILE"
                ) from None
        return place

    def forward(self, data: Tensor) -> Tensor:
        require_images(data, self.name)
        return self.network(data.expand(-1, 3, -1, -1))[0]

    def logits(self, features: Tensor) -> Tensor:
        return features @ self.network.fc.weight.T  # the Inception score is defined without the bias


def require_images(data: Tensor, name: str) -> None:
    """`ValueError` unless data are uint8 images (B, C, H, W): others have been scaled in a way nobody knows."""
    if data.dtype != torch.uint8 or data.dim() != 4:
        raise ValueError(f"extractor {name} takes uint8 images (B, C, H, W), not {data.dtype} {tuple(data.shape)}")
