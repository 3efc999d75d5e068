"""Trials of a sweep: what distinguishes them, and the names of their folders."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from inkdrop.configuration.secrets import masked_override

WAITING, RUNNING, FINISHED, FAILED, REFUSED, INTERRUPTED, PRUNED = STATES = (
    "waiting",
    "running",
    "finished",
    "failed",
    "refused",
    "interrupted",
    "pruned",
)
_LONGEST_VALUE, _LONGEST_NAME = 40, 100  # characters


@dataclass
class Trial:
    """One trial of a sweep.

    - `name`: name of its folder within that of the sweep.
    - `identity`: SHA-256 of its options that matter.
    - `overrides`: its options as one would type them, without `output_dir`.
    - `state`: one of `STATES`.
    - `attempts`: number of processes that were started for it.
    - `exit_code`: exit code of the last of them, or None.
    - `steps`, `max_steps`: number of optimizer steps that are done, and that it has.
    - `seconds`: time that it ran, in seconds.
    - `objective`: values that the sweep optimizes, if it has finished.
    - `message`: why it did not finish.
    """

    name: str
    identity: str
    overrides: list[str]
    state: str = WAITING
    attempts: int = 0
    exit_code: int | None = None
    steps: int = 0
    max_steps: int = 0
    seconds: float = 0.0
    objective: list[float] = field(default_factory=list)
    message: str = ""

    def record(self) -> dict[str, Any]:
        """Returns what `sweep.json` keeps of it; secrets among the options are masked."""
        return {**vars(self), "overrides": [*map(masked_override, self.overrides)], "seconds": round(self.seconds, 1)}


def keys_that_differ(trials: Sequence[Mapping[str, str]]) -> list[str]:
    """Returns the options that have several values over these trials, each of which maps options to values."""
    keys = dict.fromkeys(key for each in trials for key in each)
    return [key for key in keys if len({each.get(key) for each in trials}) > 1]


def split(override: str) -> tuple[str, str]:
    """Returns the option and the value of an override, without the signs for adding and removing."""
    key, _, value = override.partition("=")
    return key.lstrip("+~"), value


def name_of(override_values: Mapping[str, str], keys: Iterable[str], taken: Collection[str], identity: str) -> str:
    """Returns the name of a trial's folder: its values of these options, shortened, and made unique where needed.

    - `override_values`: values by option.
    - `keys`: options that differ between trials.
    - `taken`: names of other trials.
    - `identity`: what distinguishes it from trials of the same name.
    """
    keys = [key for key in keys if key in override_values]
    short = _shortened(keys)
    parts = (f"{short[key]}={_readable(override_values[key])}" for key in keys)
    name = ",".join(parts) or "trial"
    if len(name) > _LONGEST_NAME:
        name = f"{name[: _LONGEST_NAME - 9]}-{identity[:8]}"
    if name.lower() in {each.lower() for each in taken}:  # some file systems do not tell a from A
        name = f"{name}-{identity[:8]}"
    return name


def _shortened(keys: Sequence[str]) -> dict[str, str]:
    """Returns the last part of each option, or as many of its parts as distinguish it from the others."""
    names = {}
    for key in keys:
        parts = re.sub(r"[^\w.]+", ".", key).strip(".").split(".")
        tails = [".".join(parts[-count:]) for count in range(1, len(parts) + 1)]
        alone = (tail for tail in tails if sum(f".{each}".endswith(f".{tail}") for each in keys) == 1)
        names[key] = next(alone, tails[-1])
    return names


def _readable(value: str) -> str:
    """Returns a value with only letters, digits and a few signs, which a shell and a file system take as they are."""
    if re.fullmatch(r"-?\d+\.\d{5,}(e[+-]?\d+)?", value):
        value = f"{float(value):.4g}"
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", value.strip(" '\"[](){}"))[:_LONGEST_VALUE] or "none"


def folder_of(sweep: Path, trial: Trial) -> Path:
    """Returns the run folder of a trial."""
    return sweep / trial.name
