"""Finishing a trial that was pruned or left, by the command in its folder."""

from __future__ import annotations

import shlex
from pathlib import Path

from inkdrop.commands.sweep.pool import COMMAND, Place, Pool
from inkdrop.commands.sweep.progress import Display
from inkdrop.commands.sweep.record import Record, read_objectives, read_trials
from inkdrop.commands.sweep.starters import Starter
from inkdrop.commands.sweep.study import JOURNAL, add_promoted
from inkdrop.commands.sweep.trials import FINISHED, Trial, folder_of
from inkdrop.configuration.secrets import MASK
from inkdrop.configuration.suggestions import nearest
from inkdrop.errors import ConfigurationError, TrialError
from inkdrop.files import read_bytes
from inkdrop.files.showing import harmless


def promote(folder: Path, name: str, starter: Starter) -> Trial:
    """Runs a trial to its end, from its checkpoint, and tells the study of a search; returns it.

    Raises `ConfigurationError` for a trial that is unknown, finished, or whose command had a secret, and `TrialError`
    if it fails.
    """
    trials = {each.name: each for each in read_trials(folder)}
    if name not in trials:
        near = nearest(name, trials)
        advice = f"did you mean {near}?" if near else f"available: {', '.join(trials)}"
        raise ConfigurationError(f"unknown trial {harmless(name)}: {advice}")
    trial = trials[name]
    if trial.state == FINISHED:
        raise ConfigurationError(f"{harmless(name)} has finished: choose a trial that was pruned or interrupted")
    file = folder_of(folder, trial) / COMMAND
    words = shlex.split(read_bytes(file).decode(errors="replace"))[1:]
    if any(MASK in each for each in words):
        raise ConfigurationError(f"{harmless(file)} has a masked secret: run its command with the secret yourself")
    start = next((place for place, each in enumerate(words) if "=" in each), len(words))
    trial.overrides = [each for each in words[start:] if not each.startswith("output_dir=")]
    record = Record(folder, read_objectives(folder))
    with Display(folder, [trial], [Place()]) as display:
        pool = Pool(record, words[:start], [], starter, [Place()], show=display.show)
        pool.add(trial)
        while pool.is_busy:
            pool.step()
    if trial.state != FINISHED:
        raise TrialError(name, trial.exit_code or 1)
    if (folder / JOURNAL).exists():
        add_promoted(folder, name, trial.objective)
    return trial
