"""The sweep that a run is a trial of: its launcher states it in two environment variables.

This module imports only the standard library, because launchers read and set the variables too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

FOLDER, TRIAL = "INKDROP_SWEEP", "INKDROP_TRIAL"


class Sweep(NamedTuple):
    """A sweep and one of its trials.

    - `folder`: absolute path of the folder of the sweep.
    - `trial`: name of the trial: the options by which it differs from the others, such as `lr=0.002,seed=1`.
    """

    folder: Path
    trial: str

    @property
    def name(self) -> str:
        """The name of the folder, after that of the folder around it if it is only a time."""
        by_time = re.match(r"\d{4}-\d\d-\d\d_", self.folder.name)
        return f"{self.folder.parent.name}/{self.folder.name}" if by_time else self.folder.name

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables of a process that runs the trial."""
        return {FOLDER: str(self.folder), TRIAL: self.trial}


def sweep_of(run: Path, environment: Mapping[str, str] | None = None) -> Sweep | None:
    """Returns the sweep that the environment states for a run folder, or None.

    A run elsewhere belongs to no sweep, although a process that a trial starts inherits the variables of the trial.
    """
    variables = os.environ if environment is None else environment
    folder, trial = variables.get(FOLDER), variables.get(TRIAL)
    if not folder or not trial or run.resolve().parent != Path(folder).resolve():
        return None
    return Sweep(Path(folder), trial)
