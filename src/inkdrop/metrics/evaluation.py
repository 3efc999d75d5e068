"""A protocol of measurement: which samples are compared with which data, by which metrics, and what stands beside."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Annotated, Any, Literal

import torch
from annotated_types import Ge
from torch import Tensor

from inkdrop.data.loaders import Split
from inkdrop.data.module import DataModule
from inkdrop.distributed.ranks import from_all_ranks, raised_together, share
from inkdrop.likelihood import Likelihood
from inkdrop.metrics.extractors import Extractor
from inkdrop.metrics.likelihoods import of_held_out, settings_of
from inkdrop.metrics.metric import Metric, Results
from inkdrop.metrics.panel import Observed, Panel
from inkdrop.metrics.protocol import over_repeats, protocol, short
from inkdrop.metrics.real import trivial_items
from inkdrop.pipeline import Pipeline, calls_counted


class Evaluation:
    """Metrics of samples against a split of the data, all on one stream of samples.

    n = `num_samples` (null: as many as are held out) are made with seeds from `seed` on, in batches of `batch_size`,
    `repeats` times with seeds of their own, under conditions by `balance`: those of the held-out items, again from the
    first where there are fewer, or all classes in turn. `reference` is the split compared with, by custom the training
    data. Features are computed once per extractor for all metrics on it.

    Results are `{metric}_{n}`, as in fd_mnist_2k, and, taken in the same way, `{metric}_{n}_floor` on n held-out items,
    which is what real data reach, and `{metric}_{n}_baseline` on those of a generator that knows each place of the data
    on its own. Where fewer items are held out, their number m is said: `{metric}_{n}_floor_{m}`. With `repeats` the
    first is the mean, `_low` and `_high` are its interval at 95% and `_min` is the lowest, which papers often tell.
    `likelihood` adds, for each of its names, `bits_per_dim_{name}_{m}` and its parts, or the loss by noise level as
    `loss_{name}_{m}`: means over the first `num_items` held-out items (null: all of them).
    """

    def __init__(
        self,
        extractor: Extractor,
        metrics: Mapping[str, Metric],
        num_samples: Annotated[int, Ge(2)] | None = None,
        batch_size: Annotated[int, Ge(1)] = 256,
        seed: Annotated[int, Ge(0)] = 0,
        repeats: Annotated[int, Ge(1)] = 1,
        balance: Literal["held_out", "classes"] = "held_out",
        reference: str = "train",
        likelihood: Mapping[str, Likelihood] | None = None,
        num_items: Annotated[int, Ge(1)] | None = None,
    ):
        self.extractor, self.metrics = extractor, dict(metrics)
        self.num_samples, self.batch_size, self.seed, self.repeats = num_samples, batch_size, seed, repeats
        self.balance, self.reference = balance, reference
        self.likelihood, self.num_items = dict(likelihood or {}), num_items
        self.seconds: dict[str, float] = {}  # of the latest call: sampling, features, distance, likelihood
        self.network_calls = 0  # per sample, of the latest call
        self._count = 0
        self._likelihoods: dict[str, dict[str, Any]] = {}  # what each depends on, by name
        self._beside: dict[tuple[str, int], Results] = {}  # floors and baselines, by fingerprint and n

    @cached_property
    def _panel(self) -> Panel:
        return Panel(self.metrics, self.extractor, self.batch_size)

    def verify(self) -> None:
        """Reads the weights of all extractors; `ValueError` if they are absent or do not fit."""
        _ = self._panel

    def check(self, data: DataModule) -> None:
        """`ValueError` for too few samples or held-out items, or data that a metric or an extractor cannot take."""
        self.verify()
        held_out = data.splits["validation"]
        if self.num_items is not None and self.num_items > len(held_out["x"]):
            raise ValueError(f"evaluation.num_items={self.num_items}, but only {len(held_out['x'])} items are held out")
        if self.reference not in data.splits:
            raise ValueError(f"evaluation.reference={self.reference} is no split of the data: {list(data.splits)}")
        count = self.num_samples or len(held_out["x"])
        for name, metric in self.metrics.items():
            extractor = metric.extractor or self.extractor
            if count < (fewest := metric.fewest(extractor)):
                raise ValueError(
                    f"{count} samples are too few for metric {name}, which takes at least {fewest}: "
                    f"{metric.remedy(name, min(count, len(held_out['x'])))}"
                )
            metric.check(held_out, data.splits[self.reference], extractor)

    def check_item(self, x: Tensor) -> None:
        """`ValueError` if an extractor cannot take raw data (B, *) like these."""
        for metric in self.metrics.values():
            (metric.extractor or self.extractor).check(x)

    def to(self, device: torch.device) -> None:
        """Takes features on this device."""
        self._panel.to(device)

    def conditions(self, data: DataModule, count: int) -> dict[str, Tensor]:
        """The raw batch that so many samples are made under: what the data hold besides the data themselves."""
        held_out = {name: column for name, column in data.splits["validation"].items() if name != "x"}
        items = torch.arange(count) % len(data.splits["validation"]["x"])
        batch = {name: column[items] for name, column in held_out.items()}
        if self.balance == "classes" and "label" in batch:
            batch["label"] = torch.arange(count) % data.num_classes
        return batch

    def __call__(self, pipeline: Pipeline, data: DataModule) -> Results:
        """The results of new samples and the likelihoods; each rank does its share, all get the whole."""
        self.seconds = {}
        values: Results = {}
        if self.metrics:
            values = self.of_samples(pipeline, data)
            values |= self.beside(data, self._count)
        with self._timed("likelihood"):
            likelihoods = self.likelihoods(pipeline, data, self.num_items)
        return {**values, **likelihoods}

    def of_samples(self, pipeline: Pipeline, data: DataModule) -> Results:
        """The values of new samples alone, without what stands beside them."""
        n = self.num_samples or len(data.splits["validation"]["x"])
        self.to(next(pipeline.parameters()).device)
        conditions = self.conditions(data, n)
        self.seconds = {}
        with calls_counted(pipeline) as calls:
            sets = [self._made(pipeline, conditions, n, self.seed + n * k) for k in range(self.repeats)]
        self.network_calls = calls(self.repeats * sum(map(len, share(n, self.batch_size))))
        return self._values(sets, data)

    def measure(self, sets: list[Tensor], data: DataModule) -> Results:
        """The results of sets of as many samples each, on the CPU of every rank, made under `conditions`."""
        if not self.metrics:
            return {}
        return {**self.values(sets, data), **self.beside(data, len(sets[0]))}

    def values(self, sets: list[Tensor], data: DataModule) -> Results:
        """As `measure`, without what stands beside the values."""
        self.seconds = {}
        observed: list[Observed] = []
        for samples in sets:
            items = {"x": samples, **self.conditions(data, len(samples))}
            with self._timed("features"):
                observed.append(self._panel.observed(items, len(samples), "samples"))
        return self._values(observed, data)

    def likelihoods(self, pipeline: Pipeline, data: DataModule, count: int | None = None) -> Results:
        """Means over the first `count` held-out items, or all; `ValueError` if there are fewer. See `of_held_out`."""
        held_out = len(data.splits["validation"]["x"])
        count = count or held_out
        if count > held_out:
            raise ValueError(f"num_items={count}, but only {held_out} items are held out")
        results: Results = {}
        for name, likelihood in self.likelihood.items():
            values = of_held_out(name, likelihood, pipeline, data, count, self.batch_size, self.seed)
            self._likelihoods |= dict.fromkeys(values, settings_of(likelihood, data, count, self.seed))
            results |= values
        return results

    def protocol(self, data: DataModule, sampling: Mapping[str, Any]) -> dict[str, Any]:
        """The record of how the latest values were measured, with how their samples were made; see `protocol`."""
        measurement = {
            "num_samples": self._count,
            "repeats": self.repeats,
            "balance": self.balance,
            "data": type(data).__name__,
            "fingerprint": data.fingerprint,
            "reference": self.reference,
            "rounding": str(data.splits[self.reference]["x"].dtype).removeprefix("torch."),
        }
        metrics = {f"{name}_{short(self._count)}": settings for name, settings in self._panel.settings.items()}
        return protocol(measurement, metrics, sampling, self._likelihoods)

    def _made(self, pipeline: Pipeline, conditions: dict[str, Tensor], count: int, seed: int) -> Observed:
        """Samples are seen by all extractors and forgotten, unless a metric needs the items."""
        keep = any("items" in metric.needs for metric in self.metrics.values())
        collectors = self._panel.collectors(count)
        kept: list[Tensor] = []
        with raised_together():
            for own in share(count, self.batch_size):
                seeds = [seed + item for item in own.tolist()]
                with self._timed("sampling"):
                    x = pipeline({name: values[own] for name, values in conditions.items()}, seeds)
                with self._timed("features"):
                    for collector in collectors.values():
                        collector.update(x, own, "samples with seeds", seeds)
                kept += [x.cpu()] if keep else []
        items: Split = {**conditions}
        if keep:
            shares = from_all_ranks((share(count, self.batch_size), kept))
            order = torch.cat([part for own in shares for part in own[0]]).argsort()
            items = {"x": torch.cat([part for own in shares for part in own[1]])[order], **conditions}
        return {digest: collector.compute(items) for digest, collector in collectors.items()}

    def _values(self, sets: list[Observed], data: DataModule) -> Results:
        self._count = n = next(iter(sets[0].values())).count
        reference, held_out = self._references(data, n)
        with self._timed("distance"):
            values = over_repeats([self._panel.compared(each, reference, held_out) for each in sets])
        return {f"{name}_{short(n)}{ending}": value for (name, ending), value in values.items()}

    def _references(self, data: DataModule, n: int) -> tuple[Observed, Observed]:
        with self._timed("features"):
            reference = self._panel.real(data, self.reference, len(data.splits[self.reference]["x"]))
            return reference, self._panel.real(data, "validation", min(n, len(data.splits["validation"]["x"])))

    def beside(self, data: DataModule, n: int) -> Results:
        """Floors and baselines of n samples; the same at every evaluation, so taken once."""
        key = data.fingerprint, n
        if key not in self._beside:
            self._beside[key] = {**self._floor(data, n), **self._baseline(data, n)}
        return self._beside[key]

    def _floor(self, data: DataModule, n: int) -> Results:
        reference, held_out = self._references(data, n)
        results: Results = {}
        for split in dict.fromkeys(metric.stand_in for metric in self.metrics.values()):
            m = min(n, len(data.splits[split]["x"]))
            stand_in = held_out if split == "validation" else self._panel.real(data, split, m)
            ending = "floor" if m == n else f"floor_{short(m)}"
            for name, value in self._panel.compared(stand_in, reference, held_out, split).items():
                results[f"{name}_{short(n)}_{ending}"] = value
        return results

    def _baseline(self, data: DataModule, n: int) -> Results:
        items = trivial_items(data, self.reference, self.conditions(data, n), n, self.batch_size)
        values = self._panel.compared(self._panel.observed(items, n, "trivial samples"), *self._references(data, n))
        return {f"{name}_{short(n)}_baseline": value for name, value in values.items()}

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.monotonic() - start
