"""How much samples of masks overlap with those that they should be: IoU, Dice, and the distance to annotators."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from inkdrop.data.loaders import Split
from inkdrop.metrics.extractors import Extractor
from inkdrop.metrics.metric import Extracted, Metric, Results
from inkdrop.metrics.paired import Features, PairedMetric, grouped, hole_of, require_mask


@dataclass(frozen=True)
class Overlap(PairedMetric):
    """An overlap of masks, which are where the data are above `threshold`; that of two empty masks is 1.

    The ensemble is the vote: where at least half of the samples of an item are above the threshold.

    - `threshold`: in the unit of the data, 127.5 for images of 8 bits.
    """

    threshold: float = 127.5

    better: ClassVar[Literal["lower", "higher"]] = "higher"

    @abstractmethod
    def overlap(self, both: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Returns the overlap (B) of masks with so many pixels (B) in both, in the first and in the second."""

    def together(self, samples: Tensor) -> Tensor:
        share = (samples > self.threshold).double().mean(1)
        return torch.where(share >= 0.5, torch.inf, -torch.inf)

    def compared(self, x: Tensor, truth: Tensor, hole: Tensor, features: Features) -> Tensor:
        first, second = ((each > self.threshold) & hole for each in (x, truth))
        counts = (each.sum((1, 2, 3)).double() for each in (first & second, first, second))
        values = self.overlap(*counts)
        values = torch.where(first.flatten(1).any(1) | second.flatten(1).any(1), values, 1.0)
        return torch.where(hole.flatten(1).any(1), values, torch.nan)


@dataclass(frozen=True)
class IntersectionOverUnion(Overlap):
    """The intersection over union of each mask, averaged over masks: `iou`; for masks as `Overlap` reads them."""

    title: ClassVar[str] = "iou"

    def overlap(self, both: Tensor, first: Tensor, second: Tensor) -> Tensor:
        return both / (first + second - both)


@dataclass(frozen=True)
class Dice(Overlap):
    """The Dice coefficient of each mask, twice the intersection over the sum, averaged over masks: `dice`."""

    title: ClassVar[str] = "dice"

    def overlap(self, both: Tensor, first: Tensor, second: Tensor) -> Tensor:
        return 2 * both / (first + second)


@dataclass(frozen=True)
class GeneralizedEnergyDistance(Metric):
    """The generalised energy distance of samples of masks to those of several annotators of the same item: `ged`.

    `2 E d(S, Y) - E d(S, S') - E d(Y, Y')` with d = 1 - IoU, where S and S' are any two samples of an item and Y and Y'
    any two annotators, equal ones included; the mean is over items. Two empty masks have the distance 0. It is 0 if
    samples are distributed like annotators, for which `evaluation.per_item` must be large. Source: Kohl et al. 2018,
    arXiv 1806.05034.

    - `field`: the field of the annotators' masks (N, A, H, W), where x is (N, 1, H, W).
    - `threshold`: the data are in a mask above it.
    - `mask_field`: as in `PairedMetric`.

    Raises `ValueError` if there is no such field.
    """

    field: str = "annotators"
    threshold: float = 127.5
    mask_field: str | None = None

    needs: ClassVar[frozenset[str]] = frozenset({"items"})
    paired: ClassVar[bool] = True

    def check(self, held_out: Split, reference: Split, extractor: Extractor) -> None:
        super().check(held_out, reference, extractor)
        shape = tuple(held_out["x"].shape)
        if len(shape) != 4 or shape[1] != 1:
            raise ValueError(
                f"the generalised energy distance is for masks [1, H, W], not for {list(shape[1:])}: set metric"
            )
        require_mask(self.mask_field, held_out, "the generalised energy distance")
        known = [name for name, each in held_out.items() if name != "x" and tuple(each.shape[2:]) == shape[2:]]
        if self.field not in known:
            raise ValueError(
                f"field={self.field} of the generalised energy distance is not a field of masks of the size of x "
                f"(available: {', '.join(known) or 'none'}): set it to one of these"
            )

    def __call__(self, samples: Extracted, reference: Extracted, held_out: Extracted, extractor: Extractor) -> Results:
        distances = []
        for items, x, truth in grouped(samples, held_out, "generalised energy distance"):
            hole = hole_of(self.mask_field, held_out.items, items, truth)
            drawn = (x[:, :, 0] > self.threshold) & hole
            marked = (held_out.items[self.field][items] > self.threshold) & hole
            pairs = [(drawn, marked), (drawn, drawn), (marked, marked)]
            across, within, between = (_distances(*pair).mean((1, 2)) for pair in pairs)
            value = 2 * across - within - between
            distances.append(torch.where(hole.flatten(1).any(1), value, torch.nan))
        return {"ged": float(torch.cat(distances).nanmean())}


def _distances(first: Tensor, second: Tensor) -> Tensor:
    """`1 - IoU` (B, K, A) of masks (B, K, H, W) and (B, A, H, W)."""
    a, b = (each.flatten(2).double() for each in (first, second))
    both = a @ b.transpose(1, 2)
    either = a.sum(2)[:, :, None] + b.sum(2)[:, None] - both
    return torch.where(either > 0, 1 - both / either.clamp(min=1), 0.0)
