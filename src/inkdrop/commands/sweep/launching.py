"""A sweep from the combinations of its values to its results, as Hydra calls a launcher."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

from inkdrop.commands.sweep import places as devices
from inkdrop.commands.sweep.planning import Plan, check, command_of, options_of, plan, refusal
from inkdrop.commands.sweep.pool import Pool
from inkdrop.commands.sweep.progress import Display
from inkdrop.commands.sweep.record import Record
from inkdrop.commands.sweep.starters import CALL, Job, Processes, Starter, run_all
from inkdrop.commands.sweep.trials import FAILED, FINISHED, INTERRUPTED, REFUSED, Trial, folder_of
from inkdrop.distributed.signals import EXIT_CODES, given_back, heard
from inkdrop.errors import ConfigurationError, TrialError
from inkdrop.files import read_json
from inkdrop.files.showing import harmless, warn
from inkdrop.runs.folder_names import apart, by_time

VERB = "train"
_DEFAULTS = {"jobs": "auto", "start": "fork", "retries": 1, "invalid": "refuse", "rerun": None}
_CHOICES = {"start": ("fork", "fresh"), "invalid": ("refuse", "skip"), "rerun": (None, "changed")}


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
    chosen = checked_options(options)
    _refuse_shared(config)
    base = by_time(config, "hydra.sweep.dir")
    sweep = Path(config.hydra.sweep.dir) if base is None else apart(base)
    objective = config.get("objective")
    record = Record(sweep, objective)
    known = record.trials()
    made = plan(loader, config, combinations, known)
    to_run = [each for each in made.trials if not is_done(each, sweep, chosen["rerun"])]
    failed: list[Trial] = []
    if made.refused and not to_run and chosen["invalid"] == "refuse":
        raise refusal(made.refused, len(combinations))
    if to_run:
        failed = _run(config, record, made, to_run, chosen, base)
    elif (page := sweep / "report.md").is_file():
        print(f"\n{page.read_text()}", end="")
    return _results(made, combinations, failed, record)


def checked_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of the launcher with defaults; raises `ConfigurationError` for one that is not allowed."""
    chosen = {**_DEFAULTS, **options}
    for name, allowed in _CHOICES.items():
        if chosen[name] not in allowed:
            known = ", ".join("null" if each is None else each for each in allowed)
            raise ConfigurationError(f"hydra.launcher.{name}={harmless(chosen[name])}: available: {known}")
    if chosen["jobs"] != "auto" and not (isinstance(chosen["jobs"], int) and chosen["jobs"] > 0):
        raise ConfigurationError(f"hydra.launcher.jobs={harmless(chosen['jobs'])} must be auto or a positive number")
    if not (isinstance(chosen["retries"], int) and chosen["retries"] >= 0):
        raise ConfigurationError(f"hydra.launcher.retries={harmless(chosen['retries'])} must be a number of attempts")
    return chosen


def _refuse_shared(config: DictConfig) -> None:
    if isinstance(run_id := config.get("run_id"), str):
        raise ConfigurationError(
            f"run_id={run_id} would be shared by all trials of the sweep: remove it, so that each draws its own"
        )


def is_done(trial: Trial, sweep: Path, rerun: str | None) -> bool:
    """Returns whether a trial is finished; one of another version of the code is named, and is done unless `rerun`."""
    file = folder_of(sweep, trial) / "result.json"
    if trial.state != FINISHED or not file.is_file():
        return False
    from inkdrop.runs.record import commit

    result = read_json(file)
    trial.result = result
    if (before := result.get("git_commit")) == (now := commit()):
        return True
    if rerun is None:
        warn(
            f"{trial.name} was finished by commit {harmless(str(before)[:12])}, and is kept (now {str(now)[:12]}): "
            "hydra.launcher.rerun=changed repeats such trials"
        )
        return True
    return False


def _run(
    config: DictConfig,
    record: Record,
    made: Plan,
    to_run: list[Trial],
    chosen: Mapping[str, Any],
    base: Path | None,
) -> list[Trial]:
    """Checks and runs trials, and returns those that have failed."""
    starter = Processes(chosen["start"] == "fork")
    try:
        trainers = [made.trainers[each.identity] for each in to_run]
        shares = devices.places(chosen["jobs"], trainers, _gpus(starter, trainers))
        flags, settings = options_of(config)
        wrong = check(starter, VERB, record.folder, to_run, (flags, settings), os.cpu_count() or 1)
        if (wrong or made.refused) and chosen["invalid"] == "refuse":
            by_name = {message: [each.name for each in trials] for message, trials in wrong.items()}
            raise refusal({**made.refused, **by_name}, len(made.trials) + made.order.count(None))
        refused = [each for trials in wrong.values() for each in trials]
        runnable = [each for each in to_run if each not in refused and each.max_steps]
        if not runnable and not refused:
            print(f"{len(to_run)} trials are valid; trainer.max_steps=0 trains none of them")
            return []
        if base is not None:
            record.folder = apart(base, made=True)
        for each in refused:
            each.state = REFUSED
        if chosen["rerun"] is not None:
            _move_finished(record.folder, runnable)
        record.update(*made.trials)
        with Display(record.folder, made.trials, shares) as display:
            pool = Pool(record, [*command_of(VERB), *flags], settings, starter, shares, chosen["retries"], display.show)
            with _signals_passed_to(pool) as received:
                pool.add(*runnable)
                while pool.is_busy:
                    pool.step()
        if received:
            _leave(record, received[0], to_run)
        failed = [each for each in to_run if each.state in (FAILED, REFUSED, INTERRUPTED)]
        display.summary()
        _report(starter, record.folder)
    finally:
        starter.close()
    return failed


def _gpus(starter: Starter, trainers: Sequence[Any]) -> list[str]:
    """Returns the GPUs of this machine if a trial may use them, from a process that may import torch."""
    if not devices.may_use_gpus(trainers):
        return []
    with tempfile.TemporaryDirectory(prefix="inkdrop-") as folder:
        log = Path(folder) / "gpus"
        run_all(starter, [Job([CALL, "inkdrop.commands.sweep.places:show"], log)], 1)
        lines = [line for line in log.read_text().splitlines() if line.startswith("GPUS ")]
    import json

    found: list[str] = json.loads(lines[-1].removeprefix("GPUS ")) if lines else []
    return found


def _move_finished(sweep: Path, trials: Sequence[Trial]) -> None:
    """Keeps the folder of each finished trial that is repeated, under a name that no other trial has."""
    for each in trials:
        folder = folder_of(sweep, each)
        if each.state == FINISHED and folder.exists():
            folder.rename(apart(folder.with_name(f"{folder.name}-before")))


@contextmanager
def _signals_passed_to(pool: Pool) -> Iterator[list[int]]:
    """Passes signals within the block to all trials; a second one kills them. Yields the signals received."""
    import signal

    received: list[int] = []

    def stop(signum: int, frame: Any) -> None:
        received.append(signum)
        pool.stop(signal.SIGTERM if len(received) == 1 else signal.SIGKILL)
        if len(received) == 1:
            print("\nstopping: each trial writes a checkpoint; a second signal kills them", file=sys.stderr, flush=True)

    before = heard(stop)
    try:
        yield received
    finally:
        given_back(before)


def _leave(record: Record, signum: int, trials: Sequence[Trial]) -> None:
    """Ends the program after a signal."""
    left = sum(each.state != FINISHED for each in trials)
    print(f"{left} trials are left: repeat the command with output_dir={record.folder} to continue", file=sys.stderr)
    sys.exit(EXIT_CODES.get(signum, 143))  # type: ignore[call-overload]


def _report(starter: Starter, folder: Path) -> None:
    """Shows and writes the report, by a process that may import what it needs."""
    with tempfile.TemporaryDirectory(prefix="inkdrop-") as place:
        log = Path(place) / "report"
        run_all(starter, [Job([CALL, "inkdrop.commands.report:main", str(folder)], log)], 1)
        print(f"\n{log.read_text()}", end="", flush=True)


def _results(
    made: Plan, combinations: Sequence[Sequence[str]], failed: Sequence[Trial], record: Record
) -> list[JobReturn]:
    """Returns for each combination how its trial ended, as a sweeper of Hydra reads it."""
    trials = {each.identity: each for each in made.trials}
    results = []
    for same, overrides in zip(made.order, combinations, strict=True):
        trial = trials.get(same) if same is not None else None
        if trial is None:
            status, value = JobStatus.FAILED, TrialError(" ".join(overrides), 2)
        elif trial in failed:
            status, value = JobStatus.FAILED, TrialError(trial.name, trial.exit_code or 1)
        else:
            status = JobStatus.COMPLETED
            value = trial.result if record.objective is None else trial.objective  # type: ignore[assignment]
        results.append(JobReturn(overrides=list(overrides), status=status, _return_value=value))
    return results
