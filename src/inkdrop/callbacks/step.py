"""Callbacks that act once per optimizer step, however many batches a step takes."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class AfterStep(Callback):
    """A callback whose `after_step` is called once immediately after each optimizer step."""

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
        """Acts after a step; `trainer.global_step` counts the completed steps."""


class BetweenSteps(Callback):
    """A callback whose `between_steps` is called once between two steps, after validation and all other callbacks."""

    _last_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last_step = trainer.global_step

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step != self._last_step:
            self._last_step = trainer.global_step
            self.between_steps(trainer, pl_module)

    @abstractmethod
    def between_steps(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Acts between two steps; `trainer.global_step` counts the completed steps."""
