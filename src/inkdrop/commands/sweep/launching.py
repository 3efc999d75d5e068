"""A sweep from the combinations of its values to its results, as Hydra calls a launcher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

from inkdrop.commands.sweep.planning import Plan, refusal
from inkdrop.commands.sweep.progress import say
from inkdrop.commands.sweep.running import Sweep, set_aside
from inkdrop.commands.sweep.trials import FAILED, FINISHED, INTERRUPTED, REFUSED, Trial, folder_of
from inkdrop.errors import TrialError
from inkdrop.files import read_json
from inkdrop.files.showing import harmless, warn
from inkdrop.runs.record import commit


def launch(
    config: DictConfig, loader: Any, combinations: Sequence[Sequence[str]], options: Mapping[str, Any]
) -> list[JobReturn]:
    """Runs a trial for each combination of values, and returns how each ended.

    - `config`: configuration that the trials share.
    - `loader`: Hydra's loader, which composes the configuration of a trial.
    - `combinations`: options of each trial.
    - `options`: options of the launcher.

    Raises `ConfigurationError` if trials cannot work; in that case none starts, and nothing is created.
    """
    with Sweep(config, loader, options) as sweep:
        made = sweep.plan(combinations)
        to_run = [each for each in made.trials if not is_done(each, sweep.folder, sweep.chosen["rerun"])]
        if made.refused and not to_run and sweep.chosen["invalid"] == "refuse":
            raise refusal(made.refused, len(combinations))
        if to_run:
            _run(sweep, made, to_run)
        elif (page := sweep.folder / "report.md").is_file():
            say(f"\n{page.read_text()}".rstrip("\n"))
        return _results(made, combinations, sweep.record.objectives)


def is_done(trial: Trial, sweep: Path, rerun: str | None) -> bool:
    """Returns whether a trial is finished; one of another version of the code is named, and is done unless `rerun`."""
    file = folder_of(sweep, trial) / "result.json"
    if trial.state != FINISHED or not file.is_file():
        return False
    if (before := read_json(file).get("git_commit")) == (now := commit()):
        return True
    if rerun is None:
        warn(
            f"{trial.name} was finished by commit {harmless(str(before)[:12])}, and is kept (now {str(now)[:12]}): "
            "hydra.launcher.rerun=changed repeats such trials"
        )
        return True
    return False


def _run(sweep: Sweep, made: Plan, to_run: Sequence[Trial]) -> None:
    """Checks trials, and runs those that can work."""
    valid = sweep.prepare(made, to_run)
    runnable = [each for each in valid if each.max_steps]
    if len(valid) == len(to_run) and not runnable:
        say(f"{len(to_run)} trials are valid; trainer.max_steps=0 trains none of them")
        return
    sweep.create()
    if sweep.chosen["rerun"] is not None:
        set_aside(sweep.folder, runnable)
    sweep.record.update(*made.trials)
    with sweep.pool(made.trials) as pool:
        pool.add(*runnable)
        while pool.is_busy:
            pool.step()


def _results(made: Plan, combinations: Sequence[Sequence[str]], objectives: Sequence[str]) -> list[JobReturn]:
    """Returns for each combination how its trial ended, as a sweeper of Hydra reads it."""
    trials = {each.identity: each for each in made.trials}
    results = []
    for same, overrides in zip(made.order, combinations, strict=True):
        trial = trials.get(same) if same is not None else None
        value: Any = TrialError(" ".join(overrides), 2)
        if trial is not None:
            value = trial.objective[0] if len(objectives) == 1 else trial.objective or None
        if trial is not None and trial.state in (FAILED, REFUSED, INTERRUPTED):
            value = TrialError(trial.name, trial.exit_code or 1)
        status = JobStatus.FAILED if isinstance(value, TrialError) else JobStatus.COMPLETED
        results.append(JobReturn(overrides=list(overrides), status=status, _return_value=value))
    return results
