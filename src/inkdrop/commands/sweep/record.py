"""The record of a sweep, `sweep.json`, which several processes may update."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

from annotated_types import Ge, Le, Len

from inkdrop.commands.sweep.trials import STATES, Trial
from inkdrop.errors import UnreadableError
from inkdrop.files import read_json
from inkdrop.files.fields import wrong_field
from inkdrop.files.showing import harmless
from inkdrop.files.writing import make_folder, open_plain, write_text

NAME = "sweep.json"
_VERSION = 1
_COUNT = Annotated[int, Ge(0), Le(10**12)]
_TEXT = Annotated[str, Len(0, 100_000)]
_NUMBER = float | Annotated[int, Ge(-(10**300)), Le(10**300)]
_FIELDS: dict[str, Any] = {
    "version": int,
    "command": _TEXT,
    "objective": list[_TEXT] | None,
    "trials": list[dict[str, Any]],
}
_TRIAL: dict[str, Any] = {
    "name": Annotated[str, Len(1, 255)],
    "identity": _TEXT,
    "overrides": list[_TEXT],
    "state": Literal[STATES],
    "attempts": _COUNT,
    "exit_code": Annotated[int, Ge(-(10**6)), Le(10**6)] | None,
    "steps": _COUNT,
    "max_steps": int,
    "seconds": _NUMBER,
    "objective": list[_NUMBER],
    "message": _TEXT,
}


class Record:
    """The record of the sweep in a folder.

    - `folder`: folder of the sweep.
    - `objectives`: metrics that the sweep optimizes.
    """

    def __init__(self, folder: Path, objectives: Sequence[str] = ()):
        self.folder, self.objectives = folder, objectives

    def trials(self) -> dict[str, Trial]:
        """Returns the recorded trials by their identity; raises `UnreadableError` for a file of another format."""
        if not (self.folder / NAME).exists():
            return {}
        return {each.identity: each for each in read_trials(self.folder)}

    def update(self, *changed: Trial) -> None:
        """Records these trials, and keeps what is recorded of all others."""
        make_folder(self.folder)
        with _locked(self.folder / "sweep.lock"):
            trials = {**self.trials(), **{each.identity: each for each in changed}}
            content = {
                "version": _VERSION,
                "command": "train",
                "objective": [*(self.objectives or read_objectives(self.folder))] or None,
                "trials": [each.record() for each in trials.values()],
            }
            write_text(self.folder / NAME, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_objectives(folder: Path) -> list[str]:
    """Returns the metrics that the sweep in a folder optimizes, if it has a record."""
    if not (folder / NAME).exists():
        return []
    return list(_read(folder)["objective"] or ())


def read_trials(folder: Path) -> list[Trial]:
    """Returns the trials that the `sweep.json` in a folder records; raises `UnreadableError` for another format."""
    return [Trial(**{name: each[name] for name in _TRIAL}) for each in _read(folder)["trials"]]


def _read(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = read_json(folder / NAME)
    wrong = wrong_field(content, _FIELDS, _FIELDS)
    if wrong is None and content["version"] > _VERSION:
        wrong = f"a newer version of inkdrop wrote it (format {content['version']}): update inkdrop"
    for each in content["trials"] if wrong is None else ():
        wrong = wrong or wrong_field(each, _TRIAL, _TRIAL)
        if wrong is None and (each["name"] == ".." or each["name"] != Path(each["name"]).name):
            wrong = f"{harmless(each['name'])} is not the name of a folder"
        if wrong is None and not math.isfinite(each["seconds"]):
            wrong = "seconds is not finite"
    if wrong is not None:
        raise UnreadableError(f"{harmless(folder / NAME)} is not the record of a sweep: {wrong}")
    return content


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with open_plain(path, os.O_WRONLY | os.O_CREAT) as file:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def claim(path: Path) -> BinaryIO | None:
    """Locks a file until the returned one is closed or this process ends; returns None if another process has it."""
    file = open_plain(path, os.O_WRONLY | os.O_CREAT)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    except OSError:  # a file system without locks
        pass
    return file
