"""Early stopping of a training run that no longer improves."""

from __future__ import annotations

import math
from typing import Annotated, Any

from annotated_types import Ge
from lightning.pytorch import Callback, LightningModule, Trainer

from inkdrop.callbacks.measured import improves_upwards, measured, warn_if_never_measured


class StopEarly(Callback):
    """Ends training after `patience` measurements in a row without a new best value of the metric.

    Lower values are better, unless the metric says that higher ones are, or its name is written as "-NAME". It counts
    measurements of validation and of evaluation. A change by less than `min_change` does not count as an
    improvement. A run that was ended is complete: the same command does not resume it.
    """

    def __init__(self, metric: str, patience: Annotated[int, Ge(1)] = 3, min_change: Annotated[float, Ge(0)] = 0.0):
        self.metric, self.upwards = metric.removeprefix("-"), metric.startswith("-")
        self.patience, self.min_change = patience, min_change
        self.best, self.num_worse, self._counted_at = math.inf, 0, -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._look(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._counted_at == -1:
            warn_if_never_measured("stop_early.metric", self.metric, trainer)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "num_worse": self.num_worse, "counted_at": self._counted_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.num_worse = state_dict["best"], state_dict["num_worse"]
        self._counted_at = state_dict["counted_at"]

    def _look(self, trainer: Trainer) -> None:
        value = measured(trainer).get(self.metric)
        if value is not None and self._counted_at != trainer.global_step:
            self._counted_at = trainer.global_step
            if self.upwards or improves_upwards(trainer, self.metric):
                value = -value
            better = value < self.best - self.min_change
            self.best, self.num_worse = (value, 0) if better else (self.best, self.num_worse + 1)
        if self.num_worse >= self.patience:
            trainer.should_stop = True
