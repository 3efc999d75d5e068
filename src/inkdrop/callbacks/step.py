"""Callbacks that act after optimizer steps."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer


class AfterStep(Callback):
    """Calls `after_step` once after each optimizer step, however many batches a step takes."""

    _last_step = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
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
