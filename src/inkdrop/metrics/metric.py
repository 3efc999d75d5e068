"""What a metric is, and what it reads of samples and of real data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor

from inkdrop.data.loaders import Split
from inkdrop.distributed.ranks import from_all_ranks
from inkdrop.errors import require_finite
from inkdrop.metrics.extractors import Extractor
from inkdrop.metrics.moments import GaussianStatistics, Statistics

Results: TypeAlias = dict[str, float]

SPLITS = 10  # parts that class probabilities are summed in, for the spread over them


@dataclass(frozen=True)
class Extracted:
    """What is known of the first `count` n of some items; beyond the items only what some metric needs.

    `features` are (n, D) in float32 and in the order of the items. `class_sums` (SPLITS, K + 2) holds, for each of
    consecutive parts of the items, the sums of the class probabilities (K), the sum of their negative entropies in
    nats, and the number of items.
    """

    count: int
    items: Split
    statistics: Statistics | None = None
    features: Tensor | None = None
    class_sums: Tensor | None = None

    def features_on(self, device: torch.device) -> Tensor:
        """The features, which the metric has said that it needs."""
        assert self.features is not None
        return self.features.to(device)


@dataclass(frozen=True)
class Metric(ABC):
    """Compares samples with the training data as seen through an extractor; results by name.

    A metric is a frozen dataclass of its settings, which are part of the protocol. `needs` lists the fields of
    `Extracted` that it reads. `extractor` overrides that of the evaluation.
    """

    extractor: Extractor | None = field(default=None, kw_only=True)

    needs: ClassVar[frozenset[str]] = frozenset()
    stand_in: ClassVar[str] = "validation"  # the split whose items take the place of samples for the floor

    @abstractmethod
    def __call__(self, samples: Extracted, reference: Extracted, held_out: Extracted, extractor: Extractor) -> Results:
        """Results by name, the name without the number of samples."""

    def fewest(self, extractor: Extractor) -> int:
        """The least number of samples that the metric can be taken on; fewer are refused before anything is sampled."""
        return 2

    def remedy(self, name: str, count: int) -> str:
        """What to change where `count` samples are too few for this metric, which the configuration calls `name`."""
        return "more samples"

    def check(self, held_out: Split, reference: Split, extractor: Extractor) -> None:
        """`ValueError` if these data or the extractor lack what the metric needs, before anything is sampled."""
        extractor.check(held_out["x"][torch.arange(1)])

    def settings(self) -> dict[str, Any]:
        """What the result depends on besides the items and the extractor: the kind and its fields."""
        own = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "extractor"}
        return {"metric": type(self).__name__, **own}


class Collector:
    """Takes items in batches, with their positions among all n, and keeps what metrics need of them.

    Statistics and class sums take constant memory. With several ranks each brings its own items; `compute` gives the
    same to all.
    """

    def __init__(self, extractor: Extractor, needs: frozenset[str], count: int):
        self.extractor, self.needs, self.count = extractor, needs, count
        self._statistics = GaussianStatistics(extractor.dim)
        self._features: list[Tensor] = []
        self._positions: list[Tensor] = []
        self._class_sums: Tensor | None = None

    @torch.no_grad()
    def update(self, x: Tensor, positions: Tensor, what: str, names: list[int]) -> None:
        """Adds raw data (B, *) at positions (B); an error says `what` they are and the names (B) of broken ones.

        Features are the same in every precision that samples are made with.
        """
        device = next(self.extractor.parameters(), x).device
        with torch.autocast(device.type, enabled=False):
            features = self.extractor(x.to(device))
            scores = self.extractor.logits(features) if "class_sums" in self.needs else None
        require_finite(features, f"{self.extractor.name}: the features of {what}", names)
        if "statistics" in self.needs:
            place = torch.device("cpu") if device.type == "mps" else device  # which has no float64
            self._statistics.to(place).update(features.to(place))
        if "features" in self.needs:
            self._features.append(features.float().cpu())
            self._positions.append(positions)
        if scores is not None:
            self._add_classes(scores, positions)

    def _add_classes(self, scores: Tensor, positions: Tensor) -> None:
        logs = scores.cpu().double().log_softmax(1)
        probabilities = logs.exp()
        rows = torch.cat([probabilities, (probabilities * logs).sum(1, keepdim=True), logs.new_ones(len(logs), 1)], 1)
        if self._class_sums is None:
            self._class_sums = rows.new_zeros(SPLITS, rows.shape[1])
        # part j is of the positions from floor(j n / SPLITS) on, as everywhere
        self._class_sums.index_add_(0, ((positions.cpu() + 1) * SPLITS - 1) // self.count, rows)

    def compute(self, items: Split) -> Extracted:
        """What was collected on all ranks."""
        statistics = self._statistics.compute().cpu() if "statistics" in self.needs else None
        features = class_sums = None
        if "features" in self.needs:
            shares = from_all_ranks((self._positions, self._features))
            positions = torch.cat([part for share in shares for part in share[0]])
            features = torch.cat([part for share in shares for part in share[1]])[positions.argsort()]
        if "class_sums" in self.needs:
            class_sums = torch.stack([share for share in from_all_ranks(self._class_sums) if share is not None]).sum(0)
        return Extracted(self.count, items, statistics, features, class_sums)
