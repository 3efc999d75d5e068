"""The error of samples that have a true answer: images of degraded images, forecasts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from inkdrop.data.loaders import Batch, Split
from inkdrop.errors import require_finite
from inkdrop.metrics.extractors import Extractor
from inkdrop.metrics.metric import Extracted, Metric, Results
from inkdrop.randomness import Generators

_BATCH = 256  # samples compared at a time


@dataclass(frozen=True)
class RootMeanSquareError(Metric):
    """The root mean square difference of samples from the held-out items under whose conditions they are made: `rmse`.

    The mean is over all elements of all samples, in the unit of the data: grey levels for images of 8 bits. Sample i is
    compared with held-out item i mod M. `baseline_field` names a field of the data of the shape of x, such as a
    degraded image, whose error is the baseline; null: without one. Raises `ValueError` if there is no such field.
    """

    baseline_field: str | None = None

    needs: ClassVar[frozenset[str]] = frozenset({"items"})
    paired: ClassVar[bool] = True

    def check(self, held_out: Split, reference: Split, extractor: Extractor) -> None:
        super().check(held_out, reference, extractor)
        if (name := self.baseline_field) is None:
            return
        known = [field for field, column in held_out.items() if field != "x" and column.shape == held_out["x"].shape]
        if name not in known:
            raise ValueError(
                f"baseline_field={name} of the root mean square error is not a field of the data with the shape of x "
                f"(available: {', '.join(known) or 'none'}): set it to one of these, or to null"
            )

    def baseline(self, items: Batch, generators: Generators) -> Tensor | None:
        return None if self.baseline_field is None else items[self.baseline_field]

    def __call__(self, samples: Extracted, reference: Extracted, held_out: Extracted, extractor: Extractor) -> Results:
        total, count = 0.0, 0
        for positions in torch.arange(samples.count).split(_BATCH):
            truth = held_out.items["x"][positions % held_out.count].double()
            difference = samples.items["x"][positions].double() - truth
            require_finite(difference, "rmse: the differences of samples", positions.tolist())
            total, count = total + float(difference.square().sum()), count + difference.numel()
        return {"rmse": math.sqrt(total / count)}
