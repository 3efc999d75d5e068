"""The interface of metrics, and what they use of samples and of real data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor

from inkdrop.data.loaders import Batch, Split
from inkdrop.distributed.ranks import from_all_ranks
from inkdrop.errors import require_finite
from inkdrop.metrics.extractors import Extractor
from inkdrop.metrics.moments import GaussianStatistics, Statistics
from inkdrop.randomness import Generators

Results: TypeAlias = dict[str, float]

SPLITS = 10  # parts of the samples, over which the spread of the class score is computed


@dataclass(frozen=True)
class Extracted:
    """What metrics use of the first `count` = n items; fields that no metric needs are None.

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
        """Returns the features on this device; the metric must have `features` in its `needs`."""
        assert self.features is not None
        return self.features.to(device)


@dataclass(frozen=True)
class Metric(ABC):
    """Compares samples with the training data by the features of an extractor, and returns results by name.

    A metric is a frozen dataclass of its settings, which are part of the protocol. `needs` lists the fields of
    `Extracted` that it uses, and `better` says which of two values is better. `extractor` replaces that of the
    evaluation. A metric that is `paired` compares sample i with held-out item i mod `held_out.count`, to which the
    sample belongs; it has no floor, and its baseline is that of `baseline`.
    """

    extractor: Extractor | None = field(default=None, kw_only=True)

    needs: ClassVar[frozenset[str]] = frozenset()
    better: ClassVar[Literal["lower", "higher"]] = "lower"
    stand_in: ClassVar[str] = "held_out"  # whose items take the place of samples for the floor: these, or a split

    paired: ClassVar[bool] = False
    samples_per_item: ClassVar[int] = 1  # that a paired metric needs at least

    @abstractmethod
    def __call__(self, samples: Extracted, reference: Extracted, held_out: Extracted, extractor: Extractor) -> Results:
        """Returns results by name, where names are without the number of samples."""

    def fewest(self, extractor: Extractor) -> int:
        """Returns the smallest number of samples for the metric; fewer are refused before anything is sampled."""
        return 2

    def remedy(self, name: str, count: int) -> str:
        """Returns what to change if `count` samples are too few for this metric, called `name` in the configuration."""
        return "take more samples"

    def check(self, held_out: Split, reference: Split, extractor: Extractor) -> None:
        """Raises `ValueError` before anything is sampled if the data or the extractor lack what the metric needs."""
        extractor.check(held_out["x"][torch.arange(1)])

    def baseline(self, items: Batch, generators: Generators) -> Tensor | None:
        """Returns raw data (B, *) that a trivial method makes in place of samples, or None without such a method.

        It is called for paired metrics only. `items` are the held-out items (B) to which the samples belong; a method
        uses their conditions, and of x no more than shape and type. It draws random numbers from `generators` (B).
        """
        return None

    def baselines(self, items: Batch, generators: Generators) -> dict[str, Tensor]:
        """Returns raw data of several trivial methods by name, each as `baseline` returns it; "" is that of `baseline`.

        The result of a method with a name is called `{metric}_{n}_baseline_{name}`.
        """
        made = self.baseline(items, generators)
        return {} if made is None else {"": made}

    def settings(self) -> dict[str, Any]:
        """Returns what the result depends on besides the items and the extractor: the class and its fields."""
        options = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "extractor"}
        return {"metric": type(self).__name__, **options}


class Collector:
    """Collects what metrics need of items, which come in batches with their positions among all n.

    Statistics and class sums take constant memory. With several ranks each adds its own items, and `compute` returns
    the same to all.
    """

    def __init__(self, extractor: Extractor, needs: frozenset[str], count: int):
        self.extractor, self.needs, self.count = extractor, needs, count
        self._statistics = GaussianStatistics(extractor.dim)
        self._features: list[Tensor] = []
        self._positions: list[Tensor] = []
        self._class_sums: Tensor | None = None

    @torch.no_grad()
    def update(self, x: Tensor, positions: Tensor, what: str, names: list[int]) -> None:
        """Adds raw data (B, *) at positions (B); an error says `what` they are, and the names (B) of broken ones.

        Features are computed without autocast, in whatever precision the samples were made.
        """
        device = next(self.extractor.parameters(), x).device
        with torch.autocast(device.type, enabled=False):
            features = self.extractor(x.to(device))
            scores = self.extractor.logits(features) if "class_sums" in self.needs else None
        require_finite(features, f"{self.extractor.name}: the features of {what}", names)
        if "statistics" in self.needs:
            place = torch.device("cpu") if device.type == "mps" else device  # mps has no float64
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
        # part j holds the positions from floor(j n / SPLITS) on, as in other implementations
        self._class_sums.index_add_(0, ((positions.cpu() + 1) * SPLITS - 1) // self.count, rows)

    def compute(self, items: Split) -> Extracted:
        """Returns what was collected on all ranks."""
        statistics = self._statistics.compute().cpu() if "statistics" in self.needs else None
        features = class_sums = None
        if "features" in self.needs:
            shares = from_all_ranks((self._positions, self._features))
            positions = torch.cat([part for share in shares for part in share[0]])
            features = torch.cat([part for share in shares for part in share[1]])[positions.argsort()]
        if "class_sums" in self.needs:
            class_sums = torch.stack([share for share in from_all_ranks(self._class_sums) if share is not None]).sum(0)
        return Extracted(self.count, items, statistics, features, class_sums)
