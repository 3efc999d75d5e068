"""Collects everything that is logged in an optimizer step into one row with one step number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from inkdrop.loggers.about import Picture


class Rows(Callback):
    """Collects what is logged in a step, and sends it to all loggers as one row under the number of completed steps.

    A row is written before the next step, before a checkpoint, which stores the size of the records, and when training
    ends, also by an error. A logger with `log_row` receives numbers and pictures together, and one with `log_image`
    receives them one after the other.
    """

    def __init__(self) -> None:
        self._step, self._values, self._pictures = 0, dict[str, float](), dict[str, Picture]()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Lightning's own method counts from 0, and writes a row at each call.
        connector: Any = trainer._logger_connector
        connector.log_metrics = lambda metrics, step=None: self.add(trainer, metrics, trainer.global_step)

    def add(self, trainer: Trainer, values: Mapping[str, Any], step: int) -> None:
        """Adds numbers by name to the row of this step."""
        self._enter(trainer, step)
        self._values.update({name: float(value) for name, value in values.items()})

    def show(self, trainer: Trainer, name: str, picture: Picture) -> None:
        """Adds a picture to the row of the latest completed step."""
        self._enter(trainer, trainer.global_step)
        self._pictures[name] = picture

    def _enter(self, trainer: Trainer, step: int) -> None:
        if step != self._step:
            self.write(trainer)
            self._step = step

    def write(self, trainer: Trainer) -> None:
        """Sends the collected row to the loggers."""
        values, self._values = self._values, {}
        pictures, self._pictures = self._pictures, {}
        loggers: list[Any] = trainer.loggers if values or pictures else []
        for logger in loggers:
            if hasattr(logger, "log_row"):
                logger.log_row(values, pictures, self._step)
                continue
            if values:
                logger.log_metrics(values, step=self._step)
            for name, picture in pictures.items() if hasattr(logger, "log_image") else ():
                logger.log_image(key=name, images=[picture.image], step=self._step)
            logger.save()

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        self.write(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.write(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.write(trainer)


def record(trainer: Trainer, values: Mapping[str, Any], step: int | None = None) -> None:
    """Adds numbers by name to the row of this step, by default of the latest completed one."""
    rows(trainer).add(trainer, values, trainer.global_step if step is None else step)


def rows(trainer: Trainer) -> Rows:
    """Returns the `Rows` of a trainer, which each task adds."""
    return next(each for each in trainer.callbacks if isinstance(each, Rows))  # type: ignore[attr-defined]
