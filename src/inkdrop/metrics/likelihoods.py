"""Likelihoods of held-out items: means over the items and over all ranks."""

from __future__ import annotations

import math
from typing import Any

from inkdrop.data.loaders import collect
from inkdrop.data.module import DataModule
from inkdrop.distributed.ranks import from_all_ranks, raised_together, share
from inkdrop.likelihood import Likelihood
from inkdrop.metrics.metric import Results
from inkdrop.metrics.protocol import short
from inkdrop.pipeline import Pipeline
from inkdrop.randomness import Generators


def of_held_out(
    name: str,
    likelihood: Likelihood,
    pipeline: Pipeline,
    data: DataModule,
    split: str,
    count: int,
    batch_size: int,
    seed: int,
) -> Results:
    """Returns `{unit}_{name}_{count}`, and with `_{part}` its parts, over the first `count` held-out items.

    - `name`: the name of the likelihood in the results.
    - `likelihood`: what is computed of each item.
    - `pipeline`: the model.
    - `data`, `split`: the held-out items.
    - `count`: number of items.
    - `batch_size`: items at a time.
    - `seed`: seed of the random numbers of an item.

    The ranks share the work, and all get the results. Raises `NonFiniteError` if a value is not finite.
    """
    totals: dict[str, float] = {}
    held_out = data.splits[split]
    with raised_together():
        for items in share(count, batch_size):
            generators = Generators.from_positions(seed, items.tolist()).at("likelihood")
            for part, values in likelihood(pipeline, collect(held_out, items), generators).items():
                totals[part] = totals.get(part, 0.0) + float(values.sum())
    everyone = from_all_ranks(totals)
    full = f"{likelihood.unit}_{name}_{short(count)}"
    parts = dict.fromkeys(part for each in everyone for part in each)
    means = {part: math.fsum(each.get(part, 0.0) for each in everyone) / count for part in parts}
    return {full + f"_{part}" * (part != "total"): value for part, value in likelihood.summary(means).items()}


def settings_of(likelihood: Likelihood, data: DataModule, count: int, seed: int) -> dict[str, Any]:
    """Returns what such a mean depends on besides the model, which is independent of how samples are measured."""
    items = {"data": type(data).__name__, "fingerprint": data.fingerprint, "num_items": count}
    return {**likelihood.settings(), **items, "seed": seed}
