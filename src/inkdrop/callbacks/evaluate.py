"""Distance to real data while training goes on."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer

from inkdrop.callbacks.cadence import Every
from inkdrop.callbacks.ema import averaged_weights
from inkdrop.callbacks.step import AfterStep
from inkdrop.metrics import Evaluation


class Evaluate(AfterStep):
    """Measures the averaged weights every so often and when training ends; `results` holds the latest values.

    They are those of step `measured_at`.
    """

    def __init__(self, every: Every, evaluation: Evaluation):
        self.every, self.evaluation = every, evaluation
        self.results: dict[str, float] = {}
        self.measured_at = -1

    def check(self, data: Any) -> None:
        """`ValueError` if these data do not suffice for the evaluation."""
        self.evaluation.check(data)

    def after_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.every.due(trainer):
            self._measure(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.measured_at != trainer.global_step:
            self._measure(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        return {"results": self.results, "measured_at": self.measured_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.results, self.measured_at = state_dict["results"], state_dict["measured_at"]

    def _measure(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.measured_at = trainer.global_step
        pipeline: Any = pl_module.pipeline
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        with averaged_weights(trainer, pl_module):
            self.results = self.evaluation(pipeline, data, trainer.global_rank, trainer.world_size)
        for logger in trainer.loggers:
            logger.log_metrics(self.results, step=trainer.global_step)
