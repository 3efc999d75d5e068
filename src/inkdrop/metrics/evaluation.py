"""An evaluation: which samples are compared with which data, by which metrics, with their floors and baselines."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
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
from inkdrop.metrics import checks
from inkdrop.metrics.checks import VALIDATION, covered
from inkdrop.metrics.extractors import Extractor
from inkdrop.metrics.likelihoods import of_held_out, settings_of
from inkdrop.metrics.metric import Metric, Results
from inkdrop.metrics.panel import Observed, Panel
from inkdrop.metrics.protocol import over_repeats, protocol, short
from inkdrop.metrics.real import trivial_items
from inkdrop.pipeline import Pipeline, calls_counted
from inkdrop.randomness import Generators


class Evaluation:
    """Measures samples against a split of the data by several metrics, which share one stream of samples.

    - `extractor`: the features that metrics use, unless a metric has its own extractor.
    - `metrics`: metrics by name.
    - `num_samples`: the number n of samples; null is `per_item` times the number of held-out items.
    - `batch_size`: samples that are made at a time.
    - `seed`: the seed of the first sample; the others follow.
    - `repeats`: sets of n samples, each with other seeds.
    - `balance`: the conditions of the samples, those of the held-out items (repeated where there are fewer than n), or
      all `classes` in turn.
    - `reference`: the split that samples are compared with, usually the training data.
    - `likelihood`: likelihoods of held-out items by name.
    - `num_items`: the number of held-out items whose likelihood is measured; null is all of them.
    - `held_out`: the split of the held-out items: conditions of the samples, floors and likelihoods come from it.
    - `per_item`: samples under the conditions of each held-out item; n must be a multiple of it.

    Results are `{metric}_{n}`, as in fd_mnist_2k; `{metric}_{n}_floor`, the same for n held-out items in place of
    samples, the value of real data; and `{metric}_{n}_baseline`, the same for a generator that draws each
    element of the data independently. Where only m < n items are held out, the floor is `{metric}_{n}_floor_{m}`. With
    `repeats` the value is the mean, `_low` and `_high` are its 95% interval, and `_min` is the lowest value, which
    papers often report, or `_max` the highest where higher is better. `likelihood` adds `bits_per_dim_{name}_{m}` and
    its parts, or the loss by noise level as `loss_{name}_{m}`. Paired metrics have no floor and their own baselines.
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
        held_out: str = VALIDATION,
        per_item: Annotated[int, Ge(1)] = 1,
    ):
        self.extractor, self.metrics = extractor, dict(metrics)
        self.num_samples, self.batch_size, self.seed, self.repeats = num_samples, batch_size, seed, repeats
        self.balance, self.reference, self.held_out, self.per_item = balance, reference, held_out, per_item
        self.likelihood, self.num_items = dict(likelihood or {}), num_items
        self.seconds: dict[str, float] = {}  # of the latest call: sampling, features, distance, likelihood
        self.network_calls = 0  # per sample, of the latest call
        self._count = 0
        self._likelihoods: dict[str, dict[str, Any]] = {}  # the settings that each depends on, by name
        self._constant: dict[tuple[str, int], Results] = {}  # floors and baselines, by fingerprint and n

    @cached_property
    def _panel(self) -> Panel:
        return Panel(self.metrics, self.extractor, self.batch_size)

    @cached_property
    def _paired(self) -> list[Metric]:
        return [metric for metric in self.metrics.values() if metric.paired]

    @cached_property
    def _unpaired(self) -> list[Metric]:
        return [metric for metric in self.metrics.values() if not metric.paired]

    def _num_samples(self, data: DataModule) -> int:
        return self.num_samples or self.per_item * len(data.splits[self.held_out]["x"])

    def _covered(self, data: DataModule, count: int) -> int:
        return covered(count, self.per_item, len(data.splits[self.held_out]["x"]))

    def verify(self) -> None:
        """Reads the weights of all extractors; raises `ValueError` if they are missing or do not fit."""
        _ = self._panel

    def check(self, data: DataModule) -> None:
        """Raises `ValueError` for too few samples or items, or for data that a metric or extractor cannot use."""
        self.verify()
        checks.require_features(self.metrics, self.extractor)
        self.check_splits(data)
        self._panel.fit(data)
        splits = data.splits[self.held_out], data.splits[self.reference]
        count, held_out = self._num_samples(data), len(splits[0]["x"])
        if self.num_items is not None and self.num_items > held_out:
            raise ValueError(f"evaluation.num_items={self.num_items}, but only {held_out} items are held out: lower it")
        checks.require_whole(self.metrics, count, self.per_item, held_out)
        checks.require_own_conditions(self.metrics, self.balance)
        checks.require_fit(self.metrics, self.extractor, count, *splits)

    def check_splits(self, data: DataModule) -> None:
        """Raises `ValueError` if the data have no split of these names; they are loaded if they have not been."""
        checks.require_split("held_out", self.held_out, data.splits)
        checks.require_split("reference", self.reference, data.splits)

    def check_item(self, x: Tensor) -> None:
        """Raises `ValueError` if an extractor cannot use raw data (B, *) like these."""
        checks.require_features(self.metrics, self.extractor)
        for metric in self.metrics.values():
            (metric.extractor or self.extractor).check(x)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is measured."""
        return not self.metrics and not self.likelihood

    def to(self, device: torch.device) -> None:
        """Computes features on this device from now on."""
        self._panel.to(device)

    def conditions(self, data: DataModule, count: int, names: Collection[str] = ()) -> dict[str, Tensor]:
        """Returns the raw conditions of `count` samples: all fields of the data but x, unless x is a name of them."""
        held_out = {name: column for name, column in data.splits[self.held_out].items() if name != "x" or "x" in names}
        items = torch.arange(count) % self._covered(data, count)
        batch = {name: column[items] for name, column in held_out.items()}
        if self.balance == "classes" and "label" in batch:
            batch["label"] = torch.arange(count) % data.num_classes
        return batch

    def __call__(self, pipeline: Pipeline, data: DataModule) -> Results:
        """Returns the results of new samples and the likelihoods; the ranks share the work, and all get the results."""
        self.seconds = {}
        values: Results = {}
        if self.metrics:
            values = {**self.of_samples(pipeline, data), **self.floors_and_baselines(data, self._count)}
        with self._timed("likelihood"):
            return {**values, **self.likelihoods(pipeline, data, self.num_items)}

    def of_samples(self, pipeline: Pipeline, data: DataModule) -> Results:
        """Returns the values of new samples, without floors and baselines."""
        n = self._num_samples(data)
        self._panel.fit(data)
        self.to(next(pipeline.parameters()).device)
        conditions = self.conditions(data, n, pipeline.names)
        self.seconds = {}
        with calls_counted(pipeline) as calls:
            sets = [self._made(pipeline, conditions, n, self.seed + n * k) for k in range(self.repeats)]
        self.network_calls = calls(self.repeats * sum(map(len, share(n, self.batch_size))))
        return self._values(sets, data)

    def measure(self, sets: list[Tensor], data: DataModule) -> Results:
        """Returns the results of sets of equally many samples, on the CPU of every rank, made under `conditions`."""
        if not self.metrics:
            return {}
        return {**self.values(sets, data), **self.floors_and_baselines(data, len(sets[0]))}

    def values(self, sets: list[Tensor], data: DataModule) -> Results:
        """Returns the same as `measure`, without floors and baselines."""
        self._panel.fit(data)
        self.seconds = {}
        observed: list[Observed] = []
        for samples in sets:
            items = {"x": samples, **self.conditions(data, len(samples))}
            with self._timed("features"):
                observed.append(self._panel.observed(items, len(samples), "samples"))
        return self._values(observed, data)

    def likelihoods(self, pipeline: Pipeline, data: DataModule, count: int | None = None) -> Results:
        """Returns means over the first `count` held-out items, or all; see `of_held_out`.

        Raises `ValueError` if there are fewer items.
        """
        held_out = len(data.splits[self.held_out]["x"])
        if (count := count or held_out) > held_out:
            raise ValueError(f"num_items={count}, but only {held_out} items are held out: lower it")
        results: Results = {}
        for name, likelihood in self.likelihood.items():
            values = of_held_out(name, likelihood, pipeline, data, self.held_out, count, self.batch_size, self.seed)
            settings = {**settings_of(likelihood, data, count, self.seed), **self._unusual(["held_out"])}
            self._likelihoods |= dict.fromkeys(values, settings)
            results |= values
        return results

    def protocol(self, data: DataModule, sampling: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the record of how the latest values were measured and their samples were made, as `protocol`."""
        measurement = {
            "num_samples": self._count,
            "repeats": self.repeats,
            "balance": self.balance,
            "data": type(data).__name__,
            "fingerprint": data.fingerprint,
            "reference": self.reference,
            "rounding": str(data.splits[self.reference]["x"].dtype).removeprefix("torch."),
            **self._unusual(),
            **({"derive": {name: repr(each) for name, each in data.derive.items()}} if data.derive else {}),
        }
        metrics = {f"{name}_{short(self._count)}": settings for name, settings in self._panel.settings.items()}
        higher = [f"{name}_{short(self._count)}" for name in self._panel.higher]
        return protocol(measurement, metrics, sampling, self._likelihoods, higher)

    def _unusual(self, names: Sequence[str] = ("held_out", "per_item")) -> dict[str, Any]:
        """Returns what the protocol has only where it is not the default, so that hashes from before it remain."""
        chosen = {"held_out": (self.held_out, VALIDATION), "per_item": (self.per_item, 1)}
        return {name: value for name, (value, default) in chosen.items() if name in names and value != default}

    def _made(self, pipeline: Pipeline, conditions: dict[str, Tensor], count: int, seed: int) -> Observed:
        """Samples as all extractors see them; the samples themselves are kept only if a metric needs them."""
        keep = any("items" in metric.needs for metric in self.metrics.values())
        collectors = self._panel.collectors(count)
        kept: list[Tensor] = []
        with raised_together():
            for positions in share(count, self.batch_size):
                seeds = [seed + item for item in positions.tolist()]
                with self._timed("sampling"):
                    x = pipeline({name: values[positions] for name, values in conditions.items()}, seeds)
                with self._timed("features"):
                    for collector in collectors.values():
                        collector.update(x, positions, "samples with seeds", seeds)
                kept += [x.cpu()] if keep else []
        items: Split = {**conditions}
        if keep:
            shares = from_all_ranks((share(count, self.batch_size), kept))
            order = torch.cat([part for each in shares for part in each[0]]).argsort()
            items = {**conditions, "x": torch.cat([part for each in shares for part in each[1]])[order]}
        return {digest: collector.compute(items) for digest, collector in collectors.items()}

    def _values(self, sets: list[Observed], data: DataModule) -> Results:
        self._count = n = next(iter(sets[0].values())).count
        compared, references = self._panel.compared, self._references(data, n)
        truths = self._references(data, n, paired=True) if self._paired else references
        with self._timed("distance"):
            each = [
                {**compared(samples, *references, self._unpaired), **compared(samples, *truths, self._paired)}
                for samples in sets
            ]
            values = over_repeats(each, self._panel.higher)
        return {f"{name}_{short(n)}{ending}": value for (name, ending), value in values.items()}

    def _references(self, data: DataModule, n: int, paired: bool = False) -> tuple[Observed, Observed]:
        """Returns the reference and n held-out items, or for paired metrics those to which n samples belong."""
        m = self._covered(data, n) if paired else min(n, len(data.splits[self.held_out]["x"]))
        with self._timed("features"):
            reference = self._panel.real(data, self.reference, len(data.splits[self.reference]["x"]))
            return reference, self._panel.real(data, self.held_out, m)

    def floors_and_baselines(self, data: DataModule, n: int) -> Results:
        """Returns floors and baselines of n samples, which are the same at every evaluation and are computed once."""
        key = data.fingerprint, n
        if key not in self._constant:
            self._constant[key] = {**self._floor(data, n), **self._baseline(data, n)}
        return self._constant[key]

    def _floor(self, data: DataModule, n: int) -> Results:
        reference, held_out = self._references(data, n)
        results: Results = {}
        for kind in dict.fromkeys(metric.stand_in for metric in self._unpaired):
            split = self.held_out if kind == "held_out" else kind
            m = min(n, len(data.splits[split]["x"]))
            stand_in = self._panel.real(data, split, m)
            chosen = [metric for metric in self._unpaired if metric.stand_in == kind]
            ending = "floor" if m == n else f"floor_{short(m)}"
            for name, value in self._panel.compared(stand_in, reference, held_out, chosen).items():
                results[f"{name}_{short(n)}_{ending}"] = value
        return results

    def _baseline(self, data: DataModule, n: int) -> Results:
        values: dict[tuple[str, str], float] = {}
        panel, conditions = self._panel, self.conditions(data, n)
        if self._unpaired:
            items = trivial_items(data, self.reference, conditions, n, self.batch_size)
            observed = panel.observed(items, n, "trivial samples", self._unpaired)
            compared = panel.compared(observed, *self._references(data, n), self._unpaired)
            values |= {(name, ""): value for name, value in compared.items()}
        for metric in self._paired:
            x = data.splits[self.held_out]["x"][torch.arange(n) % self._covered(data, n)]
            generators = Generators.from_positions(0, range(n)).at("baseline")
            for method, trivial in metric.baselines({**conditions, "x": x}, generators).items():
                observed = panel.observed({**conditions, "x": trivial}, n, "baseline samples", [metric])
                compared = panel.compared(observed, *self._references(data, n, paired=True), [metric])
                values |= {(name, method and f"_{method}"): value for name, value in compared.items()}
        return {f"{name}_{short(n)}_baseline{ending}": value for (name, ending), value in values.items()}

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.monotonic() - start
