"""Extractors with published weights of large networks: CLIP and DINOv2, by transformers."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from inkdrop.metrics.extractors import Extractor, require_images


class _Transformer(Extractor):
    """A published network of transformers, from a folder of its weights or from transformers' cache."""

    PUBLISHED: ClassVar[str]  # name of the weights on the Hub
    MEAN: ClassVar[tuple[float, float, float]]  # of red, green and blue, which the network expects to be subtracted
    DEVIATION: ClassVar[tuple[float, float, float]]
    resize = "bicubic, antialiased"
    SIZE: ClassVar[int | None] = None  # of images; None is the size in the configuration

    def __init__(self, path: str | None = None):
        super().__init__()
        self._path = path

    def read(self) -> None:
        path = self._path
        try:
            import transformers
        except ImportError:
            raise ValueError(
                f"extractor={self.name} needs transformers: run `pip install 'inkdrop[features]'`"
            ) from None
        if path is not None and not (Path(path) / "config.json").is_file():
            raise ValueError(f"extractor.path={path} holds no config.json: put the files of {self.PUBLISHED} there")
        kind: Any = getattr(transformers, self.network_name)
        try:
            self.network = kind.from_pretrained(
                path or self.PUBLISHED, local_files_only=True, weights_only=True, trust_remote_code=False
            )
        except Exception as error:  # transformers can raise errors of any type on a foreign folder
            where = path or "transformers' cache"
            raise ValueError(
                f"the weights of extractor {self.name} cannot be read from {where} ({str(error).splitlines()[0]}): "
                f"download them once with `hf download {self.PUBLISHED}`, or set extractor.path=FOLDER"
            ) from None
        self.requires_grad_(False).eval()

    def absent(self) -> str:
        try:
            from huggingface_hub import try_to_load_from_cache
        except ImportError:
            return ""
        if self._path is not None or isinstance(try_to_load_from_cache(self.PUBLISHED, "config.json"), str):
            return ""
        return f"the weights of extractor {self.name} are not here: a run needs `hf download {self.PUBLISHED}`"

    @property
    def dim(self) -> int:  # type: ignore[override]
        """Number of features."""
        self.ready()
        return self.width(self.network.config)

    def prepared(self, data: Tensor) -> Tensor:
        """Returns images (B, C, H, W), uint8, as the network expects them: resized (bicubic, antialiased), scaled."""
        require_images(data, self.name)
        self.ready()
        size = self.SIZE or self.network.config.image_size
        images = data.expand(-1, 3, -1, -1).float()
        if tuple(images.shape[2:]) != (size, size):
            images = torch.nn.functional.interpolate(images, (size, size), mode="bicubic", antialias=True)
            images = images.round().clamp(0, 255)
        mean, deviation = (images.new_tensor(each)[:, None, None] for each in (self.MEAN, self.DEVIATION))
        return (images / 255 - mean) / deviation

    @property
    @abstractmethod
    def network_name(self) -> str:
        """Name of the class in transformers."""

    @abstractmethod
    def width(self, config: Any) -> int:
        """Returns the number of features of a network of this configuration."""


class CLIP(_Transformer):
    """Image embeddings of CLIP, scaled to length 1; the Gaussian discrepancy on them is `cmmd`.

    `path` is a folder with the weights that OpenAI published, or null for transformers' cache. If they cannot be read,
    `ready` raises `ValueError` with the place for them. Sources: Radford et al. 2021, arXiv 2103.00020; Jayasumana
    et al. 2024, arXiv 2401.09603.
    """

    name = "clip"
    network_name = "CLIPVisionModelWithProjection"
    PUBLISHED = "openai/clip-vit-large-patch14-336"
    MEAN = (0.48145466, 0.4578275, 0.40821073)
    DEVIATION = (0.26862954, 0.26130258, 0.27577711)

    def width(self, config: Any) -> int:
        return config.projection_dim

    def forward(self, data: Tensor) -> Tensor:
        return torch.nn.functional.normalize(self.network(pixel_values=self.prepared(data)).image_embeds, dim=1)


class DINOv2(_Transformer):
    """Features of DINOv2's class token, on which FD-DINOv2 (`fd_dinov2`) and KD-DINOv2 (`kd_dinov2`) are measured.

    `path` is a folder with the weights that Meta published, or null for transformers' cache. If they cannot be read,
    `ready` raises `ValueError` with the place for them. Sources: Oquab et al. 2023, arXiv 2304.07193; Stein et al.
    2023, arXiv 2306.04675.
    """

    name = "dinov2"
    network_name = "Dinov2Model"
    PUBLISHED = "facebook/dinov2-large"
    MEAN = (0.485, 0.456, 0.406)
    DEVIATION = (0.229, 0.224, 0.225)
    SIZE = 224  # the size of published features; the network was trained at 518

    def width(self, config: Any) -> int:
        return config.hidden_size

    def forward(self, data: Tensor) -> Tensor:
        return self.network(pixel_values=self.prepared(data)).last_hidden_state[:, 0]
