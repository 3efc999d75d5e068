"""What it costs to train safely: `python benchmarks/protection.py` prints the table.

The digits run, in turns: with checkpoints, signal handlers and the check of losses and gradients; and by Lightning
alone, which clips gradients without looking at them, with the same network, data and averages of weights. A checkpoint
is written in the middle of each round and at its end, which is far more often than in the digits run (every 750 steps).
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from torch.optim import Optimizer

from inkdrop.callbacks import EMA, Checkpoint, Every, StopOnSignal
from inkdrop.configuration import build
from inkdrop.experiment import composed, quiet, resolved
from inkdrop.tasks import DiffusionTask


class Unprotected(DiffusionTask):
    """The task as Lightning would run it."""

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        self.updated = True
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)


class Clock(Callback):
    """Seconds from the end of the third step to the end of the last."""

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == 3:
            self.start = time.perf_counter()
        self.seconds = time.perf_counter() - getattr(self, "start", 0.0)


def main() -> None:
    """Measures in turns and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=60, help="steps of a round")
    options = parser.parse_args()
    quiet()
    seconds: dict[type[DiffusionTask], list[float]] = {Unprotected: [], DiffusionTask: []}
    for number in range(options.rounds + 1):
        for kind, values in seconds.items():
            step = measured(kind, options.steps)
            if number:  # the first warms up
                values.append(step)
    ratios = [safe / bare for bare, safe in zip(*seconds.values(), strict=True)]
    print(f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, ", end="")
    print(f"{options.rounds} rounds of {options.steps} steps")
    print("| | median | lowest | highest |\n|---|---|---|---|")
    for name, values in zip(("Lightning alone, s a step", "protected, s a step"), seconds.values(), strict=True):
        print(f"| {name} | {statistics.median(values):.4f} | {min(values):.4f} | {max(values):.4f} |")
    print(f"| protected / alone | {statistics.median(ratios):.3f} | {min(ratios):.3f} | {max(ratios):.3f} |")


def measured(kind: type[DiffusionTask], steps: int) -> float:
    """Seconds that one step takes."""
    plain = resolved(composed("train", ["logger=none"]))
    torch.manual_seed(0)
    data, task = build(plain["data"]), build(plain["task"])
    task.__class__ = kind
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Checkpoint(Every(steps=steps // 2), str(Path(folder) / "checkpoints"))
        protection = [checkpoint, StopOnSignal()] if kind is DiffusionTask else []
        trainer = Trainer(
            max_steps=steps,
            max_epochs=-1,
            accelerator="cpu",
            callbacks=[EMA([0.997]), *protection, clock],
            logger=False,
            gradient_clip_val=1.0,
            limit_val_batches=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            use_distributed_sampler=False,
        )
        trainer.fit(task, datamodule=data)
    return clock.seconds / (steps - 3)


if __name__ == "__main__":
    main()
