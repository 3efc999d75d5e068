"""How far apart samples and the images that they should be are in the features of an extractor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from inkdrop.data.loaders import Split
from inkdrop.metrics.extractors import Extractor
from inkdrop.metrics.paired import Features, PairedMetric


@dataclass(frozen=True)
class PerceptualDistance(PairedMetric):
    """The Euclidean distance of the features of each sample from those of its item: `perceptual_{extractor}`.

    It is `|f(x) - f(y)|` of the features f of the extractor, without weights of layers or channels; it is not LPIPS,
    and values on different extractors are not comparable. With a mask, pixels outside the hole are first replaced by
    those of the item. The ensemble is the mean of the samples of an item, rounded where the data are whole numbers.
    """

    def check(self, held_out: Split, reference: Split, extractor: Extractor) -> None:
        super().check(held_out, reference, extractor)
        if not extractor.dim:
            raise ValueError("the perceptual distance needs features: choose an extractor, such as extractor=thumbnail")

    def name(self, extractor: Extractor) -> str:
        return f"perceptual_{extractor.name}"

    def compared(self, x: Tensor, truth: Tensor, hole: Tensor, features: Features) -> Tensor:
        distance = (features(torch.where(hole, x, truth)) - features(truth)).norm(dim=1)
        return torch.where(hole.flatten(1).any(1), distance, torch.nan)
