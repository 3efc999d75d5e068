"""One training run, from a checked configuration to `result.json`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from inkdrop.configuration import USER_TARGETS, build, check, check_settings
from inkdrop.data.module import DataError
from inkdrop.experiment import facts, quiet, resolved, stop, write_json
from inkdrop.loggers.jsonl import JSONLines
from inkdrop.networks.diffusers_format import is_diffusers_folder, read_diffusers_folder
from inkdrop.pipeline import Pipeline, compile_network, model_weights, read_checkpoint

if TYPE_CHECKING:
    from inkdrop.data import DataModule
    from inkdrop.tasks import DiffusionTask


def train(config: DictConfig, output_dir: str) -> dict[str, Any]:
    """Trains what the configuration describes and leaves everything in `output_dir`; returns the final metrics.

    The folder holds `config.yaml`, `metrics.jsonl`, `checkpoints/`, `pictures/` and at the end `result.json`.
    """
    start = time.monotonic()
    quiet()
    run = Path(output_dir)
    plain = resolved(config, output_dir)
    try:
        data, task, trainer = _build(plain, run)
    except ValueError as error:
        stop(error)
    if trainer.is_global_zero:
        OmegaConf.save(plain, run / "config.yaml")
        for logger in trainer.loggers:
            logger.log_hyperparams(plain)
    try:
        trainer.fit(task, datamodule=data)
    except DataError as error:  # a file that went away while training, say
        stop(error)
    metrics = _metrics(trainer)
    if trainer.is_global_zero:
        checkpoint = run / "checkpoints" / f"step-{trainer.global_step:08d}.ckpt"
        result = {
            "metrics": metrics,
            "checkpoint": str(checkpoint),
            "steps": trainer.global_step,
            "seconds": round(time.monotonic() - start, 1),
            "seed": plain["seed"],
            **facts(),
        }
        write_json(result, run / "result.json")
        _farewell(run, metrics)
    return metrics


def _build(plain: dict[str, Any], run: Path) -> tuple[DataModule, DiffusionTask, Trainer]:
    """The data, the task and the trainer; everything that can be wrong with them shows here, as a `ValueError`."""
    allowed = (*USER_TARGETS, *plain["allow_targets"])
    check_settings(plain)
    check(plain, allowed)
    torch.manual_seed(plain["seed"])  # weights
    data: DataModule = build(plain["data"], allowed)
    task: DiffusionTask = build(plain["task"], allowed)
    task.config = plain
    pipeline = task.pipeline
    x = data.splits["train"]["x"]
    pipeline.codec.fit(x[items] for items in torch.arange(len(x)).split(4096))
    if plain["init_from"]:
        _warm_start(pipeline, Path(plain["init_from"]))
    if plain["channels_last"]:
        pipeline.to(memory_format=torch.channels_last)
    if plain["compile"]:
        compile_network(pipeline)
    loggers: list[Logger] = [JSONLines(run / "metrics.jsonl"), *build(list(plain["logger"].values()), allowed)]
    callbacks = build(list(plain["callbacks"].values()), allowed)
    for callback in callbacks:
        getattr(callback, "check", lambda data: None)(data)
    # Lightning's own sampler would change the keyed order, and its sanity check would cost time and log a loss.
    trainer = Trainer(
        **plain["trainer"],
        callbacks=callbacks,
        logger=loggers,
        default_root_dir=run,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    if data.batch_size % trainer.world_size:
        raise ValueError(f"data.batch_size={data.batch_size} is not divisible by {trainer.world_size} devices")
    return data, task, trainer


def _warm_start(pipeline: Pipeline, path: Path) -> None:
    """Weights to begin from: a run folder or checkpoint of inkdrop, or a published folder of diffusers."""
    if is_diffusers_folder(path):
        network: Any = pipeline.denoiser.network
        network.load_state_dict(read_diffusers_folder(path, network))
        return
    weights = model_weights(read_checkpoint(path))
    own = {name: value.shape for name, value in pipeline.state_dict().items()}
    if wrong := sorted(name for name in own if name not in weights or weights[name].shape != own[name]):
        raise ValueError(f"init_from={path} does not fit the model: {len(wrong)} weights differ, such as {wrong[0]}")
    pipeline.load_state_dict(weights, strict=False)


def _metrics(trainer: Trainer) -> dict[str, float]:
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        metrics.update(getattr(callback, "results", {}))
    return metrics


def _farewell(run: Path, metrics: dict[str, float]) -> None:
    """The last lines on the terminal: what came out, where it is, and what to try next."""
    for name, value in metrics.items():
        print(f"{name:28} {value:.4f}")
    print(f"\nrun        {run}")
    if pictures := sorted((run / "pictures").glob("*.png")):
        print(f"samples    {pictures[-1]}")
    choices = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    same = "".join(f"{group}={choices[group]} " for group in ("sampler", "time_grid") if group in choices)
    print(f"now try    python sample.py checkpoint={run} num_samples=64 {same}time_grid.num_steps=50 save_gif=true")
