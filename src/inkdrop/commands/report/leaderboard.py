"""Settings of a comparison: results that differ in their seed alone are one setting, with a value for each column."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from inkdrop.commands.report.results import NO_SETTING, Result
from inkdrop.commands.report.statistics import Summary, summary
from inkdrop.files.showing import harmless
from inkdrop.files.value_names import reference_of
from inkdrop.runs.free import within


@dataclass
class Setting:
    """A row of the leaderboard.

    - `values`: what is shown of its options, by column.
    - `runs`: its results, one for each seed.
    - `label`: its name, which no other setting has.
    """

    values: dict[str, str]
    runs: list[Result]
    label: str = ""

    def summary(self, metric: str) -> Summary:
        """Returns mean and interval of a metric over the seeds."""
        return summary([each.metrics[metric] for each in self.runs if metric in each.metrics])

    def by_seed(self, metric: str) -> dict[int, float]:
        """Returns the values of a metric by seed, those that are finite and whose seed is known."""
        pairs = [(each.seed, each.metrics.get(metric, math.nan)) for each in self.runs]
        return {seed: value for seed, value in pairs if seed is not None and math.isfinite(value)}

    def ratio(self, metric: str) -> float | None:
        """Returns the mean of value / floor, or None without a floor."""
        ratios = []
        for each in self.runs:
            floors = [value for name, value in each.metrics.items() if _is_floor(name, metric)]
            if metric in each.metrics and floors and floors[0] > 0:
                ratios.append(each.metrics[metric] / floors[0])
        return summary(ratios).mean if ratios else None

    def cost(self, name: str) -> float | None:
        """Returns the mean of a cost over the runs that have it."""
        known = [each.costs[name] for each in self.runs if name in each.costs]
        return summary(known).mean if known else None


def _is_floor(name: str, metric: str) -> bool:
    reference = reference_of(name)
    return reference is not None and reference[0] == metric and reference[1].startswith("floor")


@dataclass
class Settings:
    """All settings of a comparison.

    - `columns`: the options that differ, by path, with the names that they are shown under.
    - `rows`: the settings.
    - `repeats`: results that repeat another one's setting and seed, and are not counted: (its name, that of the other).
    """

    columns: dict[str, str]
    rows: list[Setting]
    repeats: list[tuple[str, str]] = field(default_factory=list)


def settings(results: Sequence[Result]) -> Settings:
    """Returns the results grouped by their options, of which the seed is none; equal options and seed count once."""
    kinds = dict.fromkeys(each.kind for each in results)
    differ = {kind: _differing([each for each in results if each.kind == kind]) for kind in kinds}
    groups: dict[tuple[Any, ...], list[Result]] = {}
    repeats: list[tuple[str, str]] = []
    for each in results:
        key = (each.kind, *(repr(each.settings.get(path)) for path in differ[each.kind]))
        group = groups.setdefault(key, [])
        same = [i for i, other in enumerate(group) if other.seed == each.seed and each.seed is not None]
        if same:
            repeats.append((each.name, group[same[0]].name))
            group[same[0]] = group[same[0]].completed(each)
        else:
            group.append(each)
    paths = _columns(list(groups.values()), [path for kind in kinds for path in differ[kind]])
    names = short_names(paths)
    rows = [Setting({path: _value(runs[0], path) for path in paths}, runs) for runs in groups.values()]
    for row in rows:
        shown = ", ".join(f"{names[path]}={value}" for path, value in row.values.items() if value)
        row.label = harmless(shown or row.runs[0].name, 120)
    _make_unique(rows)
    return Settings(names, rows, repeats)


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Returns for each path its shortest end that no other path has."""
    names = {}
    for path in paths:
        parts = path.split(".")
        tails = [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        others = [each for each in paths if each != path]
        names[path] = next(
            (tail for tail in tails if not any(f".{each}".endswith(f".{tail}") for each in others)), path
        )
    return {path: harmless(name) for path, name in names.items()}


def _differing(results: Sequence[Result]) -> list[str]:
    """Returns the paths of options with several values; an option that a part does not have is not counted."""
    values: dict[str, set[str]] = {}
    for each in results:
        for path, value in each.settings.items():
            values.setdefault(path, set()).add(repr(value))
    for path in values:
        parent = path.rpartition(".")[0]
        if any(path not in each.settings and parent not in each.settings for each in results):
            values[path].add(repr(None))
    return [path for path, known in values.items() if len(known) > 1]


def _columns(groups: Sequence[Sequence[Result]], differing: Sequence[str]) -> list[str]:
    """Returns the options to show: those that a sweep varied, and as many others as distinguish all settings."""
    firsts = [group[0] for group in groups]
    varied: list[str] = []
    if firsts and all(each.overrides for each in firsts):
        known = dict.fromkeys(path for each in firsts for path in each.overrides if not within(path, NO_SETTING))
        varied = [path for path in known if len({_value(each, path) for each in firsts}) > 1]
    if not varied:
        return list(differing)
    for path in differing:
        shown = [tuple(_value(each, name) for name in varied) for each in firsts]
        if len(set(shown)) == len(shown):
            break
        if len({(*row, _value(each, path)) for row, each in zip(shown, firsts, strict=True)}) > len(set(shown)):
            varied.append(path)
    return varied


def _value(result: Result, path: str) -> str:
    """Returns what is shown of an option: a number of the configuration, and any other value as it was typed."""
    value = result.settings.get(path, "")
    if path in result.overrides and not isinstance(value, int | float):
        value = result.overrides[path]
    return harmless("" if value is None and path == "variant" else value, 80)


def _make_unique(rows: Sequence[Setting]) -> None:
    known: set[str] = set()
    for row in rows:
        label, number = row.label, 2
        while row.label in known:
            row.label, number = f"{label} ({number})", number + 1
        known.add(row.label)


def ordered(rows: Sequence[Setting], metric: str, higher: bool) -> list[Setting]:
    """Returns the settings with the best mean of a metric first; those without a finite one are last."""

    def key(row: Setting) -> float:
        mean = row.summary(metric).mean
        return (-mean if higher else mean) if math.isfinite(mean) else math.inf

    return sorted(rows, key=key)


def levels(
    rows: Sequence[Setting], columns: Mapping[str, str], metric: str
) -> tuple[dict[str, list[str]], list[float]]:
    """Returns for each option its value in each run that has the metric, and the values of the metric."""
    runs = [(row, run) for row in rows for run in row.runs if metric in run.metrics]
    values = {name: [row.values[path] for row, _ in runs] for path, name in columns.items()}
    varying = {name: each for name, each in values.items() if len(set(each)) > 1}
    return varying, [run.metrics[metric] for _, run in runs]
