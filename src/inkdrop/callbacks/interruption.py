"""Stops a run on a signal: between two steps, on every rank, with a complete checkpoint."""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from inkdrop.callbacks.step import BetweenSteps
from inkdrop.distributed.signals import EXIT_CODES, discard_output, install_handler, restore_handlers
from inkdrop.errors import InkdropError


class Interrupted(InkdropError):
    """A signal stopped the run; it is raised on every rank between two steps, when nothing is half done."""

    label = ""  # not an error, but requested

    def __init__(self, signum: int, step: int):
        super().__init__(signum, step)  # for unpickling in another process
        self.signum, self.step = signum, step

    def __str__(self) -> str:
        stopped = f"stopped by {signal.Signals(self.signum).name} after step {self.step}"
        return f"{stopped}: the same command resumes the run, in the same output_dir"

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        """Exit code of the signal."""
        return EXIT_CODES[signal.Signals(self.signum)]


class StopOnSignal(BetweenSteps):
    """Raises `Interrupted` between two steps on every rank after any rank has received a signal.

    A second Ctrl-C ends the process at once; the files on the disk stay complete.
    """

    def __init__(self) -> None:
        self._noted = 0
        self._before: dict[signal.Signals, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Lightning's own handlers call collectives and write checkpoints at any point of a step.
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        self._before = install_handler(self._note)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore()  # Lightning calls no teardown then, and other trials of a sweep may follow

    def _restore(self) -> None:
        restore_handlers(self._before)
        self._before = {}

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGINT and self._noted == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        self._noted = signum
        if signum == signal.SIGHUP:
            discard_output()
        with contextlib.suppress(OSError):  # the terminal may be closed
            os.write(2, f"\n{signal.Signals(signum).name}: stopping after this step\n".encode())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.between_steps(trainer, pl_module)  # no step follows the last one, and a sweep would continue

    def between_steps(self, trainer: Trainer, pl_module: LightningModule) -> None:
        noted = self._noted
        if trainer.world_size > 1:
            everywhere = torch.tensor(noted, device=trainer.strategy.root_device)
            torch.distributed.all_reduce(everywhere, torch.distributed.ReduceOp.MAX)
            noted = int(everywhere)
        if noted:
            trainer.lightning_module.settle()  # type: ignore[operator]
            raise Interrupted(noted, trainer.global_step)
