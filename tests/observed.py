"""What metrics read, made from given features."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from inkdrop.data.loaders import Split
from inkdrop.metrics import Extractor, Identity
from inkdrop.metrics.metric import Collector, Extracted, Metric, Results

ALL = frozenset({"statistics", "features", "class_sums", "items"})


class Scores(Identity):
    """Features that are class scores at the same time."""

    name = "scores"

    def logits(self, features: Tensor) -> Tensor:
        return features


class Flat(Extractor):
    """The pixels, a part of which may be left out."""

    def __init__(self, name: str = "flat", resize: str = "none", weight: float = 1.0):
        super().__init__()
        self.name, self.dim, self.resize = name, 64, resize
        self.weight = torch.nn.Parameter(torch.tensor(weight))

    def forward(self, data: Tensor) -> Tensor:
        return self.weight * data.flatten(1)


def observed(
    features: Tensor,
    needs: frozenset[str] = ALL,
    order: Tensor | None = None,
    batch_size: int = 7,
    items: Split | None = None,
) -> Extracted:
    """Features (n, D) as a collector brings them together that meets them in this order (null: their own)."""
    collector = Collector(Scores(features.shape[1]), needs, len(features))
    order = torch.arange(len(features)) if order is None else order
    for part in order.split(batch_size):
        collector.update(features[part], part, "rows", part.tolist())
    return collector.compute({"x": features} if items is None else items)


def value(metric: Metric, x: Tensor, y: Tensor, held_out: Tensor | None = None, order: Tensor | None = None) -> Results:
    """Results of samples x (N, D) beside a reference y (M, D)."""
    new = y if held_out is None else held_out
    extractor: Extractor = Scores(x.shape[1])
    return metric(observed(x, order=order), observed(y), observed(new), extractor)


def one_of_two(rank: int, metrics: list[Metric], folder: Path) -> None:
    """What a process is given of the features in a folder it collects with the other, and leaves the results there."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=2)
    samples, reference = (_share_of(each, rank) for each in torch.load(folder / "features.pt"))
    results: Results = {}
    for metric in metrics:
        results |= metric(samples, reference, reference, Scores(samples.features_on(torch.device("cpu")).shape[1]))
    torch.save(results, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def _share_of(features: Tensor, rank: int) -> Extracted:
    collector = Collector(Scores(features.shape[1]), ALL, len(features))
    for part in torch.arange(rank, len(features), 2).split(9):
        collector.update(features[part], part, "rows", part.tolist())
    return collector.compute({"x": features})


def clouds(count: int, other: int, dim: int) -> tuple[Tensor, Tensor]:
    """Features as networks make them: correlated, not negative, far from zero mean."""
    mixing = torch.randn(dim, dim) / dim**0.5
    return (torch.randn(count, dim) @ mixing).relu() + 0.3, (1.2 * torch.randn(other, dim) @ mixing).relu() + 0.4
