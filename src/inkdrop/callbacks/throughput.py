"""The speed of training."""

from __future__ import annotations

import time

from lightning.pytorch import LightningModule, Trainer

from inkdrop.callbacks.step import AfterStep
from inkdrop.loggers.rows import record


class Throughput(AfterStep):
    """Logs `train/samples_per_second` over all devices, at the trainer's `log_every_n_steps`.

    The time includes everything between steps, such as sampling.
    """

    def __init__(self) -> None:
        self._since = (0, 0.0)  # step and time of the last value

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._since = trainer.global_step, time.monotonic()

    def after_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            return
        step, start = self._since
        self._since = trainer.global_step, time.monotonic()
        batch_size = trainer.train_dataloader.batch_size * trainer.accumulate_grad_batches  # type: ignore[union-attr]
        rate = (trainer.global_step - step) * batch_size / (self._since[1] - start)
        record(trainer, {"train/samples_per_second": rate})
