"""Checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from annotated_types import Ge
from lightning.pytorch import LightningModule, Trainer

from inkdrop.callbacks.cadence import Every
from inkdrop.callbacks.step import AfterStep


class Checkpoint(AfterStep):
    """Writes `step-XXXXXXXX.ckpt` every so often and when training ends, and keeps the newest ones.

    A file is complete before it gets its name, and an older one is removed only after that.
    """

    def __init__(self, every: Every, folder: str, keep: Annotated[int, Ge(1)] = 2):
        self.every, self.folder, self.keep = every, Path(folder), keep

    def after_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.every.due(trainer):
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        file = self.folder / f"step-{trainer.global_step:08d}.ckpt"
        if file.exists():
            return
        unfinished = file.with_suffix(".unfinished")
        trainer.save_checkpoint(unfinished)
        if trainer.is_global_zero:
            unfinished.replace(file)
            for old in sorted(self.folder.glob("step-*.ckpt"))[: -self.keep]:
                old.unlink()
        trainer.strategy.barrier()
