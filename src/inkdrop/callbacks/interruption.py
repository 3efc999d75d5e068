"""Leaving a run when a signal asks for it: between two steps, on every rank, with a whole checkpoint."""

from __future__ import annotations

import contextlib
import os
import signal
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from inkdrop.callbacks.step import BetweenSteps
from inkdrop.distributed.signals import EXIT_CODES, given_back, heard, let_go
from inkdrop.errors import InkdropError


class Interrupted(InkdropError):
    """A signal asked the run to stop; raised between two steps on every rank at once, when nothing is half done."""

    label = ""  # it was asked for

    def __init__(self, signum: int, step: int):
        super().__init__(signum, step)  # which it is made of again in another process
        self.signum, self.step = signum, step

    def __str__(self) -> str:
        told = f"stopped by {signal.Signals(self.signum).name} after step {self.step}"
        return f"{told}: the same command goes on from there, in the same output_dir"

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        """That of the signal."""
        return EXIT_CODES[signal.Signals(self.signum)]


class StopOnSignal(BetweenSteps):
    """Handlers that only take a note, and `Interrupted` between two steps once any rank has one.

    A second Ctrl-C ends the process at once; what is on the disk stays whole.
    """

    def __init__(self) -> None:
        self._noted = 0
        self._before: dict[signal.Signals, Any] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # Lightning's own handlers call collectives and write checkpoints at any point of a step.
        trainer._signal_connector.register_signal_handlers = lambda: None  # type: ignore[method-assign]
        self._before = heard(self._note)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._give_back()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._give_back()  # Lightning calls no teardown then, and other trials of a sweep may follow

    def _give_back(self) -> None:
        given_back(self._before)
        self._before = {}

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGINT and self._noted == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        self._noted = signum
        if signum == signal.SIGHUP:
            let_go()
        with contextlib.suppress(OSError):  # nobody may listen any more
            os.write(2, f"\n{signal.Signals(signum).name}: stopping after this step\n".encode())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.between_steps(trainer, pl_module)  # the last step has none after it, and a sweep would go on

    def between_steps(self, trainer: Trainer, pl_module: LightningModule) -> None:
        noted = self._noted
        if trainer.world_size > 1:
            everywhere = torch.tensor(noted, device=trainer.strategy.root_device)
            torch.distributed.all_reduce(everywhere, torch.distributed.ReduceOp.MAX)
            noted = int(everywhere)
        if noted:
            raise Interrupted(noted, trainer.global_step)
