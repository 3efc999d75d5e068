"""A small task, fitted in a few steps by Lightning alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from inkdrop.codecs import Standardize
from inkdrop.conditioners import Unconditional
from inkdrop.data import DataModule
from inkdrop.data.toys import Toy, moons
from inkdrop.denoiser import NetworkDenoiser
from inkdrop.loggers.jsonl import JSONLines
from inkdrop.losses import DenoisingLoss
from inkdrop.networks import MLP
from inkdrop.pipeline import Pipeline
from inkdrop.predictions import VPrediction
from inkdrop.samplers import DDIM
from inkdrop.schedules import VP
from inkdrop.tasks import DiffusionTask
from inkdrop.tasks.learning_rate import warmup_cosine
from inkdrop.time_grids import Trailing
from inkdrop.time_samplers import Uniform
from inkdrop.weightings import Unit


def small_task(seed: int = 0, **options: Any) -> DiffusionTask:
    torch.manual_seed(0)
    network = MLP([2], 16, 1, **options)
    network.register_buffer("counter", torch.zeros((), dtype=torch.int64))
    pipeline = Pipeline(
        NetworkDenoiser(network, VP(), VPrediction()), Unconditional(), Standardize(), DDIM(Trailing(5)), [2]
    )
    return DiffusionTask(
        pipeline,
        DenoisingLoss(Uniform(), Unit()),
        lambda parameters: torch.optim.AdamW(parameters, lr=1e-2),
        lambda optimizer: warmup_cosine(optimizer, 2, 20),
        seed,
    )


def fit(
    task: DiffusionTask,
    steps: int,
    callbacks: list[Callback],
    folder: Path,
    batch_size: int = 16,
    checkpoint: Path | None = None,
    data: DataModule | None = None,
    **options: Any,
) -> Trainer:
    trainer = Trainer(
        max_steps=steps,
        max_epochs=-1,
        accelerator="cpu",
        callbacks=callbacks,
        logger=JSONLines(folder / "metrics.jsonl"),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        log_every_n_steps=2,
        check_val_every_n_epoch=None,
        default_root_dir=folder,
        **options,
    )
    trainer.fit(task, datamodule=data or Toy(moons, 64, [2], 0, batch_size), ckpt_path=checkpoint)
    return trainer


def parameters(task: DiffusionTask) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in task.named_parameters()}


def records(folder: Path, name: str) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line[name]) for line in lines if name in line]


class History(Callback):
    """The weights after each step, and a buffer that counts batches."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []
        self.last = 0

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *args: Any) -> None:
        pl_module.pipeline.denoiser.network.counter += 1
        if trainer.global_step > self.last:
            self.last = trainer.global_step
            self.weights.append(parameters(pl_module))
