"""What it costs to train safely: `python benchmarks/protection.py` prints the table.

One run of the digits, whose steps take turns: every second one has the check of losses and gradients and the look for
signals, the others clip gradients as Lightning alone does, without looking at them. Averages of weights are in both. A
checkpoint now and then is counted with what it slows of the 20 steps after it, while it is written, and shared out over
the 750 steps for which it stands in the digits run.
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
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch.optim import Optimizer

from inkdrop.callbacks import EMA, Checkpoint, Every, StopOnSignal
from inkdrop.commands.terminal import quiet
from inkdrop.configuration import build
from inkdrop.configuration.compose import composed, resolved
from inkdrop.tasks import DiffusionTask

WARM_UP, AFTER, EVERY = 10, 20, 750


def protected(trainer: Trainer) -> bool:
    """Whether the step that comes next is protected."""
    return trainer.global_step % 2 == 0


class HalfProtected(DiffusionTask):
    """The task, which every second step is as Lightning would have it."""

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        if protected(self.trainer):
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
        else:
            self.updated = True
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)


class HalfStopped(StopOnSignal):
    """Looks for signals before the protected steps."""

    def between_steps(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if protected(trainer):
            super().between_steps(trainer, pl_module)


class Clock(Callback):
    """Seconds from the end of each step to the end of the next, which is when what comes between two steps is done."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_train_batch_end(self, *_: Any) -> None:
        self.ends.append(time.perf_counter())


class Round(NamedTuple):
    """Seconds of a bare step, of a protected step, and of a checkpoint."""

    bare: float
    safe: float
    checkpoint: float


def measured(steps: int) -> Round:
    """One run, with a checkpoint in the middle."""
    plain = resolved(composed("train", ["logger=none"]))
    torch.manual_seed(0)
    data, task = build(plain["data"]), build(plain["task"])
    task.__class__ = HalfProtected
    clock, middle = Clock(), steps // 4 * 2
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Checkpoint(Every(steps=middle), str(Path(folder) / "checkpoints"))
        trainer = Trainer(
            max_steps=steps,
            max_epochs=-1,
            accelerator="cpu",
            callbacks=[EMA([0.997]), checkpoint, HalfStopped(), clock],
            logger=False,
            gradient_clip_val=1.0,
            limit_val_batches=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            use_distributed_sampler=False,
        )
        trainer.fit(task, datamodule=data)
    # The step with number n ends at ends[n], and begins when n steps are done.
    taken = {n: clock.ends[n] - clock.ends[n - 1] for n in range(WARM_UP, steps)}
    disturbed = [n for n in taken if middle <= n <= middle + AFTER]
    bare, safe = (statistics.mean(taken[n] for n in taken if n % 2 == odd and n not in disturbed) for odd in (1, 0))
    return Round(bare, safe, sum(taken[n] - (bare if n % 2 else safe) for n in disturbed))


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=400, help="steps of a round")
    options = parser.parse_args()
    quiet()
    rounds = [measured(options.steps) for _ in range(options.rounds)]
    print(f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, ", end="")
    print(f"{options.rounds} rounds of {options.steps} steps")
    print("| | median | lowest | highest |\n|---|---|---|---|")
    rows = {
        "a bare step, s": [each.bare for each in rounds],
        "a protected step, s": [each.safe for each in rounds],
        "a checkpoint, s": [each.checkpoint for each in rounds],
        "protected / bare step": [each.safe / each.bare for each in rounds],
        f"and with a checkpoint every {EVERY} steps": [
            (each.safe + each.checkpoint / EVERY) / each.bare for each in rounds
        ],
    }
    for name, values in rows.items():
        print(f"| {name} | {statistics.median(values):.4f} | {min(values):.4f} | {max(values):.4f} |")


if __name__ == "__main__":
    main()
