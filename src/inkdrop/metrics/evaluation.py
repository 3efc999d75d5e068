"""The distance of a pipeline's samples to real data, with the floor that real data reach, and likelihoods."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, TypeAlias

import torch
from annotated_types import Ge
from torch import Tensor

from inkdrop.data.loaders import collect
from inkdrop.data.module import DataModule, cache_dir
from inkdrop.finiteness import raised_together
from inkdrop.likelihood import Likelihood
from inkdrop.metrics.extractors import Extractor
from inkdrop.metrics.frechet import GaussianStatistics, Statistics, frechet_distance
from inkdrop.pipeline import Pipeline
from inkdrop.randomness import Generators

Results: TypeAlias = dict[str, float]


def data_statistics(extractor: Extractor, data: DataModule, split: str, count: int, batch_size: int) -> Statistics:
    """Feature statistics of the first `count` items of a split, computed once and kept on disk.

    The file's name is a hash of the data's fingerprint, the split, the count and the extractor's weights: data and
    extractor enter as they are, so that nothing else can change the result.
    """
    facts = {"data": data.fingerprint, "split": split, "count": count, "extractor": extractor.digest()}
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    file = cache_dir() / "statistics" / f"{key}.pt"
    if (kept := _read(file)) is not None:
        return Statistics(kept[0], kept[1], count)
    device = next(extractor.parameters(), torch.empty(0)).device
    # every rank goes through all of the data
    statistics = GaussianStatistics(extractor.dim, sync_on_compute=False).to(device)
    with torch.no_grad():
        for items in torch.arange(count).split(batch_size):
            features = extractor(data.splits[split]["x"][items].to(device))
            statistics.update(features, f"{extractor.metric}: the features of {split} items", items.tolist())
    result = statistics.compute().cpu()
    _store(file, [result.mean, result.covariance])
    return result


def _read(file: Path) -> list[Tensor] | None:
    try:
        content: list[Tensor] = torch.load(file, weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):  # absent, or damaged and made again
        return None
    return content


def _store(file: Path, content: list[Tensor]) -> None:
    temporary = file.with_suffix(f".{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(content, temporary)
        temporary.replace(file)
    except (OSError, RuntimeError):  # a cache that cannot be written costs time, never a run
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


class Evaluation:
    """Fréchet distance of samples to a split of the data, under the conditions of the held-out items.

    `num_samples` is the number n of samples (null: as many as are held out), made with seeds from `seed` on, in batches
    of `batch_size`. Results are `{metric}_{n}` and, measured in the same way on n held-out items, `{metric}_{n}_floor`:
    what real data reach. `reference` is the split measured to, by custom the training data. `ValueError` if n exceeds
    the held-out items, as the floor at equal n would be missing.

    `likelihood` adds, for each of its names, `bits_per_dim_{name}_{n}` and its parts, the means over the first
    `num_items` held-out items (null: all of them).
    """

    def __init__(
        self,
        extractor: Extractor,
        num_samples: Annotated[int, Ge(2)] | None = None,
        batch_size: Annotated[int, Ge(1)] = 256,
        seed: Annotated[int, Ge(0)] = 0,
        reference: str = "train",
        likelihood: Mapping[str, Likelihood] | None = None,
        num_items: Annotated[int, Ge(1)] | None = None,
    ):
        self.extractor, self.num_samples, self.batch_size = extractor, num_samples, batch_size
        self.seed, self.reference = seed, reference
        self.likelihood, self.num_items = dict(likelihood or {}), num_items

    def check(self, data: DataModule) -> None:
        """`ValueError` if fewer items are held out than are to be measured."""
        count = len(data.splits["validation"]["x"])
        for name, asked in (("num_samples", self.num_samples), ("num_items", self.num_items)):
            if asked is not None and asked > count:
                raise ValueError(f"evaluation.{name}={asked}, but only {count} items are held out")

    def __call__(self, pipeline: Pipeline, data: DataModule, rank: int = 0, world_size: int = 1) -> Results:
        """The results of new samples and the likelihoods; with several ranks each does its share, all get the whole."""
        n = self.num_samples or len(data.splits["validation"]["x"])
        conditions = held_out_conditions(data, n)
        device = next(pipeline.parameters()).device
        extractor = self.extractor.to(device)
        statistics = GaussianStatistics(extractor.dim).to(device)
        with raised_together():
            for items in torch.arange(rank, n, world_size).split(self.batch_size):
                batch = {name: values[items] for name, values in conditions.items()}
                seeds = [self.seed + item for item in items.tolist()]
                statistics.update(extractor(pipeline(batch, seeds)), self._features_of("samples with seeds"), seeds)
        likelihoods = self.likelihoods(pipeline, data, self.num_items, rank, world_size)
        return {**self._results(statistics.compute(), data), **likelihoods}

    def likelihoods(
        self, pipeline: Pipeline, data: DataModule, count: int | None = None, rank: int = 0, world_size: int = 1
    ) -> Results:
        """Means over the first `count` held-out items, or all; `ValueError` if there are fewer.

        With several ranks each does its share, all get the whole. `NonFiniteError` if the model is broken.
        """
        held_out = data.splits["validation"]
        count = count or len(held_out["x"])
        if count > len(held_out["x"]):
            raise ValueError(f"num_items={count}, but only {len(held_out['x'])} items are held out")
        totals: dict[str, float] = {}
        with raised_together():
            for name, likelihood in self.likelihood.items():
                for first in range(rank, count, world_size * self.batch_size):
                    items = torch.arange(count)[first::world_size][: self.batch_size]
                    generators = Generators.from_positions(self.seed, items.tolist()).at("likelihood")
                    for part, values in likelihood(pipeline, collect(held_out, items), generators).items():
                        full = f"bits_per_dim_{name}_{count}" + f"_{part}" * (part != "total")
                        totals[full] = totals.get(full, 0.0) + float(values.sum())
        shares = _gathered(totals, world_size)
        names = dict.fromkeys(name for share in shares for name in share)
        return {name: math.fsum(share.get(name, 0.0) for share in shares) / count for name in names}

    def measure(self, samples: Tensor, data: DataModule) -> Results:
        """The results of samples that were made under `held_out_conditions`."""
        held_out_conditions(data, len(samples))
        statistics = GaussianStatistics(self.extractor.dim, sync_on_compute=False)  # every rank has all samples
        for items in torch.arange(len(samples)).split(self.batch_size):
            features = self.extractor.cpu()(samples.cpu()[items])
            statistics.update(features, self._features_of("samples"), items.tolist())
        return self._results(statistics.compute(), data)

    def _features_of(self, what: str) -> str:
        return f"{self.extractor.metric}: the features of {what}"

    def _results(self, statistics: Statistics, data: DataModule) -> Results:
        n, count = statistics.num_samples, len(data.splits[self.reference]["x"])
        reference = data_statistics(self.extractor, data, self.reference, count, self.batch_size)
        floor = data_statistics(self.extractor, data, "validation", n, self.batch_size)
        name = f"{self.extractor.metric}_{n}"
        return {
            name: frechet_distance(statistics.cpu(), reference),
            f"{name}_floor": frechet_distance(floor, reference),
        }


def _gathered(totals: Results, world_size: int) -> list[Results]:
    """The sums of every rank; one that had no items has none."""
    if world_size == 1:
        return [totals]
    shares: list[Results | None] = [None] * world_size
    torch.distributed.all_gather_object(shares, totals)
    return [share for share in shares if share is not None]


def held_out_conditions(data: DataModule, count: int) -> dict[str, Tensor]:
    """The raw batch of the first `count` held-out items without the data; `ValueError` if there are fewer."""
    held_out = data.splits["validation"]
    if count > len(held_out["x"]):
        raise ValueError(
            f"num_samples={count}, but only {len(held_out['x'])} items are held out: "
            "the floor at equal number would be missing"
        )
    return collect({name: column for name, column in held_out.items() if name != "x"}, torch.arange(count))
