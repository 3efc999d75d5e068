"""What distances between images are measured on."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from importlib import resources
from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn


class Extractor(nn.Module):
    """Raw data (B, *) to features (B, dim). `metric` names the distance taken on them."""

    metric: str
    dim: int

    @abstractmethod
    def forward(self, data: Tensor) -> Tensor:
        """Features (B, dim) of raw data (B, *)."""

    def digest(self) -> str:
        """SHA-256 of the kind and the weights: equal digests give equal features."""
        digest = hashlib.sha256(type(self).__name__.encode())
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


class Identity(Extractor):
    """The data themselves, flattened."""

    metric = "fd_raw"

    def __init__(self, dim: Annotated[int, Ge(1)]):
        super().__init__()
        self.dim = dim

    def forward(self, data: Tensor) -> Tensor:
        return data.flatten(1).float()


class DigitsClassifier(Extractor):
    """A small convolutional classifier of 8 x 8 digits; its features are its last hidden layer.

    The weights that come with inkdrop were fitted by `python -m inkdrop make-extractor` on the split of that name,
    which neither models nor distances see. Without `pretrained` the weights are random.
    """

    metric = "fd_digits"
    dim = 64

    def __init__(self, pretrained: bool = True):
        super().__init__()
        self.hidden = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(256, self.dim),
            nn.ReLU(),
        )
        self.classes = nn.Linear(self.dim, 10)
        if pretrained:
            from safetensors.torch import load

            weights = resources.files("inkdrop.metrics").joinpath("digits.safetensors").read_bytes()
            self.load_state_dict(load(weights))
        self.requires_grad_(not pretrained).train(not pretrained)

    def forward(self, data: Tensor) -> Tensor:
        return self.hidden(data.float() / 255)

    def logits(self, data: Tensor) -> Tensor:
        """Class scores (B, 10)."""
        return self.classes(self(data))


class Inception(Extractor):
    """The Inception network of the published FID, by torch-fidelity; only what is measured on it is called FID.

    Takes uint8 images (B, 3, H, W). `weights` is a file, or null for torch-fidelity's own download. `ValueError` says
    which file goes where when it cannot be had.
    """

    metric = "fid"
    dim = 2048
    FILE = "weights-inception-2015-12-05-6726825d.pth"

    def __init__(self, weights: str | None = None):
        super().__init__()
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError:
            raise ValueError("extractor=inception needs torch-fidelity: pip install torch-fidelity") from None
        place = Path(torch.hub.get_dir()) / "checkpoints" / self.FILE
        if weights is not None and not Path(weights).is_file():
            raise ValueError(f"extractor.weights={weights} is not a file: put {self.FILE} there")
        try:
            self.network = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=weights)
        except OSError as error:
            raise ValueError(
                f"Inception's weights cannot be downloaded ({error}): put {self.FILE} of torch-fidelity's releases "
                f"at {place}, or set extractor.weights=FILE"
            ) from None
        self.requires_grad_(False).eval()

    def forward(self, data: Tensor) -> Tensor:
        if data.dtype != torch.uint8 or data.dim() != 4:
            raise ValueError(f"FID is measured on uint8 images (B, C, H, W), not on {data.dtype} {tuple(data.shape)}")
        return self.network(data.expand(-1, 3, -1, -1))[0]
