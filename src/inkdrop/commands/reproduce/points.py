"""Our own reference points: what the seeds of a recipe have measured, stored in `baselines/NAME.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Len

from inkdrop.commands.reproduce.recipe import Recipe
from inkdrop.errors import UnreadableError
from inkdrop.files import read_json
from inkdrop.files.fields import wrong_field
from inkdrop.files.showing import harmless
from inkdrop.files.writing import make_folder, write_text

_NUMBER = float | int
_VALUES = Annotated[dict[str, _NUMBER], Len(1, 1000)]
_FIELDS: dict[str, Any] = {
    "recipe": str,
    "date": str,
    "commit": str | None,
    "versions": dict[str, str],
    "hardware": str,
    "threads": int,
    "options": dict[str, Any],
    "protocol": str,
    "data": str,
    "weights": int,
    "higher": list[str],
    "values": Annotated[dict[str, _VALUES], Len(1, 50)],
    "floors": dict[str, _NUMBER],
    "seconds": list[_NUMBER],
    "samples": int,
    "flops": _NUMBER | None,
}


@dataclass(frozen=True)
class Points:
    """The stored points of a recipe.

    - `recipe`: its name.
    - `date`, `commit`, `versions`, `hardware`, `threads`: when, by which code and where they were measured.
    - `options`: the options of the runs that matter, by path.
    - `protocol`, `data`, `weights`: hash of the measurement, fingerprint of the data, number of weights.
    - `higher`: metrics whose higher values are better.
    - `values`: for each metric the value of each seed.
    - `floors`: the floor of each metric that has one.
    - `seconds`: duration of each run.
    - `samples`: training samples of a run.
    - `flops`: operations of a run, or None where they are not known.
    """

    recipe: str
    date: str
    commit: str | None
    versions: dict[str, str]
    hardware: str
    threads: int
    options: dict[str, Any]
    protocol: str
    data: str
    weights: int
    higher: list[str]
    values: dict[str, dict[str, float]]
    floors: dict[str, float]
    seconds: list[float]
    samples: int
    flops: float | None = None

    def values_of(self, metric: str) -> list[float]:
        """Returns the values of a metric, or none."""
        return list(self.values.get(metric, {}).values())

    def fits(self, recipe: Recipe) -> bool:
        """Returns whether the points are of the configuration of a recipe."""
        return plain(self.options) == plain(recipe.options)


def place_of(recipe: Recipe) -> Path:
    """Returns the file of the points of a recipe, in the configuration folder that has the recipe."""
    return recipe.folder / "baselines" / f"{recipe.name}.json"


def read_points(recipe: Recipe) -> Points | None:
    """Returns the stored points of a recipe, or None; raises `UnreadableError` for a file of another format."""
    file = place_of(recipe)
    if not file.is_file():
        return None
    content: dict[str, Any] = read_json(file)
    wrong = wrong_field(content, _FIELDS, set(_FIELDS) - {"flops"})
    if wrong is None and (unknown := sorted(set(content) - set(_FIELDS))):
        wrong = f"{harmless(unknown[0])} is unknown"
    if wrong is not None:
        raise UnreadableError(f"{harmless(file)} has no points of a recipe: {wrong}")
    return Points(**content)


def write_points(recipe: Recipe, points: Points) -> Path:
    """Writes the points of a recipe, and returns their file."""
    file = place_of(recipe)
    make_folder(file.parent)
    write_text(file, json.dumps(vars(points), indent=1, allow_nan=False) + "\n")
    return file


def plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns options as a JSON file keeps them."""
    kept: dict[str, Any] = json.loads(json.dumps(options, default=str))
    return kept
