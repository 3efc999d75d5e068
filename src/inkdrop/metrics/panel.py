"""Several metrics at once: each extractor processes an item once, and real data only once."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch

from inkdrop.data.loaders import Split
from inkdrop.data.module import DataModule
from inkdrop.metrics.extractors import Extractor
from inkdrop.metrics.metric import Collector, Extracted, Metric, Results
from inkdrop.metrics.real import extracted, real

Observed = dict[str, Extracted]  # by digest of the extractor


class Panel:
    """Metrics by their extractors, which they share: their own one, or else a common one.

    `settings` has, for the name of each result so far, what it depends on besides the items, and `higher` has the names
    of those whose higher values are better.
    """

    def __init__(self, metrics: Mapping[str, Metric], extractor: Extractor, batch_size: int):
        self.batch_size = batch_size
        self.settings: dict[str, dict[str, Any]] = {}
        self.higher: set[str] = set()
        self._extractors: dict[str, Extractor] = {}  # by digest
        self._metrics: dict[str, list[Metric]] = {}
        self._known: dict[tuple[str, str, int], Observed] = {}  # by fingerprint of the data, split and n
        self._fitted_to = ""  # fingerprint of the data
        for metric in metrics.values():
            used = metric.extractor or extractor
            self._extractors.setdefault(used.digest(), used)
            self._metrics.setdefault(used.digest(), []).append(metric)

    def fit(self, data: DataModule) -> None:
        """Lets extractors compute their statistics of the training data, once for the same data."""
        if data.fingerprint != self._fitted_to:
            for extractor in self._extractors.values():
                extractor.fit(data.splits["train"]["x"])
            self._fitted_to = data.fingerprint

    def to(self, device: torch.device) -> None:
        """Computes features on this device from now on."""
        for extractor in self._extractors.values():
            extractor.to(device)

    def collectors(self, count: int) -> dict[str, Collector]:
        """Returns a collector for `count` items of each extractor, by digest."""
        return {digest: Collector(each, self._needs(digest), count) for digest, each in self._extractors.items()}

    def observed(self, items: Split, count: int, what: str, metrics: Collection[Metric] | None = None) -> Observed:
        """Returns what these metrics, or all, use of the first `count` items, which every rank has."""
        return {
            digest: extracted(
                self._extractors[digest], items, count, self._needs(digest, metrics), self.batch_size, what
            )
            for digest, known in self._metrics.items()
            if metrics is None or any(metric in metrics for metric in known)
        }

    def real(self, data: DataModule, split: str, count: int) -> Observed:
        """Returns what metrics use of the first `count` items of a split."""
        key = data.fingerprint, split, count
        if key not in self._known:
            self._known[key] = {
                digest: real(extractor, data, split, count, self._needs(digest), self.batch_size)
                for digest, extractor in self._extractors.items()
            }
        return self._known[key]

    def compared(
        self, samples: Observed, reference: Observed, held_out: Observed, metrics: Collection[Metric]
    ) -> Results:
        """Returns the values of these metrics."""
        results: Results = {}
        for digest, known in self._metrics.items():
            extractor = self._extractors[digest]
            seen_by = {"extractor": extractor.name, "extractor_digest": digest[:12], "resize": extractor.resize}
            for metric in known:
                if metric in metrics:
                    values = metric(samples[digest], reference[digest], held_out[digest], extractor)
                    settings = {**metric.settings(), **seen_by}
                    self.settings |= dict.fromkeys(values, settings)
                    self.higher |= values.keys() if metric.better == "higher" else set()
                    results |= values
        return results

    def _needs(self, digest: str, metrics: Collection[Metric] | None = None) -> frozenset[str]:
        known = [metric for metric in self._metrics[digest] if metrics is None or metric in metrics]
        return frozenset(need for metric in known for need in metric.needs)
