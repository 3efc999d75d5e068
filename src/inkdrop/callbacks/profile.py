"""A profile of some training steps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge
from lightning.pytorch import LightningModule, Trainer
from torch.profiler import ProfilerActivity, profile

from inkdrop.callbacks.step import AfterStep
from inkdrop.files.writing import make_folder, write_text

_ROWS = 40  # operators in the table


class Profile(AfterStep):
    """Profiles some training steps of the first device, and writes the time of their operators.

    The files are `steps.txt`, a table of the operators that take longest, and `trace.json`, which ui.perfetto.dev and
    chrome://tracing draw. What happens between the steps, such as validation, is profiled too.

    - `folder`: folder of the files.
    - `first`: number of steps before the profile, during which caches fill.
    - `steps`: number of profiled steps.
    """

    def __init__(self, folder: str, first: Annotated[int, Ge(1)] = 10, steps: Annotated[int, Ge(1)] = 5):
        self.folder, self.first, self.steps = Path(folder), first, steps
        self._profile: Any = None
        self._start = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._start = trainer.global_step

    def after_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        done = trainer.global_step - self._start
        if done == self.first and trainer.is_global_zero:
            activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
            self._profile = profile(activities=activities)
            self._profile.__enter__()
        elif done == self.first + self.steps:
            self._write(self.steps)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer.global_step - self._start - self.first)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._write(trainer.global_step - self._start - self.first)

    def _write(self, steps: int) -> None:
        """Ends the profile if it is running, and writes it."""
        if self._profile is None:
            return
        finished, self._profile = self._profile, None
        finished.__exit__(None, None, None)
        make_folder(self.folder)
        device = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        table = finished.key_averages().table(sort_by=device, row_limit=_ROWS)
        write_text(self.folder / "steps.txt", f"{steps} training steps\n{table}\n")
        finished.export_chrome_trace(str(self.folder / "trace.json"))
