"""Learning curves of settings, from the `metrics.jsonl` of their runs: the mean and the range over seeds."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from inkdrop.commands.report.leaderboard import Setting
from inkdrop.commands.report.results import Result
from inkdrop.errors import UnreadableError
from inkdrop.files import read_json_lines

MAX_POINTS = 120  # of a curve
_MAX_ROWS = 20_000  # of a record
_LARGEST = 1e100  # of a value that is drawn
_LOSSES = ("validation/loss", "train/loss")
_SPEED = "train/samples_per_second"
History = dict[str, dict[int, float]]  # the values of each name by step


@dataclass(frozen=True)
class Curve:
    """The mean of a metric over the seeds of a setting, and the lowest and highest of them, at each step."""

    steps: list[int]
    mean: list[float]
    low: list[float]
    high: list[float]


def read_history(folder: Path, names: Collection[str]) -> History:
    """Returns the values of these names in the record of a run; it is empty without a record that can be read."""
    history: History = {}
    try:
        for row in itertools.islice(read_json_lines(folder / "metrics.jsonl"), _MAX_ROWS):
            step = row.get("step")
            if type(step) is not int or not 0 <= step < 2**53:
                continue
            for name in names & row.keys():
                if type(value := row[name]) in (int, float) and abs(value) < _LARGEST:  # nan is not
                    history.setdefault(name, {})[step] = float(value)
    except UnreadableError:
        pass
    return history


def histories(results: Sequence[Result], metrics: Sequence[str]) -> dict[Path, History]:
    """Returns the records of all runs by their folders, with the losses, the metrics and their variants."""
    variants = sorted({f"@{each.variant}" for each in results if each.variant} | {""})
    names = {f"{metric}{variant}" for metric in metrics for variant in variants} | {*_LOSSES, _SPEED}
    folders = dict.fromkeys(each.folder for each in results if each.kind == "run")
    return {folder: read_history(folder, names) for folder in folders}


def with_speed(result: Result, known: Mapping[Path, History]) -> Result:
    """Returns a result with the median of its logged samples per second, if it has no other."""
    logged = known.get(result.folder, {}).get(_SPEED, {})
    if not logged or "samples per second" in result.costs:
        return result
    return replace(result, costs={**result.costs, "samples per second": statistics.median(logged.values())})


def curves(
    rows: Sequence[Setting], metrics: Sequence[str], known: Mapping[Path, History]
) -> dict[str, dict[str, Curve]]:
    """Returns the learning curves of each metric and loss that changes during training, by the label of the setting."""
    drawn: dict[str, dict[str, Curve]] = {}
    for name in dict.fromkeys([*metrics, *_LOSSES]):
        found: dict[str, Curve] = {}
        for row in rows:
            logged = [_logged(run, name, known) for run in row.runs]
            if (curve := over_seeds([each for each in logged if each])) is not None:
                found[row.label] = curve
        if any(len(curve.steps) > 1 for curve in found.values()):
            drawn[name] = found
    return drawn


def _logged(run: Result, name: str, known: Mapping[Path, History]) -> dict[int, float]:
    """Returns the values of a name by step; those of a variant have its name, and losses belong to the run itself."""
    history = known.get(run.folder, {})
    if run.variant:
        return history.get(f"{name}@{run.variant}", {})
    return history.get(name, {})


def over_seeds(logged: Sequence[Mapping[int, float]]) -> Curve | None:
    """Returns mean, lowest and highest over runs at each step, of at most `MAX_POINTS` steps.

    Of more steps, those of one of `MAX_POINTS` equal ranges are one point: each run's mean in it, at its last step.
    """
    steps = sorted({step for each in logged for step in each})
    if not steps:
        return None
    width = (steps[-1] - steps[0] + 1) / MAX_POINTS if len(steps) > MAX_POINTS else 0
    places: dict[int, list[list[float]]] = {}
    last: dict[int, int] = {}
    for number, each in enumerate(logged):
        for step, value in each.items():
            place = math.floor((step - steps[0]) / width) if width else step
            places.setdefault(place, [[] for _ in logged])[number].append(value)
            last[place] = max(last.get(place, 0), step)
    curve = Curve([], [], [], [])
    for place in sorted(places):
        means = [statistics.fmean(part) for part in places[place] if part]
        curve.steps.append(last[place])
        curve.mean.append(statistics.fmean(means))
        curve.low.append(min(means))
        curve.high.append(max(means))
    return curve
