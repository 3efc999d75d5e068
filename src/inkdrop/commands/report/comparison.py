"""A comparison of settings: what all outputs of the report show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from inkdrop.commands.report.curves import Curve, History, curves
from inkdrop.commands.report.leaderboard import Setting, Settings, levels, ordered
from inkdrop.commands.report.results import COSTS, Result
from inkdrop.commands.report.statistics import (
    Importance,
    Summary,
    front,
    importance,
    nondominated,
    paired,
    summary,
    within_settings,
)
from inkdrop.commands.report.sweep import Listed
from inkdrop.files.value_names import metric_of, reference_of

# The first that differs is what quality is shown against.
_COST_OF_QUALITY = ("network calls", "trained weights", "FLOPs", "seconds")


@dataclass(frozen=True)
class Comparison:
    """A comparison of settings.

    - `title`: the folders that it is about.
    - `settings`: the settings and the options in which they differ, in the order of the folders.
    - `metrics`: names of the metrics, the one that settings are ranked by first.
    - `objectives`: the metrics that the runs name as their objectives.
    - `highest`: objectives whose highest value is searched for.
    - `trials`: trials and runs without a result.
    - `unreadable`: errors of the files that are left out.
    - `known`: what the runs have recorded, by folder.
    """

    title: str
    settings: Settings
    metrics: list[str]
    objectives: list[str]
    highest: frozenset[str]
    trials: list[Listed]
    unreadable: list[str]
    known: Mapping[Path, History]

    @property
    def results(self) -> list[Result]:
        """All results that are counted."""
        return [run for row in self.settings.rows for run in row.runs]

    @property
    def rows(self) -> list[Setting]:
        """The settings, with the best mean of the first metric first."""
        return ordered(self.settings.rows, self.metrics[0], self.is_higher_better(self.metrics[0]))

    def protocol(self, metric: str) -> dict[str, Any]:
        """Returns the protocol that all values of a metric share."""
        return next((each.protocol(metric) for each in self.results if each.protocol(metric)), {})

    def is_higher_better(self, metric: str) -> bool:
        """Returns whether higher values of a metric are better, as its protocol or the objective says."""
        return metric in self.highest or bool(self.protocol(metric).get("better") == "higher")

    def is_companion(self, metric: str) -> bool:
        """Returns whether a value is the interval or the best of repeats of a metric that is shown itself."""
        base, _, variant = metric.partition("@")
        return metric_of(metric) != base and any(
            f"{metric_of(metric)}{at}" in self.metrics for at in ("", f"@{variant}")
        )

    @cached_property
    def references(self) -> dict[str, dict[str, float]]:
        """The floors and the baseline of each metric, as the first result that has them says."""
        found: dict[str, dict[str, float]] = {}
        for each in self.results:
            for name, value in each.metrics.items():
                if (reference := reference_of(name)) is not None and reference[0] in self.metrics:
                    found.setdefault(reference[0], {}).setdefault(reference[1], value)
        return found

    @property
    def costs(self) -> list[str]:
        """The costs that some result has."""
        return [name for name in COSTS if any(name in each.costs for each in self.results)]

    def best(self, metric: str) -> Setting:
        """Returns the setting with the best mean of a metric."""
        return ordered(self.settings.rows, metric, self.is_higher_better(metric))[0]

    @cached_property
    def fresh(self) -> dict[str, Summary]:
        """The first metric over seeds that had no part in a choice, by the label of the setting.

        They are seeds that most settings do not have, of settings that also have one that most have: the best settings
        of a search are confirmed with such seeds, because the best of many noisy values is too good.
        """
        metric, rows = self.metrics[0], self.settings.rows
        counts = Counter(seed for row in rows for seed in row.by_seed(metric))
        shared = {seed for seed, count in counts.items() if 2 * count > len(rows)}
        found = {}
        for row in rows:
            values = row.by_seed(metric)
            if values.keys() & shared and (alone := [values[seed] for seed in values.keys() - shared]):
                found[row.label] = summary(alone)
        return found

    def differences(self, metric: str) -> list[tuple[Setting, Summary]]:
        """Returns each other setting with its differences to the best over equal seeds, the best first."""
        best, *others = ordered(self.settings.rows, metric, self.is_higher_better(metric))
        values = best.by_seed(metric)
        return [(row, paired(values, row.by_seed(metric))) for row in others if row.by_seed(metric)]

    def importance(self, metric: str) -> tuple[list[Importance], float | None]:
        """Returns what each option explains of a metric, and the share of the seeds."""
        options, values = levels(self.settings.rows, self.settings.columns, metric)
        labels = [row.label for row in self.settings.rows for run in row.runs if metric in run.metrics]
        shares = importance(options, values, self.is_higher_better(metric)) if len(values) > 2 else []
        return [each for each in shares if each.share is not None], within_settings(labels, values)

    @property
    def cost(self) -> str | None:
        """The cost that quality is shown against: the first of network calls, FLOPs and seconds that differs."""
        for name in _COST_OF_QUALITY:
            if len({row.cost(name) for row in self.settings.rows} - {None}) > 1:
                return name
        return None

    def front(self, metric: str, cost: str) -> list[Setting]:
        """Returns the settings of which no other one is as cheap and better, or cheaper and as good."""
        rows = [row for row in self.settings.rows if row.cost(cost) is not None]
        points = [(row.cost(cost) or 0.0, row.summary(metric).mean) for row in rows]
        return [rows[i] for i in front(points, self.is_higher_better(metric))]

    def best_in(self, metrics: Sequence[str]) -> list[Setting]:
        """Returns the settings of which no other one is as good in all of these metrics and better in one."""
        points = [[row.summary(name).mean for name in metrics] for row in self.rows]
        highest = [self.is_higher_better(name) for name in metrics]
        return [self.rows[i] for i in nondominated(points, highest)]

    @cached_property
    def curves(self) -> dict[str, dict[str, Curve]]:
        """The learning curves of each metric and loss, by the label of the setting."""
        return curves(self.rows, [name for name in self.metrics if not self.is_companion(name)], self.known)

    @property
    def facts(self) -> dict[str, list[tuple[str, int]]]:
        """Versions, commit and threads: each value with the number of its results, the most frequent first."""
        names = dict.fromkeys(name for each in self.results for name in each.facts)
        found = {}
        for name in names:
            values = [each.facts.get(name, "unknown") for each in self.results]
            found[name] = Counter(values).most_common()
        return found
