"""Finds the results below folders, with the options of each run and the trial of a sweep that it belongs to."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from inkdrop.commands.report.results import Result, read_results
from inkdrop.commands.report.sweep import Listed, listed
from inkdrop.commands.sweep.objectives import Objective, objectives_of
from inkdrop.commands.sweep.record import NAME as SWEEP
from inkdrop.commands.sweep.trials import FAILED, FINISHED, REFUSED
from inkdrop.configuration.moved import renamed
from inkdrop.errors import UnreadableError
from inkdrop.files import read_yaml

RESULT, CONFIG, RECORD = "result.json", "config.yaml", "metrics.jsonl"


@dataclass
class Collected:
    """What is below the folders.

    - `results`: all results, in the order of the numbers in their names.
    - `trials`: trials and runs without a result.
    - `objectives`: metrics that the runs name as their objective.
    - `unreadable`: errors of the files that are left out.
    """

    results: list[Result] = field(default_factory=list)
    trials: list[Listed] = field(default_factory=list)
    objectives: list[Objective] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Place:
    """A folder below those of the report: what it is called, and the names of its files."""

    path: Path
    name: str
    files: frozenset[str]


def collected(folders: Sequence[Path], without: Collection[Path] = ()) -> Collected:
    """Returns the results below folders, except in the folders `without`; files that cannot be read are named."""
    found, left_out = Collected(), {each.resolve() for each in without}
    places = {each.path.absolute(): each for each in _places(folders)}
    trials = _trials(places, found)
    for path in sorted(places, key=_numbers):
        place, trial = places[path], trials.get(path)
        if path.resolve() in left_out or (trial is not None and trial.state in (FAILED, REFUSED)):
            continue
        if RESULT in place.files:
            if _add(place, trial, found):
                trials.pop(path, None)
        elif trial is None and {CONFIG, RECORD} <= place.files:
            found.trials.append(Listed(place.name, path, {}, "unfinished", "it has no result.json"))
    found.trials = [*(each for each in trials.values() if each.state != FINISHED), *found.trials]
    return found


def _places(folders: Sequence[Path]) -> Iterator[_Place]:
    """Yields every folder below `folders` that has files of a run or of a sweep; no link is followed."""
    for folder in folders:
        prefix = Path(folder.resolve().name) if len(folders) > 1 else Path()
        for root, inner, files in os.walk(folder):
            if names := {RESULT, CONFIG, RECORD, SWEEP} & {*files, *inner}:  # a folder of such a name cannot be read
                yield _Place(Path(root), str(prefix / Path(root).relative_to(folder)), frozenset(names))


def _trials(places: dict[Path, _Place], found: Collected) -> dict[Path, Listed]:
    """Returns the trials of all sweeps by their folders."""
    trials: dict[Path, Listed] = {}
    for place in places.values():
        if SWEEP not in place.files:
            continue
        try:
            found_here = listed(place.path, "" if place.name == "." else f"{place.name}/")
        except UnreadableError as error:
            found.unreadable.append(str(error))
            continue
        trials |= {each.folder.absolute(): each for each in found_here}
    return trials


def _add(place: _Place, trial: Listed | None, found: Collected) -> bool:
    """Adds the results of a folder; returns whether there are any."""
    config: Any = None
    try:
        if CONFIG in place.files:
            config = renamed(read_yaml(place.path / CONFIG))
        results = read_results(place.path / RESULT, place.name, config)
    except UnreadableError as error:
        found.unreadable.append(str(error))
        return False
    if config and isinstance(config.get("objective"), str | list):
        found.objectives += objectives_of(config["objective"])
    if trial is not None:
        results = [replace(each, overrides=trial.overrides) for each in results]
    found.results += results
    return bool(results)


def _numbers(path: Path) -> list[tuple[str, int]]:
    """Returns a sort key by which numbers in the name of a folder are in the order of their values."""
    return [(text, int(digits or -1)) for text, digits in re.findall(r"(\D*)(\d*)", str(path))]
