"""The error of samples that have a true answer: images of degraded images, forecasts."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    compared with held-out item i mod M; several samples of an item count each, and not by their mean. `baseline_field`
    names a field of the data of the shape of x, such as a degraded image, whose error is the baseline; images of lower
    resolution are enlarged to that of x by bicubic interpolation. Null means none. Raises `ValueError` if there is
    no such field.
    """

    baseline_field: str | None = None

    needs: ClassVar[frozenset[str]] = frozenset({"items"})
    paired: ClassVar[bool] = True

    def check(self, held_out: Split, reference: Split, extractor: Extractor) -> None:
        super().check(held_out, reference, extractor)
        require_baseline(self.baseline_field, held_out, "the root mean square error")

    def baseline(self, items: Batch, generators: Generators) -> Tensor | None:
        return degraded(self.baseline_field, items)

    def __call__(self, samples: Extracted, reference: Extracted, held_out: Extracted, extractor: Extractor) -> Results:
        total, count = 0.0, 0
        for positions in torch.arange(samples.count).split(_BATCH):
            truth = held_out.items["x"][positions % held_out.count].double()
            difference = samples.items["x"][positions].double() - truth
            require_finite(difference, "rmse: the differences of samples", positions.tolist())
            total, count = total + float(difference.square().sum()), count + difference.numel()
        return {"rmse": math.sqrt(total / count)}


def require_baseline(name: str | None, held_out: Split, what: str) -> None:
    """Raises `ValueError` if a name is not None and not that of a field that `degraded` compares with x."""
    if name is None:
        return
    shape = tuple(held_out["x"].shape)
    known = [field for field, column in held_out.items() if field != "x" and _fits(tuple(column.shape), shape)]
    if name not in known:
        raise ValueError(
            f"baseline_field={name} of {what} is not a field of the data with the shape of x, nor images of lower "
            f"resolution (available: {', '.join(known) or 'none'}): set it to one of these, or to null"
        )


def degraded(name: str | None, items: Batch) -> Tensor | None:
    """Returns a field of items in the shape of x, with images of lower resolution enlarged; None without a name."""
    if name is None:
        return None
    field, x = items[name], items["x"]
    return field if field.shape == x.shape else enlarged(field, x.shape[2:])


def _fits(field: tuple[int, ...], x: tuple[int, ...]) -> bool:
    """Returns whether a field of this shape is comparable to x, or is images (N, C, h, w) that can be enlarged to x."""
    images = len(field) == len(x) == 4 and field[1] == x[1]
    return field == x or (images and field[2] <= x[2] and field[3] <= x[3])


def enlarged(images: Tensor, size: Sequence[int]) -> Tensor:
    """Returns images (B, C, *size) of the same type, by bicubic interpolation of images of lower resolution."""
    large = torch.nn.functional.interpolate(images.float(), tuple(size), mode="bicubic")
    return large.to(images.dtype) if images.is_floating_point() else large.round().clamp(0, 255).to(images.dtype)
