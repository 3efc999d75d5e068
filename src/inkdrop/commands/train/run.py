"""One training run, from a checked configuration to `result.json`."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy

from inkdrop.callbacks import Checkpoint, Evaluate, Interrupted
from inkdrop.callbacks.measured import direction, latest
from inkdrop.checkpoints.files import folder_of, places
from inkdrop.commands.command import for_the_user
from inkdrop.commands.describe.costs import foreseen
from inkdrop.commands.terminal import exit_code
from inkdrop.commands.tracking import concluded, introduce, summarized
from inkdrop.commands.train.prepare import PreparedTraining
from inkdrop.conditioners.label import is_named, named
from inkdrop.configuration.suggestions import command, options
from inkdrop.distributed.processes import is_first
from inkdrop.distributed.slurm import requeue
from inkdrop.errors import CheckpointError, ConfigurationError, DataError, NonFiniteError, UnreadableError
from inkdrop.files import read_json
from inkdrop.files.showing import harmless, harmless_lines
from inkdrop.files.writing import write_text
from inkdrop.loggers.csv import CSV
from inkdrop.loggers.jsonl import JSONLines
from inkdrop.metrics.protocol import summary
from inkdrop.pipeline import compile_network
from inkdrop.runs.machine import check_held_out, check_items
from inkdrop.runs.ownership import claim, locked, outside, refuse_foreign
from inkdrop.runs.record import facts, write_json
from inkdrop.runs.resumption import Resumed, changed_facts, holds_run

if TYPE_CHECKING:
    from inkdrop.data import DataModule
    from inkdrop.tasks import Task


def train(prepared: PreparedTraining) -> dict[str, Any]:
    """Trains a prepared run, writes everything to its folder, and returns the content of `result.json`.

    The folder holds `config.yaml`, `metrics.jsonl`, `checkpoints/`, `pictures/` and at the end `result.json`.
    """
    start = time.monotonic()
    run, task, trainer = prepared.asked.path, prepared.task, prepared.trainer
    with prepared.open as stack:
        with for_the_user():
            _lock(stack, prepared)
            _fill(prepared)
            _claim_folders(stack, prepared)
        title = f"{task.config['name']} in {run.name}"
        with concluded(trainer.loggers, title, partial(_facts, task, trainer, start)) as outcome:
            outcome.checkpoints = partial(_checkpoint, trainer)
            result = _trained(prepared, start)
            outcome.result = summarized(result)
    return result


def _trained(prepared: PreparedTraining, start: float) -> dict[str, Any]:
    """Trains, unless all steps are done, and returns the content of `result.json`, which it has written."""
    run, task, trainer, before = prepared.asked.path, prepared.task, prepared.trainer, prepared.before
    recorded = _begin(prepared)
    if before is not None and before.step >= trainer.max_steps:
        print(f"nothing to do: the run has all its {before.step} steps; raise trainer.max_steps to train further")
        metrics, evaluated, step = before.latest, _evaluated_before(before, trainer), before.step
        if (result := _earlier_result(run)) is not None:
            return result
    else:
        _introduce(prepared, recorded)
        _fit(trainer, task, prepared.data, before)
        metrics = {**(before.latest if before else {}), **latest(trainer)}
        evaluated, step = _evaluated(trainer), trainer.global_step
    result = _result(prepared, step, metrics, evaluated, time.monotonic() - start)
    if trainer.is_global_zero:
        write_json(result, run / "result.json")
        _farewell(run, result, task)
    return result


def _lock(stack: contextlib.ExitStack, prepared: PreparedTraining) -> None:
    """Locks the run folder; raises `ConfigurationError` if another process has started a run in it since the check."""
    if not is_first() or prepared.is_locked:
        return
    stack.enter_context(locked(prepared.asked.path))
    if holds_run(prepared.asked.path) and not prepared.held_run:
        raise ConfigurationError(
            f"another process has started a run in {prepared.asked.path}: repeat the command to resume it"
        )


def _claim_folders(stack: contextlib.ExitStack, prepared: PreparedTraining) -> None:
    """Claims all folders that the run writes to; raises `ConfigurationError` for one that another process has taken."""
    if not is_first():
        return
    run, plain = prepared.asked.path, prepared.plain
    for folder in outside(run, plain).values():
        stack.enter_context(locked(folder))
    refuse_foreign(run, plain)
    claim(run, plain["run_id"], plain, prepared.shown)


def _fill(prepared: PreparedTraining) -> None:
    """Passes facts of the data and of the machine to the parts; raises `ValueError` if something does not fit."""
    from inkdrop.data.loaders import in_batches

    plain, data, task, trainer = prepared.plain, prepared.data, prepared.task, prepared.trainer
    pipeline = task.pipeline
    task.config, task.facts = prepared.shown, facts()
    check_items(data, plain["trainer"])
    check_held_out(data, trainer.world_size)
    if prepared.before is not None and prepared.before.data_fingerprint != data.fingerprint:
        raise DataError("the data are not those that the run was started with: their fingerprints differ")
    if not prepared.is_fitted:
        pipeline.fit(partial(in_batches, data.splits["train"]), trainer.strategy.root_device)
    pipeline.check_batch({name: column[torch.arange(1)] for name, column in data.splits["train"].items()})
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        getattr(callback, "check", lambda data: None)(data)
    if isinstance(trainer.strategy, DDPStrategy):
        trainer.strategy._timeout = timedelta(minutes=plain["timeout_minutes"])
    device = trainer.strategy.root_device
    remarks, prepared.flops = foreseen(task, plain, device, trainer.world_size) if trainer.is_global_zero else ([], 0)
    for remark in remarks:
        print(harmless_lines(f"warning: {remark}"), flush=True)
    if plain["compile"]:
        compile_network(pipeline)


def _fit(trainer: Trainer, task: Task, data: DataModule, before: Resumed | None) -> None:
    """Trains; a rank that fails alone ends the other processes, which may hang."""
    if before is not None:
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Checkpoint):
                callback.resume(before.checkpoint, before.content)
        before.content = {}
    try:
        trainer.fit(task, datamodule=data, ckpt_path=before.checkpoint if before else None)
    except Interrupted as interruption:
        if not trainer.is_global_zero:  # Lightning kills rank 0 when another rank has a nonzero exit code
            sys.exit(0)
        if interruption.signum == signal.SIGUSR1:
            requeue()
        raise
    except NonFiniteError as error:
        if not trainer.is_global_zero:  # rank 0 raises it too
            print(f"error: {error}", file=sys.stderr)
            sys.exit(0)
        _end_others(trainer, seconds=10)  # rank 0 may be the only one, in a checkpoint that it writes
        raise
    except Exception as error:
        _end_others(trainer)
        if exit_code(error) is not None:  # such as a removed file or a full disk
            raise
        if before is not None and not task.begun:  # Lightning raises anything for a foreign state
            reason = harmless(" ".join(str(error).split()) or type(error).__name__)
            raise CheckpointError(
                f"{harmless(before.checkpoint)}: the run cannot resume from its state: {reason}"
            ) from error
        raise


def _end_others(trainer: Trainer, seconds: float = 0) -> None:
    """Kills the processes that this one has started, which may hang, unless they end by themselves within this time."""
    if (launcher := trainer.strategy.launcher) is not None:
        end = time.monotonic() + seconds
        for process in getattr(launcher, "procs", []):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0, end - time.monotonic()))
        launcher.kill(signal.SIGKILL)


def _introduce(prepared: PreparedTraining, recorded: Sequence[Mapping[str, float]]) -> None:
    """States to loggers what the run is called, and its options; `recorded` are its rows before it was resumed."""
    plain, trainer = prepared.plain, prepared.trainer
    if trainer.is_global_zero:
        options = {**prepared.once, **prepared.task.facts}
        better = partial(direction, trainer, prepared.task.loss)
        objective = prepared.objective[0] if prepared.objective and len(prepared.objective) == 1 else None
        known = {"objective": objective, "direction": better, "before": recorded}
        introduce(trainer.loggers, prepared.asked, plain["name"], options, "train", run_id=plain["run_id"], **known)


def _facts(task: Task, trainer: Trainer, start: float) -> dict[str, Any]:
    """Returns what is known of a run that fails."""
    seconds = round(time.monotonic() - start, 1)
    return {"steps": trainer.global_step, "seconds": seconds, "seed": task.config["seed"], **task.facts}


def _checkpoint(trainer: Trainer, kind: str) -> Path | None:
    """Returns the file of the best or the last checkpoint."""
    files = (each.files for each in trainer.callbacks if isinstance(each, Checkpoint))  # type: ignore[attr-defined]
    return next((file for each in files if (file := each.file_of(kind)) is not None), None)


def _begin(prepared: PreparedTraining) -> list[dict[str, float]]:
    """Prints whether the run is fresh or resumed, and cuts its record to the step from which it continues.

    Returns the rows that were recorded up to this step.
    """
    run, before = prepared.asked.path, prepared.before
    trainer, task, data = prepared.trainer, prepared.task, prepared.data
    if not trainer.is_global_zero:
        return []
    run_id = task.config["run_id"]
    if before is None:
        print(f"fresh run {run_id} in {run}", flush=True)
    else:
        print(f"resumed from step {before.step}: run {run_id} in {run}", flush=True)
        if before.world_size != trainer.world_size:
            devices = f"{trainer.world_size} devices instead of {before.world_size}"
            before.remarks.append(
                f"the run now uses {devices}: it trains on the same samples, but sums are no longer bit-identical, and "
                "draws shared by the samples of one device differ (dropout in the network, loss.coupling)"
            )
        if before.classes and before.classes != data.classes:
            before.remarks.append(f"the classes were called {named(before.classes)}, and are now {named(data.classes)}")
        for remark in [*before.remarks, *changed_facts(before.facts, task.facts)]:
            print(harmless_lines(f"warning: {remark}"), flush=True)
    if is_named(data.classes):
        print(f"classes: {named(data.classes)}", flush=True)
    record = next(logger for logger in trainer.loggers if isinstance(logger, JSONLines))
    record.cut(before.logged.get(record.name, 0) if before else 0)
    for logger in trainer.loggers:
        if isinstance(logger, CSV):
            logger.begin(record.rows())
    write_text(run / "config.yaml", prepared.start_again)
    return record.rows()


def _result(
    prepared: PreparedTraining, step: int, metrics: dict[str, float], evaluated: dict[str, Any], seconds: float
) -> dict[str, Any]:
    """Returns the content of `result.json`: the metrics, and the facts that they depend on."""
    files = [folder / f"step-{step:08d}.ckpt" for folder in places(prepared.asked.path, "checkpoints")]
    plain, task = prepared.plain, prepared.task
    trained = sum(each.numel() for each in task.pipeline.parameters() if each.requires_grad)
    samples = step * plain["trainer"].get("accumulate_grad_batches", 1) * plain["data"]["batch_size"]
    return {
        "metrics": metrics,
        **{name: value for name, value in evaluated.items() if value},  # empty if nothing was measured
        "checkpoint": next((str(file) for file in files if file.exists()), None),
        "steps": step,
        "seconds": round(seconds, 1),
        **({"flops": prepared.flops * samples} if prepared.flops else {}),
        **({"trained_weights": trained} if task.pipeline.adapters else {}),  # else all are
        "seed": task.config["seed"],
        **task.facts,
    }


def _earlier_result(run: Path) -> dict[str, Any] | None:
    """Returns the content of `result.json`, or None if it cannot be read; a half-written file is written again."""
    try:
        result: dict[str, Any] = read_json(run / "result.json")
    except UnreadableError:
        return None
    return result or None


def _evaluated_before(before: Resumed, trainer: Trainer) -> dict[str, Any]:
    """Does what `_evaluated` does for a run without steps left, whose share of time is in its record."""
    rows = next(logger for logger in trainer.loggers if isinstance(logger, JSONLines)).rows()
    shares = [row["evaluation/share_of_time"] for row in rows if "evaluation/share_of_time" in row]
    return {"protocol": before.protocol, "evaluation_share_of_time": round(shares[-1], 4) if shares else 0}


def _evaluated(trainer: Trainer) -> dict[str, Any]:
    """Returns the protocol of the latest evaluation, and the share of the time that all evaluations took."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    evaluate = next((each for each in callbacks if isinstance(each, Evaluate)), None)
    if evaluate is None:
        return {}
    return {"protocol": evaluate.protocol, "evaluation_share_of_time": round(evaluate.share_of_time, 4)}


def _farewell(run: Path, result: dict[str, Any], task: Task) -> None:
    """Prints the last lines on the terminal: the metrics, the folder, and a command to try next."""
    print(summary(result["metrics"], result.get("protocol", {})))
    if share := result.get("evaluation_share_of_time"):
        print(f"evaluation took {share:.1%} of the time")
    print(f"\nrun        {run}")
    folder = Path(folder_of(task.config, "callbacks", "pictures") or run / "pictures")
    if pictures := sorted(folder.glob("*.png")):
        print(f"samples    {pictures[-1]}")
    if result["checkpoint"]:
        print(f"now try    {command('sample')} {options(task.advice(str(run)))}")
