"""Reads `sweep.json`, the record of a sweep's trials, which may come from an untrusted source."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Len

from inkdrop.errors import UnreadableError
from inkdrop.files import read_json
from inkdrop.files.fields import wrong_field
from inkdrop.files.showing import harmless

FILE = "sweep.json"
VERSION = 1
_MAX_BYTES, _MAX_TRIALS, _MAX_OVERRIDES = 2**24, 20_000, 1000
_COUNT = Annotated[int, Ge(0)] | None
_FIELDS: dict[str, Any] = {
    "version": int,
    "objective": str | list[str] | None,
    "trials": Annotated[list[dict[str, Any]], Len(0, _MAX_TRIALS)],
}
_TRIAL: dict[str, Any] = {
    "name": str,
    "overrides": Annotated[list[str], Len(0, _MAX_OVERRIDES)],
    "state": str,
    "attempts": _COUNT,
    "exit_code": int | None,
    "steps": _COUNT,
    "message": str | None,
}
WITHOUT_RESULT = ("failed", "refused", "pruned", "interrupted", "waiting", "running")  # states, the worst first


@dataclass(frozen=True)
class Trial:
    """A trial of a sweep.

    - `name`: what the report calls it.
    - `folder`: where its files would be; it is only compared with the folders of results.
    - `overrides`: the options by which it differs from the other trials.
    - `state`: one of `WITHOUT_RESULT`, or `finished`.
    - `reason`: why it has no result, in one line.
    """

    name: str
    folder: Path
    overrides: dict[str, str]
    state: str
    reason: str


@dataclass(frozen=True)
class Sweep:
    """The content of one `sweep.json`: the metrics that the sweep optimizes, and its trials."""

    objectives: list[str]
    trials: list[Trial]


def read_sweep(file: Path, prefix: str = "") -> Sweep:
    """Returns the content of a `sweep.json`; `prefix` precedes the names of the trials.

    Raises `UnreadableError` for a file of another format or of a later version.
    """
    content = read_json(file, max_bytes=_MAX_BYTES)
    trials = content.get("trials")
    wrong = wrong_field(content, _FIELDS, _FIELDS.keys() - {"objective"})
    wrong = wrong or next(filter(None, (wrong_field(each, _TRIAL, ("name", "state")) for each in trials or ())), None)
    if wrong is not None:
        raise UnreadableError(f"{harmless(file)} is not a record of a sweep: {wrong}")
    if content["version"] > VERSION:
        raise UnreadableError(f"{harmless(file)} has version {content['version']} of the format: update inkdrop")
    named = content.get("objective") or []
    return Sweep(
        [named] if isinstance(named, str) else named,
        [
            Trial(
                f"{prefix}{harmless(each['name'])}",
                Path(os.path.normpath(file.parent / each["name"].replace("\0", ""))),
                dict(_override(text) for text in each.get("overrides", ())),
                harmless(each["state"], 40),
                _reason(each),
            )
            for each in trials or ()
        ],
    )


def _override(text: str) -> tuple[str, str]:
    """Returns the option and the value of an override, of which `+` and `~` do not belong to the option."""
    name, _, value = text.lstrip("+~").partition("=")
    return name.partition("@")[0], "(removed)" if text.startswith("~") else value


def _reason(trial: Mapping[str, Any]) -> str:
    """Returns the last line of the message of a trial, its exit code and how far it came, as far as they are known."""
    lines = (trial.get("message") or "").strip().splitlines()
    parts = [harmless(lines[-1])] if lines else []
    if trial.get("exit_code"):
        parts.append(f"exit code {trial['exit_code']}")
    if trial.get("steps"):
        parts.append(f"{trial['steps']} steps")
    if (trial.get("attempts") or 0) > 1:
        parts.append(f"{trial['attempts']} attempts")
    return harmless("; ".join(parts))
