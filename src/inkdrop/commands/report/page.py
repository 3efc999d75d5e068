"""Compares the results of runs and of sampling: a table, and plots of quality against network calls."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inkdrop.commands.report.results import Result, leaves, read_results
from inkdrop.commands.report.strips import strips_of
from inkdrop.errors import UnreadableError
from inkdrop.files.showing import cell, harmless, markdown
from inkdrop.files.writing import replacing, write_text

MAX_PANELS, MAX_LINES = 12, 40  # of a plot
_BESIDE = r"_(floor(_\d+k?)?|baseline)$"  # names of values that are not of the samples


@dataclass(frozen=True)
class Report:
    """A comparison of results: a row of differing settings and of values for each, and reference values for all.

    - `settings`: paths of the settings that differ.
    - `metrics`: names of the metrics.
    - `rows`: the results.
    - `references`: floor and baseline of each metric.
    - `unreadable`: errors of the files that are left out.
    """

    settings: list[str]
    metrics: list[str]
    rows: list[Result]
    references: dict[str, dict[str, float]]
    unreadable: list[str] = field(default_factory=list)

    def table(self) -> list[list[str]]:
        """Returns a header, a row for each result, rows for baseline and floor, and the protocol of each metric."""
        names = self.settings or ["folder"]
        header = [*(harmless(_last(name)) for name in names), "network calls", *self.metrics]
        rows = [
            [
                *(harmless(row.settings.get(name, "") if self.settings else row.name) for name in names),
                str(row.network_calls or ""),
                *(_number(row.metrics.get(name)) for name in self.metrics),
            ]
            for row in self.rows
        ]
        for kind in dict.fromkeys(kind for values in self.references.values() for kind in values):
            values = [_number(self.references.get(name, {}).get(kind)) for name in self.metrics]
            rows.append([kind, *[""] * len(names), *values])
        hashes = [self.protocol(name).get("hash", "unknown") for name in self.metrics]
        return [header, *rows, ["protocol", *[""] * len(names), *hashes]]

    def protocol(self, metric: str) -> dict[str, Any]:
        """Returns the protocol that all values of a metric share."""
        return next((row.protocol(metric) for row in self.rows if row.protocol(metric)), {})

    def markdown(self) -> str:
        """Returns the table in Markdown, followed by the protocol of each metric."""
        header, *rows = [[markdown(each) for each in line] for line in self.table()]
        lines = ["| " + " | ".join(line) + " |" for line in (header, ["---"] * len(header), *rows)]
        for metric in self.metrics:
            facts = self.protocol(metric)
            shown = ", ".join(f"{markdown(name)} {markdown(value)}" for name, value in facts.items() if name != "hash")
            lines.append(f"\n{markdown(metric)}: protocol {markdown(facts.get('hash', 'unknown'))}: {shown}")
        return "\n".join([*lines, ""])

    def write(self, folder: Path) -> list[Path]:
        """Writes `report.md`, `report.csv` and, if network calls differ, `report.png`; returns the files."""
        files = [folder / "report.md", folder / "report.csv"]
        write_text(files[0], self.markdown())
        table = io.StringIO(newline="")
        csv.writer(table).writerows([cell(each) for each in line] for line in self.table())
        write_text(files[1], table.getvalue())
        panels = {name: lines for name in self.metrics[:MAX_PANELS] if (lines := self.curves(name))}
        if panels and len({row.network_calls for row in self.rows}) > 1:
            from inkdrop.pictures.plots import curves

            floors = {name: values.get("floor", 0.0) for name, values in self.references.items()}
            floors = {name: value for name, value in floors.items() if value and _drawable(value)}
            files.append(folder / "report.png")
            with replacing(files[-1]) as file:
                curves(panels, floors, "network calls").savefig(file)
        labels = {row.name: f"{self._label(row, self.settings)}, {row.network_calls} calls" for row in self.rows}
        if strips := strips_of(folder, labels):
            from inkdrop.pictures.plots import strips as drawn

            files.append(folder / "strips.png")
            with replacing(files[-1]) as file:
                drawn(strips).savefig(file)
        return files

    def _label(self, row: Result, settings: Sequence[str], otherwise: str = "") -> str:
        shown = ", ".join(f"{_last(name)} {row.settings.get(name)}" for name in settings)
        return harmless(shown or otherwise or row.name, 80)

    def curves(self, metric: str) -> dict[str, list[tuple[float, float]]]:
        """Returns sorted points (network calls, value) by the differing settings other than the number of steps."""
        own = [name for name in self.settings if _last(name) != "num_steps"]
        lines: dict[str, list[tuple[float, float]]] = {}
        for row in self.rows:
            value = row.metrics.get(metric, math.nan)
            if row.network_calls and _drawable(value):
                lines.setdefault(self._label(row, own, metric), []).append((row.network_calls, value))
        return {label: sorted(points) for label, points in [*lines.items()][:MAX_LINES]}


def report(folder: Path, only: str | None = None, without: Collection[Path] = ()) -> Report:
    """Returns the report on all results in a folder and its subfolders, except in the folders `without`.

    `only` is the hash of a protocol; other values are left out. Files that cannot be read are left out and named.
    Raises `ValueError` if there is no result, or if values of different protocols would share a column.
    """
    left_out = {each.resolve() for each in without}
    files = [file for file in folder.rglob("result.json") if file.parent.resolve() not in left_out]
    results: list[Result] = []
    unreadable: list[str] = []
    for file in sorted(files, key=_numbers):
        try:
            results += read_results(file, folder)
        except UnreadableError as error:
            unreadable.append(str(error))
    if not results:
        if unreadable:
            raise UnreadableError("\n".join(unreadable))
        raise ValueError(
            f"{harmless(folder)} has no result.json with metrics: run train.py, or sample.py with evaluate=true"
        )
    names = dict.fromkeys(name for each in results for name in each.metrics)
    metrics = [name for name in names if not re.search(_BESIDE, name)]
    for metric in metrics:
        if only is not None:
            for each in results:
                if not each.protocol(metric).get("hash", "").startswith(only):
                    each.metrics.pop(metric, None)
        _require_alike(metric, results)
    metrics = [name for name in metrics if any(name in each.metrics for each in results)]
    results = [each for each in results if any(name in each.metrics for name in metrics)]
    if not results:
        raise ValueError(f"--protocol {only} does not occur in {harmless(folder)}: choose a hash of the full table")
    references: dict[str, dict[str, float]] = {}
    for name in names:
        if (match := re.search(_BESIDE, name)) and name[: match.start()] in metrics:
            value = next((each.metrics[name] for each in results if name in each.metrics), math.nan)
            references.setdefault(name[: match.start()], {})[match[1].replace("_", " of ", 1)] = value
    paths = dict.fromkeys(path for each in results for path in each.settings)
    differ = [path for path in paths if len(_values(path, results)) > 1]
    return Report(differ, metrics, results, references, unreadable)


def _values(path: str, results: Sequence[Result]) -> set[str]:
    """Returns the values of a setting over results whose part has this option."""
    parent = path.rpartition(".")[0]
    return {repr(each.settings.get(path)) for each in results if path in each.settings or parent not in each.settings}


def _require_alike(metric: str, results: Sequence[Result]) -> None:
    """Raises `ValueError` if values of this metric are measured under different protocols."""
    protocols = {each.protocol(metric).get("hash", "unknown"): each for each in results if metric in each.metrics}
    if len(protocols) > 1:
        facts = {key: dict(leaves(each.protocol(metric))) for key, each in protocols.items()}
        paths = dict.fromkeys(path for own in facts.values() for path in own if path != "hash")
        differ = [path for path in paths if len({repr(own.get(path)) for own in facts.values()}) > 1]
        lines = [
            f"  {key}, such as {each.name}: "
            + ", ".join(f"{harmless(path)} {harmless(facts[key].get(path))}" for path in differ)
            for key, each in protocols.items()
        ]
        shown = "\n".join(lines)
        raise ValueError(
            f"{metric} is measured under different protocols:\n{shown}\nchoose one of them by --protocol HASH"
        )


def _drawable(value: float) -> bool:
    """Returns whether a plot can show a value, with axes a little beyond it."""
    return value == 0 or 1e-100 < abs(value) < 1e100


def _last(path: str) -> str:
    return path.rpartition(".")[2]


def _number(value: float | None) -> str:
    """Returns a number with five significant digits."""
    return "" if value is None else f"{value:.5g}"


def _numbers(file: Path) -> tuple[list[tuple[int, str]], str]:
    """Returns a sort key by the numbers in the name of a file."""
    return [(int(part or 0), text) for text, part in re.findall(r"(\D*)(\d*)", str(file))], str(file)
