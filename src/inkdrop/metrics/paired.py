"""The base class of metrics that compare images with the held-out items to which they belong."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor

from inkdrop.data.degradations.images import as_type
from inkdrop.data.loaders import Batch, Split
from inkdrop.errors import require_finite
from inkdrop.metrics.extractors import Extractor
from inkdrop.metrics.metric import Extracted, Metric, Results
from inkdrop.metrics.rmse import degraded, require_baseline
from inkdrop.randomness import Generators

_BATCH = 64  # items compared at a time

Features: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class PairedMetric(Metric):
    """Compares each sample with the held-out item whose conditions it has, by a number for each pair: `{title}`.

    The result is the mean over samples. Several samples of an item (`evaluation.per_item`) add `{title}_best`, the mean
    over items of the best of their samples, and `{title}_ensemble`, that of what their samples are together.

    - `baseline_field`: a field of the data of the shape of x, such as a degraded image, whose value is the baseline;
      images of lower resolution are enlarged by bicubic interpolation. Null means none.
    - `mask_field`: a field of masks (N, 1 or C, H, W); only the hole counts, where they are 0. Null is the whole image.
      An item without a hole does not count.

    Raises `ValueError` if there is no such field, or if x are not images.
    """

    baseline_field: str | None = None
    mask_field: str | None = None

    needs: ClassVar[frozenset[str]] = frozenset({"items"})
    paired: ClassVar[bool] = True
    title: ClassVar[str]

    @abstractmethod
    def compared(self, x: Tensor, truth: Tensor, hole: Tensor, features: Features) -> Tensor:
        """Returns the value (B) of each pair of samples and items (B, C, H, W), nan where nothing is compared.

        `hole` (B, C, H, W) is what counts. Numbers are float64 in the unit of the data; `features` are those (B, D) of
        such images.
        """

    def name(self, extractor: Extractor) -> str:
        """Returns the name of the result."""
        return self.title

    def together(self, samples: Tensor) -> Tensor:
        """Returns what samples (B, K, C, H, W) of each item are together, (B, C, H, W): their mean."""
        return samples.mean(1)

    def check(self, held_out: Split, reference: Split, extractor: Extractor) -> None:
        super().check(held_out, reference, extractor)
        x = held_out["x"]
        if len(x.shape) != 4:
            raise ValueError(
                f"{type(self).__name__} compares images, not data of shape {list(x.shape[1:])}: set metric"
            )
        require_baseline(self.baseline_field, held_out, type(self).__name__)
        require_mask(self.mask_field, held_out, type(self).__name__)

    def baseline(self, items: Batch, generators: Generators) -> Tensor | None:
        return degraded(self.baseline_field, items)

    def __call__(self, samples: Extracted, reference: Extracted, held_out: Extracted, extractor: Extractor) -> Results:
        single, best, ensemble = [], [], []
        dtype, name = held_out.items["x"].dtype, self.name(extractor)

        @torch.no_grad()
        def features(images: Tensor) -> Tensor:
            with torch.autocast(extractor.device.type, enabled=False):
                return extractor(as_type(images, dtype).to(extractor.device)).double().cpu()

        for items, x, truth in grouped(samples, held_out, name):
            hole = hole_of(self.mask_field, held_out.items, items, truth)
            num = x.shape[1]
            wanted, counted = (each.repeat_interleave(num, 0) for each in (truth, hole))
            values = self.compared(x.flatten(0, 1), wanted, counted, features).unflatten(0, (-1, num))
            single.append(values)
            best.append(values.amax(1) if self.better == "higher" else values.amin(1))
            ensemble.append(self.compared(self.together(x), truth, hole, features))
        results = {name: float(torch.cat(single).nanmean())}
        if single[0].shape[1] > 1:
            results[f"{name}_best"] = float(torch.cat(best).nanmean())
            results[f"{name}_ensemble"] = float(torch.cat(ensemble).nanmean())
        return results


def require_mask(name: str | None, held_out: Split, what: str) -> None:
    """Raises `ValueError` if a name is not None and not that of a field of masks for x."""
    shape = held_out["x"].shape
    masks = [each for each, column in held_out.items() if each != "x" and _is_mask(column.shape, shape)]
    if name is not None and name not in masks:
        raise ValueError(
            f"mask_field={name} of {what} is not a field of masks for x (available: {', '.join(masks) or 'none'}): set "
            "it to one of these, or to null"
        )


def hole_of(name: str | None, fields: Split, items: Tensor, truth: Tensor) -> Tensor:
    """Returns what counts of items (B) in the shape of `truth` (B, C, H, W): where a mask is 0, or all."""
    if name is None:
        return torch.ones_like(truth, dtype=torch.bool)
    return (fields[name][items] == 0).expand_as(truth)


def grouped(samples: Extracted, held_out: Extracted, what: str) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yields numbers of items (B), their K samples (B, K, *) and the items themselves (B, *), both in float64.

    Sample i belongs to item i modulo the number M of held-out items, so that K is n / M. An error about numbers that
    are not finite begins with `what`.
    """
    each = torch.arange(samples.count).reshape(-1, held_out.count)
    for items in torch.arange(held_out.count).split(_BATCH):
        positions = each[:, items].T
        x = samples.items["x"][positions.flatten()].double()
        require_finite(x, f"{what}: samples", positions.flatten().tolist())
        yield items, x.unflatten(0, positions.shape), held_out.items["x"][items].double()


def _is_mask(field: Sequence[int], x: Sequence[int]) -> bool:
    return len(field) == 4 and tuple(field[2:]) == tuple(x[2:]) and field[1] in (1, x[1])
