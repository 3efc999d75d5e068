"""Whether samples agree with the degraded images from which they were made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from inkdrop.data.loaders import Batch, Derive, Split
from inkdrop.metrics.extractors import Extractor
from inkdrop.metrics.metric import Extracted, Metric, Results
from inkdrop.metrics.paired import grouped
from inkdrop.metrics.rmse import degraded, require_baseline
from inkdrop.randomness import Generators


@dataclass(frozen=True)
class Consistency(Metric):
    """The mean square difference of degraded samples from the degraded image that they enlarge: `consistency`.

    Images of 8 bits count in [-1, 1], as a model sees them, and others in their own unit; degraded samples are not
    rounded where the degradation is by means. 0 is a sample that would look the same.

    - `field`: the field of the degraded images.
    - `degradation`: how they were made of x; null is by means of squares, as `Downscale` does.
    - `baseline_field`: as in `PairedMetric`.

    Raises `ValueError` if there is no such field, or if the degradation makes images of another shape.
    """

    field: str = "image"
    degradation: Derive | None = None
    baseline_field: str | None = None

    needs: ClassVar[frozenset[str]] = frozenset({"items"})
    paired: ClassVar[bool] = True

    def check(self, held_out: Split, reference: Split, extractor: Extractor) -> None:
        super().check(held_out, reference, extractor)
        require_baseline(self.baseline_field, held_out, type(self).__name__)
        x = held_out["x"]
        others = [name for name, each in held_out.items() if name != "x" and len(each.shape) == len(x.shape) == 4]
        if self.field not in others:
            raise ValueError(
                f"field={self.field} of the consistency is not a field of images (available: "
                f"{', '.join(others) or 'none'}): set it to one of these"
            )
        shape = list(held_out[self.field].shape[1:])
        made = self._degraded(x[torch.arange(1)], torch.arange(1), shape)
        if list(made.shape[1:]) != shape:
            raise ValueError(
                f"field={self.field} of the consistency has images of shape {shape}, but degraded samples have the "
                f"shape {list(made.shape[1:])}: set degradation"
            )

    def baseline(self, items: Batch, generators: Generators) -> Tensor | None:
        return degraded(self.baseline_field, items)

    def __call__(self, samples: Extracted, reference: Extracted, held_out: Extracted, extractor: Extractor) -> Results:
        total, count = 0.0, 0
        dtype = held_out.items["x"].dtype
        unit = 127.5 if dtype == torch.uint8 else 1.0
        for items, x, _ in grouped(samples, held_out, "consistency"):
            wanted = held_out.items[self.field][items].double()
            for each in x.unbind(1):
                difference = (self._degraded(each.to(dtype), items, list(wanted.shape[1:])).double() - wanted) / unit
                total, count = total + float(difference.square().sum()), count + difference.numel()
        return {"consistency": total / count}

    def _degraded(self, x: Tensor, items: Tensor, shape: list[int]) -> Tensor:
        if self.degradation is not None:
            return self.degradation({"x": x}, Generators.from_positions(0, items.tolist()))
        if any(large % small for large, small in zip(x.shape[2:], shape[1:], strict=True)):
            raise ValueError(f"images of shape {list(x.shape[1:])} are no multiple of {shape}: set degradation")
        return nn.functional.adaptive_avg_pool2d(x.double(), (shape[1], shape[2]))

    def settings(self) -> dict[str, Any]:
        made = None if self.degradation is None else repr(self.degradation)
        return {**super().settings(), "degradation": made}
