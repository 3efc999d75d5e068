"""How much the samples of one item differ from each other."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from inkdrop.data.loaders import Split
from inkdrop.metrics.extractors import Extractor
from inkdrop.metrics.metric import Extracted, Metric, Results
from inkdrop.metrics.paired import grouped, hole_of, require_mask


@dataclass(frozen=True)
class Diversity(Metric):
    """The root mean square difference of two samples of an item, averaged over pairs and items: `diversity`.

    It is in the unit of the data. 0 is a method that always returns the same; more is not better by itself. There is no
    baseline, and each item needs two samples (`evaluation.per_item`).

    - `mask_field`: for images, a field of masks; only the hole counts, where they are 0. Null is all of x.

    Raises `ValueError` if there is no such field.
    """

    mask_field: str | None = None

    needs: ClassVar[frozenset[str]] = frozenset({"items"})
    better: ClassVar[Literal["lower", "higher"]] = "higher"
    paired: ClassVar[bool] = True
    samples_per_item: ClassVar[int] = 2

    def check(self, held_out: Split, reference: Split, extractor: Extractor) -> None:
        super().check(held_out, reference, extractor)
        require_mask(self.mask_field, held_out, "the diversity")

    def __call__(self, samples: Extracted, reference: Extracted, held_out: Extracted, extractor: Extractor) -> Results:
        values = []
        for items, x, truth in grouped(samples, held_out, "diversity"):
            hole = hole_of(self.mask_field, held_out.items, items, truth).flatten(1)
            for first, second in itertools.combinations(x.flatten(2).unbind(1), 2):
                squares = torch.where(hole, (first - second).square(), 0.0).sum(1) / hole.sum(1)
                values.append(squares.sqrt())
        return {"diversity": float(torch.cat(values).nanmean())}
