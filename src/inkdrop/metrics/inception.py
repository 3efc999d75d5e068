"""The network of the published FID."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inkdrop.files import open_regular
from inkdrop.files.showing import harmless
from inkdrop.metrics.extractors import Extractor, require_images


class Inception(Extractor):
    """The Inception network of the published FID, by torch-fidelity; only distances on it are called FID.

    It takes uint8 images (B, C, H, W) with C = 1 or 3. `weights` is a file, or null for the published one, which is
    downloaded when it is first needed. If that fails, `ready` raises `ValueError` with the place for the file.
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
            raise ValueError("extractor=inception needs torch-fidelity: run `pip install torch-fidelity`") from None
        # torch-fidelity would unpickle the file, so it receives tensors that were read without unpickling.
        stream = io.BytesIO()
        torch.save(self._tensors(), stream)
        stream.seek(0)
        try:
            self.network = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=stream)
        except (RuntimeError, TypeError, AttributeError) as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"extractor.weights={self._weights} does not hold those of {self.FILE}: {reason}"
            ) from None
        self.requires_grad_(False).eval()

    def _tensors(self) -> Any:
        """The content of the file with the weights, as tensors and plain data."""
        file = Path(self._weights) if self._weights is not None else self._published()
        if not file.is_file():
            raise ValueError(f"extractor.weights={file} is not a file: put {self.FILE} there")
        try:
            with open_regular(file) as stream:  # the published file is older than torch's archives
                return torch.load(stream, map_location="cpu", weights_only=True)
        except Exception as error:  # reading a foreign file can raise errors of any type
            raise ValueError(f"extractor.weights={harmless(file)} holds no weights: {type(error).__name__}") from None

    @property
    def _place(self) -> Path:
        return Path(torch.hub.get_dir()) / "checkpoints" / self.FILE

    def absent(self) -> str:
        if self._weights is not None or self._place.is_file():
            return ""
        return f"Inception's weights are not at {self._place}: a run downloads them there"

    def _published(self) -> Path:
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

        place = self._place
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
