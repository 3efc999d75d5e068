"""Stores what the seeds of a recipe have measured as our own points."""

from __future__ import annotations

import datetime
from pathlib import Path

from inkdrop.commands.reproduce.judging import Judgement, changed, hardware
from inkdrop.commands.reproduce.points import Points, plain, write_points
from inkdrop.commands.reproduce.recipe import Recipe
from inkdrop.commands.reproduce.runs import Runs
from inkdrop.errors import ConfigurationError

_ALLOWED = ("there are no points of our own", "our own points are of ")


def record(recipe: Recipe, judgement: Judgement, runs: Runs) -> Path:
    """Writes the points of a recipe, and returns their file.

    Raises `ConfigurationError` for changed options, a missing seed, a value that is not finite, or what is not pinned.
    """
    reasons = [
        *changed(recipe, judgement.recipe),
        *(each for each in judgement.reasons if not each.startswith(_ALLOWED)),
    ]
    if reasons:
        raise ConfigurationError(f"nothing is recorded: {reasons[0]}")
    results = runs.results
    first = next(iter(results.values()))
    steps, batch = int(first["steps"]), int(recipe.options.get("data.batch_size", 0))
    seconds = [float(each["seconds"]) for each in results.values()]
    weights = runs.weights()
    assert weights is not None
    points = Points(
        recipe=recipe.name,
        date=str(datetime.date.today()),
        commit=first.get("git_commit"),
        versions=dict(first.get("versions", {})),
        hardware=hardware(),
        threads=int(first.get("threads", 1)),
        options=plain(recipe.options),
        protocol=next(iter(runs.protocols())),
        data=next(iter(runs.fingerprints())),
        weights=weights,
        higher=[metric for metric in recipe.targets if runs.is_higher_better(metric)],
        values={each.metric: {str(seed): value for seed, value in each.values.items()} for each in judgement.targets},
        floors={each.metric: each.floor for each in judgement.targets if each.floor is not None},
        seconds=seconds,
        samples=steps * batch * int(recipe.options.get("trainer.accumulate_grad_batches", 1)),
        flops=judgement.cost["flops"],
    )
    return write_points(recipe, points)
