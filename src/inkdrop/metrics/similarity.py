"""How similar samples are to the images that they should be: PSNR and SSIM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, cast

import torch
from annotated_types import Gt
from torch import Tensor

from inkdrop.data.loaders import Split
from inkdrop.metrics.extractors import Extractor
from inkdrop.metrics.paired import Features, PairedMetric

_EXACT = 100.0  # decibels of an image without an error, whose logarithm is infinite


def _require_range(data_range: float | None, held_out: Split, what: str) -> None:
    if data_range is None and held_out["x"].dtype != torch.uint8:
        raise ValueError(f"{what} needs the range of the data, which only images of 8 bits have: set data_range")


@dataclass(frozen=True)
class PeakSignalNoiseRatio(PairedMetric):
    """The peak signal-to-noise ratio in decibels, `10 log10(r^2 / MSE)` of each image: `psnr`.

    The ensemble is the mean of the samples of an item. An image counts as 100 dB at most.

    - `data_range`: the range r of the data; null is 255, of images of 8 bits.
    """

    data_range: Annotated[float, Gt(0)] | None = None

    better: ClassVar[Literal["lower", "higher"]] = "higher"
    title: ClassVar[str] = "psnr"

    def check(self, held_out: Split, reference: Split, extractor: Extractor) -> None:
        super().check(held_out, reference, extractor)
        _require_range(self.data_range, held_out, "the peak signal-to-noise ratio")

    def compared(self, x: Tensor, truth: Tensor, hole: Tensor, features: Features) -> Tensor:
        squares = torch.where(hole, (x - truth).square(), 0.0).sum((1, 2, 3)) / hole.sum((1, 2, 3))
        return (10 * torch.log10((self.data_range or 255.0) ** 2 / squares)).clamp(max=_EXACT)


@dataclass(frozen=True)
class StructuralSimilarity(PairedMetric):
    """The structural similarity of each image, by torchmetrics, with Gaussian windows: `ssim`.

    Without a mask, pixels nearer to the border than half a window do not count, as is usual; with a mask all pixels of
    the hole count, and the image is mirrored at its border. Source: Wang et al. 2004, IEEE Trans. Image Process. 13.

    - `sigma`: deviation of the window in pixels; it has `2 floor(3.5 sigma + 0.5) + 1` pixels, 11 by default.
    - `data_range`: the range of the data; null is 255, of images of 8 bits.

    Raises `ValueError` also for images that are not larger than a window.
    """

    sigma: Annotated[float, Gt(0)] = 1.5
    data_range: Annotated[float, Gt(0)] | None = None

    better: ClassVar[Literal["lower", "higher"]] = "higher"
    title: ClassVar[str] = "ssim"

    def check(self, held_out: Split, reference: Split, extractor: Extractor) -> None:
        super().check(held_out, reference, extractor)
        _require_range(self.data_range, held_out, "the structural similarity")
        window = 2 * int(3.5 * self.sigma + 0.5) + 1
        if min(held_out["x"].shape[2:]) <= window:
            raise ValueError(
                f"the structural similarity needs images of more than {window} pixels, not "
                f"{list(held_out['x'].shape[2:])}: lower sigma={self.sigma}"
            )

    def compared(self, x: Tensor, truth: Tensor, hole: Tensor, features: Features) -> Tensor:
        from torchmetrics.functional.image import structural_similarity_index_measure as ssim

        levels = self.data_range or 255.0
        result = ssim(x, truth, sigma=self.sigma, reduction="none", data_range=levels, return_full_image=True)
        values, full = cast(tuple[Tensor, Tensor], result)
        if self.mask_field is None:
            return values
        return torch.where(hole, full, 0.0).sum((1, 2, 3)) / hole.sum((1, 2, 3))
