"""Checkpoints of a training run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import LightningModule, Trainer

from inkdrop.callbacks.cadence import Every
from inkdrop.callbacks.interruption import Interrupted
from inkdrop.callbacks.measured import improves_upwards, latest, measured, warn_if_never_measured
from inkdrop.callbacks.step import BetweenSteps
from inkdrop.checkpoints import CheckpointFolder, read_checkpoint
from inkdrop.checkpoints.content import FORMAT
from inkdrop.loggers.rows import rows


class Checkpoint(BetweenSteps):
    """Writes `step-XXXXXXXX.ckpt` at a cadence, when a signal stops the run, and when training ends.

    - `every`: the cadence.
    - `folder`: folder of the files.
    - `keep`: number of the newest checkpoints that are kept.
    - `keep_every`: checkpoints whose step is a multiple of it are kept too.
    - `best`: metric by which further checkpoints are kept, best first: lowest, or highest if the metric says so or its
      name is written as "-NAME"; a checkpoint is also written whenever it is measured.
    - `keep_best`: number of checkpoints kept by `best`.
    """

    def __init__(
        self,
        every: Every,
        folder: str,
        keep: Annotated[int, Ge(1)] = 2,
        keep_every: Annotated[int, Ge(1)] | None = None,
        best: str | None = None,
        keep_best: Annotated[int, Ge(1)] = 1,
    ):
        self.every, self.best = every, (best or "").removeprefix("-")
        self.files = CheckpointFolder(folder, keep, keep_every, best, keep_best)
        self._saved_at = -1
        self._resumed: tuple[Path, dict[str, Any]] | None = None  # a checkpoint that was read already
        self._latest: dict[str, float] = {}  # values of the run before its interruption

    def resume(self, path: Path, content: dict[str, Any]) -> None:
        """Gives the content of the checkpoint from which the run resumes, so that it is not read again."""
        self._resumed = path, content

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        trainer.strategy.checkpoint_io = _Files(self.files, self._resumed)
        self._resumed = None
        self.files.owner = pl_module.config.get("run_id")  # type: ignore[operator, union-attr]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        # Files are written between steps, so that Lightning has nothing to finish first.
        trainer.fit_loop.epoch_loop.restarting = False
        self._saved_at = trainer.global_step

    def between_steps(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.every.due(trainer) or self.best in measured(trainer):
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer)
        self.files.wait()
        if self.best:
            warn_if_never_measured("checkpoint.best", self.best, trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, Interrupted):
            self._save(trainer)
        self.files.wait()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["format"] = FORMAT
        checkpoint["world_size"] = trainer.world_size
        checkpoint["metrics"] = measured(trainer)
        checkpoint["latest"] = {**self._latest, **latest(trainer)}
        rows(trainer).write(trainer)
        checkpoint["logged"] = {log.name: log.size() for log in trainer.loggers if hasattr(log, "size")}
        # The first batch of the next step is fetched, but nothing else of that step has happened.
        progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
        for count in ("total", "current"):
            progress[count]["ready"] = progress[count]["completed"]

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._latest = checkpoint.get("latest", {})

    def _save(self, trainer: Trainer) -> None:
        if self._saved_at != trainer.global_step:
            trainer.lightning_module.settle()  # type: ignore[operator]
            self._saved_at = trainer.global_step
            if self.best and improves_upwards(trainer, self.best):
                self.files.best = f"-{self.best}"
            trainer.save_checkpoint(self.files.path / f"step-{trainer.global_step:08d}.ckpt")


class _Files(CheckpointIO):
    """Makes Lightning write checkpoints in the background to a folder that is always consistent, and read them."""

    def __init__(self, files: CheckpointFolder, resumed: tuple[Path, dict[str, Any]] | None = None):
        self.files, self.resumed = files, resumed

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        self.files.save(checkpoint, checkpoint["global_step"])

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        known, self.resumed = self.resumed, None
        return known[1] if known is not None and known[0] == Path(path) else read_checkpoint(path)

    def remove_checkpoint(self, path: str | Path) -> None:
        os.unlink(path)
