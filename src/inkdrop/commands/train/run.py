"""One training run, from a checked configuration to `result.json`."""

from __future__ import annotations

import contextlib
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from inkdrop.callbacks import Evaluate, Interrupted, StopOnSignal
from inkdrop.callbacks.measured import latest
from inkdrop.checkpoints import model_weights, read_checkpoint
from inkdrop.checkpoints.files import folder_of, places
from inkdrop.commands.describe.costs import foreseen
from inkdrop.commands.terminal import exit_code, quiet, stop
from inkdrop.conditioners.label import is_named, named
from inkdrop.configuration import USER_TARGETS, build, check, check_settings
from inkdrop.configuration.compose import resolved, settled
from inkdrop.configuration.secrets import from_environment, masked
from inkdrop.configuration.suggestions import options
from inkdrop.distributed.processes import is_first
from inkdrop.distributed.slurm import requeue
from inkdrop.errors import CheckpointError, DataError, NonFiniteError, UnreadableError
from inkdrop.files import read_json
from inkdrop.files.showing import harmless, harmless_lines
from inkdrop.files.writing import write_text
from inkdrop.loggers.csv import CSV
from inkdrop.loggers.jsonl import JSONLines
from inkdrop.metrics.protocol import told
from inkdrop.networks.diffusers_format import is_diffusers_folder, read_diffusers_folder
from inkdrop.networks.recomputing import recompute_activations
from inkdrop.pipeline import Pipeline, compile_network, set_weights
from inkdrop.runs.machine import check_batch_size, check_held_out, check_items, whole_steps
from inkdrop.runs.ownership import claim, locked, outside, refuse_foreign, run_id_of
from inkdrop.runs.record import facts, write_json
from inkdrop.runs.rerun import startable
from inkdrop.runs.resumption import Resumed, changed_facts, resumed

if TYPE_CHECKING:
    from inkdrop.data import DataModule
    from inkdrop.data.loaders import Split
    from inkdrop.tasks import Task


def train(config: DictConfig, output_dir: str) -> dict[str, Any]:
    """Trains what the configuration describes and leaves everything in `output_dir`; returns the final metrics.

    The folder holds `config.yaml`, `metrics.jsonl`, `checkpoints/`, `pictures/` and at the end `result.json`.
    """
    start = time.monotonic()
    quiet()
    run = Path(output_dir)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(run))
            secret = from_environment(config)
            asked: Any = OmegaConf.to_container(config, resolve=False)
            plain = _checked(config, output_dir)
            before = resumed(run, plain, secret)
            config.run_id = run_id_of(run) or config.run_id or (before and before.run_id) or secrets.token_hex(4)
            plain = resolved(config, output_dir)
            data, task, trainer = _build(plain, run)
            if before is not None and before.data_fingerprint != data.fingerprint:
                raise DataError("these are not the data that the run was begun with, their fingerprints differ")
            task.config = masked(plain, secret)
            start_again = startable(settled(config, output_dir), asked["output_dir"], secret)
            _own(stack, run, plain, task.config)
        except ValueError as error:
            stop(error)
        _begin(trainer, task, data, run, before, start_again)
        if before is not None and before.step >= trainer.max_steps:
            print(f"nothing to do: the run has all its {before.step} steps; trainer.max_steps asks for more")
            metrics, evaluated, step = before.latest, _evaluated_before(before, trainer), before.step
        else:
            _fit(trainer, task, data, before)
            metrics = {**(before.latest if before else {}), **latest(trainer)}
            evaluated, step = _evaluated(trainer), trainer.global_step
        if trainer.is_global_zero and not (before and step == before.step and _has_result(run)):
            _finish(run, task, step, metrics, evaluated, time.monotonic() - start)
    return metrics


def _fit(trainer: Trainer, task: Task, data: DataModule, before: Resumed | None) -> None:
    """Trains; where one rank alone fails it ends the others, which may hang."""
    try:
        trainer.fit(task, datamodule=data, ckpt_path=before.checkpoint if before else None)
    except Interrupted as interruption:
        _leave(interruption, trainer)
    except NonFiniteError as error:
        if not trainer.is_global_zero:  # rank 0 meets it too, and speaks for the run
            print(f"error: {error}", file=sys.stderr)
            sys.exit(0)
        _end_others(trainer, seconds=10)  # in a checkpoint that it alone writes it may be the only one
        stop(error)
    except Exception as error:
        _end_others(trainer)
        if exit_code(error) is not None:  # a file that went away, say, or a full disk
            stop(error)
        if before is not None and not task.begun:  # Lightning runs into anything in a state that is not its own
            told = harmless(" ".join(str(error).split()) or type(error).__name__)
            stop(CheckpointError(f"{harmless(before.checkpoint)}: the run cannot go on from its state: {told}"))
        raise


def _end_others(trainer: Trainer, seconds: float = 0) -> None:
    """Ends the processes that this one has started, which may hang, unless they end by themselves within this time."""
    if (launcher := trainer.strategy.launcher) is not None:
        end = time.monotonic() + seconds
        for process in getattr(launcher, "procs", []):
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0, end - time.monotonic()))
        launcher.kill(signal.SIGKILL)


def _begin(trainer: Trainer, task: Task, data: DataModule, run: Path, before: Resumed | None, start_again: str) -> None:
    """Says whether the run is fresh, and puts its record where it goes on."""
    if not trainer.is_global_zero:
        return
    run_id = task.config["run_id"]
    if before is None:
        print(f"fresh run {run_id} in {run}", flush=True)
    else:
        print(f"resumed from step {before.step}: run {run_id} in {run}", flush=True)
        if before.world_size != trainer.world_size:
            devices = f"{trainer.world_size} devices instead of {before.world_size}"
            before.remarks.append(
                f"now {devices}: the same samples, but their sums are no longer equal to the bit, and what the samples "
                "of one device share is another draw: dropout in the network, loss.coupling"
            )
        if before.classes and before.classes != data.classes:
            before.remarks.append(f"the classes were {named(before.classes)}, and are called {named(data.classes)} now")
        for remark in [*before.remarks, *changed_facts(before.facts, task.facts)]:
            print(harmless_lines(f"warning: {remark}"), flush=True)
    if is_named(data.classes):
        print(f"classes: {named(data.classes)}", flush=True)
    record = next(logger for logger in trainer.loggers if isinstance(logger, JSONLines))
    record.cut(before.logged.get(record.name, 0) if before else 0)
    for logger in trainer.loggers:
        if isinstance(logger, CSV):
            logger.begin(record.rows())
        logger.log_hyperparams(task.config)
    write_text(run / "config.yaml", start_again)


def _finish(
    run: Path, task: Task, step: int, metrics: dict[str, float], evaluated: dict[str, Any], seconds: float
) -> None:
    """Writes `result.json` and says what came out."""
    files = [folder / f"step-{step:08d}.ckpt" for folder in places(run, "checkpoints")]
    result = {
        "metrics": metrics,
        **{name: value for name, value in evaluated.items() if value},  # nothing, where nothing was measured
        "checkpoint": next((str(file) for file in files if file.exists()), None),
        "steps": step,
        "seconds": round(seconds, 1),
        "seed": task.config["seed"],
        **task.facts,
    }
    write_json(result, run / "result.json")
    _farewell(run, result, task)


def _leave(interruption: Interrupted, trainer: Trainer) -> NoReturn:
    """Ends the process with the exit code of the signal; the same command goes on."""
    if trainer.is_global_zero:
        print(f"{interruption}: the same command goes on from there, in the same output_dir", file=sys.stderr)
        if interruption.signum == signal.SIGUSR1:
            requeue()
    # Only rank 0 speaks for the run: Lightning kills it as soon as another rank ends with a code.
    sys.exit(interruption.exit_code if trainer.is_global_zero else 0)


def _checked(config: DictConfig, output_dir: str) -> dict[str, Any]:
    """The resolved configuration; `ValueError` for what cannot be."""
    plain = resolved(config, output_dir)
    check_settings(plain)
    check(plain, (*USER_TARGETS, *plain["allow_targets"]))
    return plain


def _own(stack: contextlib.ExitStack, run: Path, plain: dict[str, Any], shown: dict[str, Any]) -> None:
    """Makes all folders that the run writes to its own; what another process has taken meanwhile is refused."""
    if not is_first():
        return
    for folder in outside(run, plain).values():
        stack.enter_context(locked(folder))
    refuse_foreign(run, plain)
    claim(run, plain["run_id"], plain, shown)


def _build(plain: dict[str, Any], run: Path) -> tuple[DataModule, Task, Trainer]:
    """The data, the task and the trainer; everything that can be wrong with them shows here, as a `ValueError`."""
    allowed = (*USER_TARGETS, *plain["allow_targets"])
    torch.manual_seed(plain["seed"])  # weights
    data: DataModule = build(plain["data"], allowed)
    task: Task = build(plain["task"], allowed)
    task.facts = facts()
    check_items(data, plain["trainer"])
    pipeline = task.pipeline
    pipeline.fit(partial(_column, data.splits["train"]))
    if plain["init_from"]:
        _warm_start(pipeline, Path(plain["init_from"]))
    if plain["channels_last"]:
        pipeline.to(memory_format=torch.channels_last)
    if plain["checkpoint_activations"]:
        recompute_activations(pipeline.network)
    loggers: list[Logger] = [JSONLines(run / "metrics.jsonl")]
    try:
        loggers += build(list(plain["logger"].values()), allowed)
    except ImportError as error:
        raise ValueError(f"a logger needs a package that is not here: {error}") from None
    callbacks = build(list(plain["callbacks"].values()), allowed)
    for callback in callbacks:
        getattr(callback, "check", lambda data: None)(data)
    # Lightning's own sampler would change the keyed order, and its sanity check would cost time and log a loss.
    trainer = Trainer(
        **whole_steps(plain["trainer"]),
        callbacks=[*callbacks, StopOnSignal()],
        logger=loggers,
        default_root_dir=run / "lightning",  # never made: on SLURM it would go on from a hpc_ckpt_*.ckpt there
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        max_epochs=-1,
        check_val_every_n_epoch=None,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    check_batch_size(data.batch_size, trainer.world_size)
    check_held_out(data, trainer.world_size)
    if isinstance(trainer.strategy, DDPStrategy):
        trainer.strategy._timeout = timedelta(minutes=plain["timeout_minutes"])
    for remark in foreseen(task, plain, trainer.strategy.root_device) if trainer.is_global_zero else ():
        print(harmless_lines(f"warning: {remark}"), flush=True)
    if plain["compile"]:
        compile_network(pipeline)
    return data, task, trainer


def _column(split: Split, name: str) -> Iterator[Tensor]:
    """A column in batches; none where it comes into being with each batch, or is not there."""
    if name in split:
        yield from (split[name][items] for items in torch.arange(len(split[name])).split(4096))


def _warm_start(pipeline: Pipeline, path: Path) -> None:
    """Weights to begin from: a run folder or checkpoint of inkdrop, or a published folder of diffusers."""
    if is_diffusers_folder(path):
        network: Any = pipeline.denoiser.network
        try:
            network.load_state_dict(read_diffusers_folder(path, network))
        except ValueError as error:
            raise CheckpointError(f"init_from={harmless(path)}: {error}") from None
        return
    weights = model_weights(read_checkpoint(path))
    own = pipeline.state_dict()
    weights = {name: value for name, value in weights.items() if name in own}  # a part of a larger model will do
    set_weights(pipeline, weights, f"init_from={path}")


def _has_result(run: Path) -> bool:
    """Whether there is a `result.json` that can be read; one that is half written is written again."""
    try:
        return bool(read_json(run / "result.json"))
    except UnreadableError:
        return False


def _evaluated_before(before: Resumed, trainer: Trainer) -> dict[str, Any]:
    """As `_evaluated`, of a run that has nothing left to do; the share of the time is in its record."""
    rows = next(logger for logger in trainer.loggers if isinstance(logger, JSONLines)).rows()
    shares = [row["evaluation/share_of_time"] for row in rows if "evaluation/share_of_time" in row]
    return {"protocol": before.protocol, "evaluation_share_of_time": round(shares[-1], 4) if shares else 0}


def _evaluated(trainer: Trainer) -> dict[str, Any]:
    """How the latest evaluation measured, and the share of the time that all of them took."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    evaluate = next((each for each in callbacks if isinstance(each, Evaluate)), None)
    if evaluate is None:
        return {}
    return {"protocol": evaluate.protocol, "evaluation_share_of_time": round(evaluate.share_of_time, 4)}


def _farewell(run: Path, result: dict[str, Any], task: Task) -> None:
    """The last lines on the terminal: what came out, where it is, and what to try next."""
    print(told(result["metrics"], result.get("protocol", {})))
    if share := result.get("evaluation_share_of_time"):
        print(f"evaluation took {share:.1%} of the time")
    print(f"\nrun        {run}")
    folder = Path(folder_of(task.config, "callbacks", "pictures") or run / "pictures")
    if pictures := sorted(folder.glob("*.png")):
        print(f"samples    {pictures[-1]}")
    if result["checkpoint"]:
        print(f"now try    python sample.py {options(task.advice(str(run)))}")
