"""What a report says of the trials of a sweep, from its `sweep.json`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from inkdrop.commands.sweep.record import read_trials
from inkdrop.commands.sweep.trials import Trial, folder_of, split
from inkdrop.files.showing import harmless


@dataclass(frozen=True)
class Listed:
    """A trial of a sweep, or a run without a result.

    - `name`: what the report calls it.
    - `folder`: where its files would be; it is only compared with the folders of results.
    - `overrides`: its options, as they were typed.
    - `state`: how it ended.
    - `reason`: why it has no result, in one line.
    """

    name: str
    folder: Path
    overrides: dict[str, str]
    state: str
    reason: str


def listed(sweep: Path, prefix: str = "") -> list[Listed]:
    """Returns the trials that the record in a sweep's folder has; `prefix` precedes their names.

    Raises `UnreadableError` for a record of another format.
    """
    return [
        Listed(
            f"{prefix}{harmless(each.name)}",
            folder_of(sweep, each),
            dict(split(override) for override in each.overrides),
            each.state,
            _reason(each),
        )
        for each in read_trials(sweep)
    ]


def _reason(trial: Trial) -> str:
    """Returns the last line of the message of a trial, its exit code and how far it came, as far as they are known."""
    lines = trial.message.strip().splitlines()
    parts = [harmless(lines[-1])] if lines else []
    parts += [f"exit code {trial.exit_code}"] if trial.exit_code else []
    parts += [f"{trial.steps} steps"] if trial.steps else []
    parts += [f"{trial.attempts} attempts"] if trial.attempts > 1 else []
    return harmless("; ".join(parts))
