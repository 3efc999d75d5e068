"""Checks a training run and builds its parts from the configuration before any file exists."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from inkdrop.callbacks import StopOnSignal
from inkdrop.checkpoints import model_weights, read_checkpoint
from inkdrop.checkpoints.files import read_record
from inkdrop.checkpoints.models import embedded, inner_models, loads_noted
from inkdrop.commands.command import Asked, Prepared
from inkdrop.commands.sweep.objectives import objectives_of
from inkdrop.commands.terminal import quiet
from inkdrop.commands.train.based import based, refuse_another_model
from inkdrop.commands.train.published.weights import begin_with, lend_base
from inkdrop.configuration import USER_TARGETS, build, check, check_settings
from inkdrop.configuration.completion import plain_data
from inkdrop.configuration.compose import refuse_foreign_targets, refuse_unread, settled
from inkdrop.configuration.once import options_once
from inkdrop.configuration.secrets import from_environment, hiding, masked, refuse_masked
from inkdrop.data.module import DataModule
from inkdrop.distributed.processes import is_first
from inkdrop.errors import CheckpointError, ConfigurationError, DataError
from inkdrop.files.showing import warn
from inkdrop.loggers.jsonl import JSONLines
from inkdrop.loggers.wandb_runs import agent_run_id
from inkdrop.metrics.checks import VALIDATION, absent_weights
from inkdrop.networks.diffusers_format import is_diffusers_folder
from inkdrop.networks.recomputing import recompute_activations
from inkdrop.pipeline import set_weights
from inkdrop.runs.machine import check_batch_size, check_devices, refused_devices, whole_steps
from inkdrop.runs.ownership import LOCK, locked, new_run_id, refuse_shared, run_id_of
from inkdrop.runs.rerun import startable
from inkdrop.runs.resumption import Resumed, holds_run, refuse_results, refuse_unusable, resumed
from inkdrop.runs.sweep_of import sweep_of
from inkdrop.tasks import Task

Missing = Callable[[DataError], None]


@dataclass(kw_only=True)
class PreparedTraining(Prepared):
    """A training run that is checked and built; the fields of its base class come first.

    - `shown`: the configuration without secrets.
    - `once`: the configuration for trackers: each option once, without secrets and paths.
    - `start_again`: YAML text from which the run can be started again.
    - `before`: the earlier part of the run in the folder, or None for a fresh run.
    - `data`, `task`, `trainer`: the built parts.
    - `is_fitted`: whether the model has the statistics of an earlier run.
    - `held_run`: whether the folder held a run at the time of the check.
    - `is_locked`: whether the folder is already locked for this process.
    - `flops`: operations of training on one sample, once they are counted, or 0 where they cannot be.
    """

    shown: dict[str, Any]
    once: dict[str, Any]
    start_again: str
    before: Resumed | None
    data: DataModule
    task: Task
    trainer: Trainer
    is_fitted: bool
    held_run: bool = False
    is_locked: bool = False
    flops: int = 0


def resolve(asked: Asked) -> tuple[DictConfig, dict[str, Any], list[DataModule]]:
    """Returns the configuration with its references and as plain data, after each value is checked by itself.

    The third value has the data set if it was built to complete the configuration.
    """
    quiet()
    refuse_unread(asked.config, "train", asked.name)
    refuse_foreign_targets(asked.config, asked.overrides, asked.primary)
    config = asked.config.copy()
    OmegaConf.set_readonly(config, False)
    OmegaConf.set_struct(config, False)
    earlier: dict[str, Any] | None = None
    given = None if asked.in_sweep or sweep_of(asked.path) else agent_run_id()  # it is of one run
    config.run_id = run_id_of(asked.folder) or config.get("run_id") or given or new_run_id()
    with contextlib.suppress(CheckpointError):  # which is raised where it matters
        earlier = read_record(asked.folder).get("config")
    found: list[DataModule] = []
    config, base = based(config, asked.overrides, earlier)
    config = settled(config, str(asked.path), earlier=earlier, found=found)
    plain = plain_data(config)
    with hiding(config):
        check_settings(plain)
        check(plain, (*USER_TARGETS, *plain["allow_targets"]))
    refuse_masked(plain)
    refuse_another_model(plain, base)
    return config, plain, found


def prepare_to_run(asked: Asked) -> PreparedTraining:
    """Returns the run of `prepare`, and locks its folder so that no other process resumes the same run."""
    with contextlib.ExitStack() as stack:
        held_run = is_first() and holds_run(asked.folder)
        is_locked = held_run and (asked.folder / LOCK).exists()  # the lock file is not created yet
        if is_locked:
            stack.enter_context(locked(asked.folder))
        prepared = prepare(asked)
        prepared.held_run, prepared.is_locked, prepared.open = held_run, is_locked, stack.pop_all()
        return prepared


def prepare(asked: Asked, missing: Missing | None = None) -> PreparedTraining:
    """Returns the run, checked and built; raises `InkdropError` or `ValueError` if it cannot work.

    Missing data raise a `DataError`; they and weights to download are passed to `missing` if that is given.
    """
    config, plain, found = resolve(asked)
    if is_first():
        refuse_unusable(asked.folder)
    if sweep_of(asked.path) is not None:
        refuse_shared(asked.config)
    secret = from_environment(config)
    before = resumed(asked.folder, {**plain, "run_id": asked.config.get("run_id")}, secret)
    if before is not None and before.run_id not in (None, plain["run_id"]):  # written by a version without run.json
        asked.config.run_id = before.run_id
        config, plain, found = resolve(asked)
    data, task, trainer = _build(plain, asked.path, before, found)
    is_fitted = before is not None or _begins_with_weights(plain, task.pipeline)
    lend_base(plain, data, task.pipeline, before is None)
    _adapt(plain, task, before)
    _check_fit(plain, data, task, trainer, missing)
    output_dir = OmegaConf.to_container(asked.config, resolve=False)["output_dir"]  # type: ignore[index, call-overload]
    return PreparedTraining(
        asked,
        plain,
        trainer.world_size,
        contextlib.ExitStack(),
        only_checked=_only_checked(plain),
        objective=[each.name for each in objectives_of(plain["objective"])],
        shown=masked(plain, secret),
        once=options_once(config, plain, secret),
        start_again=startable(config, output_dir, secret),
        before=before,
        data=data,
        task=task,
        trainer=trainer,
        is_fitted=is_fitted,
    )


def _build(
    plain: dict[str, Any], run: Path, before: Resumed | None, found: list[DataModule]
) -> tuple[DataModule, Task, Trainer]:
    """Builds the data unless they are found, the task, and the trainer with its loggers and callbacks."""
    allowed = (*USER_TARGETS, *plain["allow_targets"])
    torch.manual_seed(plain["seed"])  # weights
    data: DataModule = found[0] if found else build(plain["data"], allowed)
    task, callbacks = _task(plain, allowed, before)
    if plain["channels_last"]:
        task.pipeline.to(memory_format=torch.channels_last)
    loggers: list[Logger] = [JSONLines(run / "metrics.jsonl")]
    try:
        loggers += build(list(plain["logger"].values()), allowed)
    except ImportError as error:
        raise ValueError(f"a logger needs a package that is not installed: {error}") from None
    # Lightning's own sampler would change the keyed order, and its sanity check would cost time and log a loss.
    with refused_devices(plain["trainer"]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*AMP with fp16 is not supported on CPU.*")  # it is refused elsewhere
        trainer = Trainer(
            **whole_steps(plain["trainer"]),
            callbacks=[*callbacks, StopOnSignal()],
            logger=loggers,
            default_root_dir=run / "lightning",  # never created: on SLURM it would resume from a hpc_ckpt_*.ckpt there
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            max_epochs=-1,
            check_val_every_n_epoch=None,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
    return data, task, trainer


def _task(plain: Mapping[str, Any], allowed: tuple[str, ...], before: Resumed | None) -> tuple[Task, list[Callback]]:
    """Builds the task and the callbacks; models within them that the run's checkpoint holds are not read again."""
    node, known = {**plain["task"], "callbacks": plain["callbacks"]}, {}
    if before is not None:
        node, known = embedded(node, before.models, before.checkpoint), before.models
    with loads_noted() as noted:
        task: Task = build({name: each for name, each in node.items() if name != "callbacks"}, allowed)
        callbacks: list[Callback] = build(list(node["callbacks"].values()), allowed)
    task.models = {**known, **inner_models(node, noted, list(task.modules()))}
    return task, callbacks


def _check_fit(
    plain: Mapping[str, Any], data: DataModule, task: Task, trainer: Trainer, missing: Missing | None
) -> None:
    """Raises `ValueError` for parts that do not fit each other, the data, or this machine."""
    check_devices(trainer, plain["trainer"])
    check_batch_size(plain["data"].get("batch_size", trainer.world_size), trainer.world_size)
    pipeline = task.pipeline
    pipeline.check()
    if plain["checkpoint_activations"]:
        recompute_activations(pipeline.network)  # raises if the network has no blocks
    for likelihood in build(plain["likelihood"], (*USER_TARGETS, *plain["allow_targets"])).values():
        likelihood.check(pipeline)
    if plain["optimizer"]["lr"] == 0:
        warn("optimizer.lr=0 leaves all weights unchanged")
    task.foresee(plain["trainer"]["max_steps"])
    for logger in trainer.loggers:
        getattr(logger, "verify", lambda config: None)(plain)
    item = None
    try:
        data.verify()
        pipeline.check_item(item := data.example())
    except DataError as error:
        if missing is None:
            raise
        missing(error)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        evaluation = getattr(callback, "evaluation", None)
        if missing and evaluation and (text := absent_weights(evaluation.metrics, evaluation.extractor)):
            missing(DataError(text))
            continue
        getattr(callback, "verify", lambda: None)()
        if item is not None and evaluation is not None:
            evaluation.check_item(item)
            if evaluation.held_out not in ("train", VALIDATION) and plain["trainer"]["max_steps"] != 0:
                evaluation.check_splits(data)  # which reads the data; all data have these two splits


def _only_checked(plain: Mapping[str, Any]) -> bool:
    """Returns whether a configuration requests no training, and warns in that case."""
    if plain["trainer"]["max_steps"] != 0:
        return False
    warn(
        "trainer.max_steps=0: the configuration is checked, and nothing is trained; the data are not read: "
        "`python -m inkdrop check-data` with the same options checks them"
    )
    return True


def _begins_with_weights(plain: Mapping[str, Any], pipeline: Any) -> bool:
    """Loads initial weights, and returns whether they are those of a whole model with its statistics.

    Those of a run may be of a larger model; those of a folder of diffusers are for the network alone.
    """
    option = "base" if plain.get("base") else "init_from"
    if not plain[option]:
        return False
    if not is_diffusers_folder(Path(plain[option])):
        names, initial = pipeline.state_dict(), model_weights(read_checkpoint(plain[option], option))
        parts = tuple(f"denoiser.{each}." for each in getattr(getattr(pipeline, "denoiser", None), "added", ()))
        added = {name: value for name, value in names.items() if parts and name.startswith(parts)}
        kept = {**added, **{name: value for name, value in initial.items() if name in names}}
        set_weights(pipeline, kept, f"{option}={plain[option]}")
        return True
    begin_with(plain[option], pipeline, option)
    return False


def _adapt(plain: Mapping[str, Any], task: Task, before: Resumed | None) -> None:
    """Changes the model by its adapters; raises `ConfigurationError` for a model that was never trained."""
    adapters = plain.get("adapter") or {}
    if adapters and before is None and not (plain.get("base") or plain["init_from"]):
        raise ConfigurationError(
            f"adapter={next(iter(adapters))} changes a trained model: name it by base=RUN, which also has its options, "
            "or by init_from=RUN"
        )
    if adapters and "adapters" not in plain["pipeline"]:
        raise ConfigurationError(f"adapter={next(iter(adapters))} changes diffusion models only: remove it")
    task.pipeline.adapt()


def check_sweep(folder: Path, config: DictConfig) -> None:
    """Raises `ConfigurationError` if the trials of a sweep cannot be written to this folder."""
    if not is_first():
        return
    refuse_unusable(folder)
    if isinstance(config.get("run_id"), str):  # one name, not several ones to sweep over
        raise ConfigurationError(
            f"run_id={config.run_id} would be shared by all trials of the sweep: remove it, so that each draws its own"
        )


def check_trials(asked: Asked) -> Mapping[str, Any]:
    """Returns the trainer options of all trials; raises `ValueError` for options that cannot work in any of them."""
    config, plain, _ = resolve(asked)
    refuse_unusable(asked.folder)
    if is_first():
        refuse_results(asked.folder)
    refuse_shared(config)
    trainer: Mapping[str, Any] = plain["trainer"]
    return trainer
