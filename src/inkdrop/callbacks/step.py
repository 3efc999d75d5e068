"""Callbacks that act once per optimizer step, however many batches a step takes."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class AfterStep(Callback):
    """Calls `after_step` once right after each optimizer step."""

    _last_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step != self._last_step:
            self._last_step = trainer.global_step
            self.after_step(trainer, pl_module)

    @abstractmethod
    def after_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What to do; `trainer.global_step` counts the steps done."""


class BetweenSteps(Callback):
    """Calls `between_steps` once a step is over with all that belongs to it, validation too, and before the next."""

    _last_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last_step = trainer.global_step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step != self._last_step:
            self._last_step = trainer.global_step
            self.between_steps(trainer, pl_module)

    @abstractmethod
    def between_steps(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What to do; `trainer.global_step` counts the steps done."""
