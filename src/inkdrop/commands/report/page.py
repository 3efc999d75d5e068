"""The report on the results below folders, with its outputs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from inkdrop.commands.report.collecting import Collected, collected
from inkdrop.commands.report.comparison import Comparison
from inkdrop.commands.report.curves import histories, with_speed
from inkdrop.commands.report.leaderboard import settings
from inkdrop.commands.report.results import Result, leaves
from inkdrop.commands.report.texts import markdown_page, table
from inkdrop.commands.report.writing import write
from inkdrop.errors import UnreadableError
from inkdrop.files.showing import harmless
from inkdrop.files.value_names import reference_of


class Report(Comparison):
    """A comparison with its outputs."""

    def table(self) -> list[list[str]]:
        """Returns the leaderboard as cells: a header, the settings, the references, and the protocols."""
        return table(self)

    def markdown(self) -> str:
        """Returns all tables of the report in Markdown."""
        return markdown_page(self)

    def write(self, folder: Path) -> list[Path]:
        """Writes the report to a folder in all formats, and returns the files."""
        return write(self, folder)


def report(
    folders: Path | Sequence[Path], only: str | None = None, without: Collection[Path] = (), by: str | None = None
) -> Report:
    """Returns the report on all results in folders and their subfolders, except in the folders `without`.

    - `folders`: a folder, or several.
    - `only`: hash of a protocol; values of others are left out.
    - `without`: folders that are left out.
    - `by`: the metric that settings are ranked by; None is the objective of the sweep, or else the first metric.

    Files that cannot be read are left out and named. Raises `ValueError` if there is no result, or if values of
    different protocols would share a column.
    """
    places = [folders] if isinstance(folders, Path) else list(folders)
    found = collected(places, without)
    named = ", ".join(harmless(each) for each in places)
    if not found.results and not found.trials:
        if found.unreadable:
            raise UnreadableError("\n".join(found.unreadable))
        raise ValueError(f"{named} has no result.json with metrics: run train.py, or sample.py with evaluate=true")
    metrics = _metrics(found)
    for metric in metrics:
        if only is not None:
            for each in found.results:
                if not each.protocol(metric).get("hash", "").startswith(only):
                    each.metrics.pop(metric, None)
        _require_alike(metric, found.results)
    metrics = _ranked([name for name in metrics if any(name in each.metrics for each in found.results)], found, by)
    results = [each for each in found.results if any(name in each.metrics for name in metrics)]
    if only is not None and not results:
        raise ValueError(f"--protocol {harmless(only)} does not occur in {named}: choose a hash of the full table")
    if not results:
        if found.unreadable:
            raise UnreadableError("\n".join(found.unreadable))
        lines = [f"  {each.name}: {each.state} {each.reason}" for each in found.trials[:20]]
        raise ValueError("\n".join([f"{named} has no result yet; its trials:", *lines]))
    known = histories(results, metrics)
    grouped = settings([with_speed(each, known) for each in results])
    title = ", ".join(harmless(each.resolve().name) for each in places)
    objectives = [name for name in dict.fromkeys(each.name for each in found.objectives) if name in metrics]
    highest = frozenset(each.name for each in found.objectives if each.highest)
    return Report(title, grouped, metrics, objectives, highest, found.trials, found.unreadable, known)


def _metrics(found: Collected) -> list[str]:
    """Returns the values that are compared: those with a protocol and the objectives, or all if there are none."""
    names = dict.fromkeys(name for each in found.results for name in each.metrics if reference_of(name) is None)
    optimized = {each.name for each in found.objectives}
    chosen = [name for name in names if name in optimized or any(each.protocol(name) for each in found.results)]
    return chosen or list(names)


def _ranked(metrics: list[str], found: Collected, by: str | None) -> list[str]:
    """Returns the metrics with the one first that settings are ranked by; raises `ValueError` for an unknown one."""
    if by is not None and by not in metrics:
        raise ValueError(f"--metric {harmless(by)} is not measured; available: {', '.join(metrics[:20])}")
    first = (
        [by]
        if by is not None
        else [name for name in dict.fromkeys(each.name for each in found.objectives) if name in metrics]
    )
    return [*first, *(name for name in metrics if name not in first)]


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
