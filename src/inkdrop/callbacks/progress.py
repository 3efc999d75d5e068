"""The progress bar."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar as LightningProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class ProgressBar(LightningProgressBar):
    """A bar over all optimizer steps, with the latest losses and metrics, elapsed and remaining time.

    Losses are those of the latest step that was logged. If the output is not a terminal, it prints a line at each
    validation instead.
    """

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._bar: Progress | None = None
        self._step = -1  # that is shown

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._enabled:
            return
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[values]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(),
            disable=not Console().is_terminal,
        )
        self._bar.add_task("training", total=trainer.max_steps, completed=trainer.global_step, values="")
        self._bar.start()

    def on_train_batch_end(self, trainer: Trainer, *args: object, **kwargs: object) -> None:
        if self._bar is None or self._bar.disable or trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        if trainer.global_step % trainer.log_every_n_steps:  # type: ignore[attr-defined]
            self._bar.update(self._bar.task_ids[0], completed=trainer.global_step)  # reading a loss waits for a device
        else:
            self._update(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._update(trainer)
        if self._bar is not None and self._bar.disable:
            print(f"step {trainer.global_step}/{trainer.max_steps} {_values(trainer)}", flush=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._update(trainer)
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def _update(self, trainer: Trainer) -> None:
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=trainer.global_step, values=_values(trainer))

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def _values(trainer: Trainer) -> str:
    shown = {"loss": "train/loss", "held out": "validation/loss"}
    values = [f"{text} {trainer.callback_metrics[k]:.4f}" for text, k in shown.items() if k in trainer.callback_metrics]
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        values += [f"{name} {value:.3f}" for name, value in getattr(callback, "results", {}).items()]
    return "  ".join(values)
