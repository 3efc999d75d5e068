"""The page of all recipes: what was published, what our own points say, what a run cost, and what was not run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from inkdrop.commands.reproduce.judging import shown
from inkdrop.commands.reproduce.points import Points, read_points
from inkdrop.commands.reproduce.recipe import Recipe, names, read_recipe
from inkdrop.commands.reproduce.verdicts import NEAR, REPRODUCED, against_paper
from inkdrop.files.showing import harmless

_HEAD = """\
# Baselines

`python -m inkdrop reproduce --list` prints this page from the recipes in `conf/experiment/` and the stored points in
`conf/baselines/`. Nothing on it is typed by hand. [Reproduce a baseline](reproducing.md) says what the words mean.

"""
_RUN = """\
## Run here

"here" is mean ± standard deviation over training seeds, and the floor is the value of held-out data. The cost is the
mean duration of a run, and where none is recorded an estimate: the operations of the network in training, without
evaluation.

"""
_NOT_RUN = """\
## Not run here

These recipes compose, and their networks have the published number of weights where it is given. We
have no figures for them.

"""


def page(folder: str | None = None) -> str:
    """Returns the page, with the recipes of a further configuration folder."""
    recipes = [read_recipe(name, folder) for name in names(folder)]
    run = [each for each in recipes if not each.needs]
    rows = [row for recipe in run for row in _rows(recipe, read_points(recipe))]
    header = ("recipe", "figure", "published", "here", "floor", "verdict", "measured", "cost of a seed")
    others = [_needs(each) for each in recipes if each.needs]
    text = _HEAD + _RUN + _table(header, rows)
    if others:
        text += "\n" + _NOT_RUN + _table(("recipe", "published", "source", "weights", "needs"), others)
    return text


def _rows(recipe: Recipe, points: Points | None) -> list[Sequence[str]]:
    if points is not None and not points.fits(recipe):
        points = None
    rows: list[Sequence[str]] = []
    cost = _cost(recipe, points)
    for metric, target in recipe.targets.items():
        first = (f"`{recipe.name}`", f"`{metric}`", _published(recipe, str(target)))
        if points is None or not points.values_of(metric):
            rows.append((*first, "not recorded", "", "", "", cost))
            continue
        values, floor = points.values_of(metric), points.floors.get(metric)
        verdict = against_paper(values, target, metric in points.higher)
        word = "" if verdict is None else f"{verdict.word}: {verdict.text}"
        if verdict is not None and verdict.word == REPRODUCED and recipe.differs:
            word = f"{NEAR}: {verdict.text}; not as published: {'; '.join(recipe.differs)}"
        measured = f"{points.date}, {points.hardware}"
        rows.append((*first, shown(values), "" if floor is None else f"{floor:.4g}", word, measured, cost))
    return rows


def _cost(recipe: Recipe, points: Points | None) -> str:
    if points is not None:
        return f"{np.mean(points.seconds) / 60:.1f} min"
    from inkdrop.commands.reproduce.estimate import operations  # torch takes seconds to import

    count = operations(recipe)
    return "" if count is None else f"{count:.2g} operations (estimate)"


def _published(recipe: Recipe, target: str) -> str:
    paper = recipe.source.get("paper", "")
    return target if target == "none" or not paper else f"{target}, {paper}"


def _needs(recipe: Recipe) -> Sequence[str]:
    targets = "; ".join(f"`{metric}` {target}" for metric, target in recipe.targets.items())
    where = ("paper" if "paper" in recipe.source else "code", "place")
    source = ", ".join(recipe.source[key] for key in where if key in recipe.source)
    weights = "" if recipe.weights is None else f"{recipe.weights:,}"
    return f"`{recipe.name}`", targets, source, weights, f"not run: needs {'; '.join(recipe.needs)}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(harmless(each, 500).replace('|', '/') for each in row)} |\n" for row in lines)
