"""From the runs of a recipe to its verdict: compliance, the paper, ourselves, and one exit code."""

from __future__ import annotations

import datetime
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from inkdrop.commands.reproduce.points import Points, plain
from inkdrop.commands.reproduce.recipe import Recipe
from inkdrop.commands.reproduce.runs import Runs
from inkdrop.commands.reproduce.statistics import LEVEL
from inkdrop.commands.reproduce.verdicts import (
    BETTER,
    MISSED,
    NEAR,
    REPRODUCED,
    SAME,
    UNDECIDED,
    WORSE,
    Verdict,
    against_ourselves,
    against_paper,
)
from inkdrop.files.showing import harmless

PASSED, FAILED, OPEN = 0, 6, 7  # exit codes
FEWEST = 10  # seeds of our own points without which nothing passes


@dataclass(frozen=True)
class Judged:
    """What is said of one target.

    - `metric`: its name.
    - `values`: the value of each seed.
    - `floor`: the value of held-out data, or None.
    - `published`: the figure of the paper as text.
    - `paper`, `ourselves`: the verdicts, or None where there is nothing to compare with.
    """

    metric: str
    values: dict[int, float]
    floor: float | None
    published: str
    paper: Verdict | None
    ourselves: Verdict | None

    def line(self) -> str:
        """Returns the line of the target."""
        numbers = list(self.values.values())
        parts = [f"{self.metric} = {shown(numbers)}" if numbers else f"{self.metric}: no value"]
        parts += [f"floor {self.floor:.4g}"] if self.floor is not None else []
        if self.paper is not None:
            parts.append(f"paper {self.published}: {self.paper.word} ({self.paper.text})")
        if self.ourselves is not None:
            parts.append(f"ourselves: {self.ourselves.word} ({self.ourselves.text})")
        return "; ".join(parts)


@dataclass(frozen=True)
class Judgement:
    """The verdict on a recipe: its targets, and the reasons why it cannot pass."""

    recipe: Recipe
    targets: list[Judged]
    reasons: list[str]
    cost: dict[str, Any]

    @property
    def exit_code(self) -> int:
        """0 for reproduced and not worse, 6 for missed or worse, 7 for what is not decided."""
        words = [each.word for target in self.targets for each in (target.paper, target.ourselves) if each is not None]
        if {MISSED, WORSE} & set(words):
            return FAILED
        ours = [target.ourselves.word for target in self.targets if target.ourselves is not None]
        passed = all(target.paper is None or target.paper.word == REPRODUCED for target in self.targets)
        passed = passed and len(ours) == len(self.targets) and set(ours) <= {SAME, BETTER}
        return PASSED if passed and not self.reasons else OPEN

    @property
    def word(self) -> str:
        """The verdict in a word."""
        words = {each.word for target in self.targets for each in (target.paper, target.ourselves) if each is not None}
        if bad := [word for word in (MISSED, WORSE) if word in words]:
            return bad[0]
        if self.exit_code == PASSED:
            return REPRODUCED if self.recipe.is_published else SAME
        papers = {target.paper.word for target in self.targets if target.paper is not None}
        return next((word for word in (BETTER, NEAR) if word in papers and not self.reasons), UNDECIDED)

    def text(self) -> str:
        """Returns the lines that are printed."""
        lines = [f"{self.recipe.name}: {self.word}", *(f"  {each.line()}" for each in self.targets)]
        return "\n".join([*lines, *(f"  cannot pass: {each}" for each in self.reasons)])

    def record(self) -> dict[str, Any]:
        """Returns the content of `reproduction.json`."""
        recipe = self.recipe
        return {
            "recipe": recipe.name,
            "verdict": self.word,
            "exit_code": self.exit_code,
            "date": str(datetime.date.today()),
            "source": recipe.source,
            "differs": recipe.differs,
            "cannot_pass": self.reasons,
            "targets": {each.metric: _record(each) for each in self.targets},
            "cost": self.cost,
        }


def judged(
    recipe: Recipe, given: Recipe, runs: Runs, points: Points | None, level: float = LEVEL, seeds: Sequence[int] = ()
) -> Judgement:
    """Returns the verdict on the runs of a recipe.

    - `recipe`: the recipe as it is written.
    - `given`: the recipe with the options of the command line, of which the runs are.
    - `runs`: what they have measured.
    - `points`: our own points, or None.
    - `level`: chance of a false alarm of the comparison with our own points.
    - `seeds`: the seeds that were asked for.
    """
    reasons = [*changed(recipe, given), *_not_pinned(recipe, runs), *_failures(runs, seeds)]
    usable = points if points is not None and points.fits(recipe) else None
    if points is None:
        reasons.append(
            f"there are no points of our own: `inkdrop reproduce {recipe.name} seeds=20 --record` writes them"
        )
    elif usable is None:
        reasons.append("our own points are of another configuration: record them again")
    elif (few := min(map(len, usable.values.values()))) < FEWEST:
        reasons.append(f"our own points are of {few} seeds: {FEWEST} or more are needed, so record them with seeds=20")
    targets = []
    for metric, target in given.targets.items():
        found = runs.values(metric)
        values = {seed: float(value) for seed, value in found.items() if value is not None}
        if len(values) < len(found) or not found:
            reasons.append(f"{harmless(metric)} was not measured")
        if wrong := [seed for seed, value in values.items() if not math.isfinite(value)]:
            reasons.append(f"{harmless(metric)} of seed {wrong[0]} is not finite")
        higher, numbers = runs.is_higher_better(metric), list(values.values())
        paper = against_paper(numbers, target, higher)
        if paper is not None and paper.word == REPRODUCED and recipe.differs:
            paper = replace(paper, word=NEAR)
        stored = usable.values_of(metric) if usable else []
        ourselves = against_ourselves(numbers, stored, higher, level)
        targets.append(Judged(metric, values, runs.floor(metric), str(target), paper, ourselves))
    return Judgement(given, targets, reasons, cost_of(runs))


def changed(recipe: Recipe, given: Recipe) -> list[str]:
    """Returns in words how the options of runs differ from those of the recipe."""
    before, after = plain(recipe.options), plain(given.options)
    paths = [path for path in sorted(before.keys() | after.keys()) if before.get(path) != after.get(path)]
    found = [f"{path}={_short(after.get(path))} instead of {_short(before.get(path))}" for path in paths]
    if recipe.targets != given.targets:
        found.append("the published figures were changed on the command line")
    return found


def _not_pinned(recipe: Recipe, runs: Runs) -> list[str]:
    """Returns what of measurement, data and network is not that of the recipe."""
    if not runs.results:
        return []
    found: dict[str, set[Any]] = {"protocol": {*runs.protocols()}, "data": {*runs.fingerprints()}}
    found["weights"] = {runs.weights()}
    reasons = []
    for name, values in found.items():
        pin = getattr(recipe, name)
        if pin is None:
            shown = ", ".join(map(str, values))
            reasons.append(f"baseline.{name} is not pinned: the runs have {shown}")
        elif values != {pin}:
            other = ", ".join(map(str, values - {pin}))
            reasons.append(f"{_PINNED[name]} is {other}, and that of the recipe is {pin}")
    return reasons


_PINNED = {
    "protocol": "the hash of the measurement",
    "data": "the fingerprint of the data",
    "weights": "the number of weights",
}


def _failures(runs: Runs, seeds: Sequence[int]) -> list[str]:
    return [f"seed {seed} has no result: {runs.failed[seed]}" for seed in seeds if seed in runs.failed]


def cost_of(runs: Runs) -> dict[str, Any]:
    """Returns what the runs took: hardware, seconds, samples and operations."""
    results = list(runs.results.values())
    flops = [each["flops"] for each in results if each.get("flops")]
    return {
        "hardware": hardware(),
        "threads": next((each.get("threads") for each in results), None),
        "seconds": [each.get("seconds") for each in results],
        "steps": next((each.get("steps") for each in results), None),
        "flops": float(np.mean(flops)) if flops else None,
    }


def hardware() -> str:
    """Returns the processors of this machine, and its GPUs."""
    import torch

    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return ", ".join([f"{os.cpu_count()} CPU cores", *gpus])


def shown(values: Sequence[float]) -> str:
    """Returns mean and standard deviation of values as text."""
    deviation = f" ± {np.std(values, ddof=1):.2g}" if len(values) > 1 else ""
    return f"{np.mean(values):.4g}{deviation} ({len(values)} seed{'s' * (len(values) != 1)})"


def _record(target: Judged) -> Mapping[str, Any]:
    verdicts = {"paper": target.paper, "ourselves": target.ourselves}
    return {
        "published": target.published,
        "values": {str(seed): value if math.isfinite(value) else str(value) for seed, value in target.values.items()},
        "floor": target.floor,
        **{name: None if each is None else each.record() for name, each in verdicts.items()},
    }


def _short(value: Any) -> str:
    return "nothing" if value is None else harmless(value, 80)
