"""What a training step costs: `python benchmarks/training_step.py digits` prints the tables.

The whole trainer (data, Lightning, callbacks, log, averages, keyed random numbers) takes turns, step by step, with a
bare loop over a copy of the network: numbers of torch's global generator, the same update of AdamW, a clipped
gradient and one average.
With `--options`, copies of the bare loop take turns instead, each with other options of the step. Processor time of
the process is counted, of one thread; the ratio of two is taken step by step.
"""

from __future__ import annotations

import argparse
import copy
import cProfile
import datetime
import os
import platform
import pstats
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, Trainer

import inkdrop
from inkdrop.commands.terminal import quiet
from inkdrop.configuration import build
from inkdrop.configuration.compose import composed, resolved

SMALL = ["network.channel_multipliers=[1,2,2]", "network.num_blocks=2", "network.attention_resolutions=[16]"]
SMALL += ["data=arrays", "data.path={npz}", "conditioner=none", "guidance=none", "network.norm_groups=32"]
CASES = {
    "digits": [],
    "moons": ["experiment=moons"],
    "mnist": ["experiment=mnist"],
    "32": [*SMALL, "data.shape=[1,32,32]", "network.base_channels=32", "data.batch_size=64"],
    "32x3": [*SMALL, "data.shape=[3,32,32]", "network.base_channels=64", "data.batch_size=16"],
}
OPTIONS: dict[str, dict[str, Any]] = {
    "foreach": {"optimizer": {"foreach": True}},
    "fused": {"optimizer": {"fused": True}},
    "channels_last": {"optimizer": {"foreach": True}, "channels_last": True},
    "channels_last, fused": {"optimizer": {"fused": True}, "channels_last": True},
    "bf16, fused": {"optimizer": {"fused": True}, "bf16": True},
    "bf16, channels_last, fused": {"optimizer": {"fused": True}, "channels_last": True, "bf16": True},
}


class Bare:
    """A plain training loop over a copy of a run's network, one step per call."""

    def __init__(
        self, task: Any, data: Any, options: Mapping[str, Any], channels_last: bool = False, bf16: bool = False
    ):
        self.model = copy.deepcopy(task.pipeline)
        if channels_last:
            self.model.to(memory_format=torch.channels_last)
        self.split, self.size, self.bf16 = data.splits["train"], data.batch_size, bf16
        self.weights = [each for each in self.model.parameters() if each.requires_grad]
        self.optimizer = torch.optim.AdamW(self.weights, lr=1e-4, weight_decay=0.0, **options)
        self.averages = [each.detach().clone() for each in self.weights]
        share = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0).float()
        self.alpha, self.sigma = share.sqrt(), (1 - share).sqrt()

    def __call__(self) -> None:
        items = torch.randint(0, len(self.split["x"]), (self.size,))
        batch = {name: column[items] for name, column in self.split.items()}
        x, t = self.model.codec.encode(batch), torch.randint(0, 1000, (self.size,))
        shape, eps = (-1, *(1,) * (x.dim() - 1)), torch.randn_like(x)
        x_t = self.alpha[t].reshape(shape) * x + self.sigma[t].reshape(shape) * eps
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            output = self.model.denoiser.network(x_t, t.float(), **self.model.conditioner(batch))
        loss = torch.nn.functional.mse_loss(output.float(), eps)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.averages, self.weights, 1e-3)


class Turns(Callback):
    """Times each step of the trainer, and after it one step of each of the others."""

    def __init__(self, others: Mapping[str, Callable[[], None]]):
        self.others, self.since = dict(others), 0.0
        self.seconds: dict[str, list[float]] = {name: [] for name in ("trainer", *others)}

    def on_train_batch_end(self, *_: Any) -> None:
        if self.since:
            self.seconds["trainer"].append(time.process_time() - self.since)
        for name, step in self.others.items():
            self.seconds[name].append(clocked(step))
        self.since = time.process_time()


def clocked(step: Callable[[], None]) -> float:
    """Processor time of one call."""
    start = time.process_time()
    step()
    return time.process_time() - start


def overrides(case: str, folder: Path, steps: int, more: list[str]) -> list[str]:
    """The options of a case, without pictures and evaluation."""
    np.savez(folder / "x.npz", x=np.random.default_rng(0).integers(0, 255, (1024, *shape_of(case)), dtype=np.uint8))
    options = [each.format(npz=folder / "x.npz") for each in CASES[case]]
    options += ["callbacks.pictures=null", "callbacks.evaluate=null", "logger=none", "trainer.accelerator=cpu"]
    options += [
        f"trainer.max_steps={steps}",
        "trainer.val_check_interval=100000",
        "callbacks.checkpoint.every.steps=100000",
    ]
    return [*options, "extractor=identity", f"output_dir={folder / 'run'}", *more]


def shape_of(case: str) -> list[int]:
    """The shape of the images of a case that has no data of its own."""
    return [3, 32, 32] if case == "32x3" else [1, 32, 32]


def against_bare(asked: argparse.Namespace, folder: Path, more: list[str]) -> dict[str, list[float]]:
    """Seconds of each step of the trainer and of the bare loop, which take turns."""
    turns, fit, profile = Turns({}), Trainer.fit, cProfile.Profile()

    def fitted(trainer: Any, task: Any, datamodule: Any, **options: Any) -> None:
        channels_last = bool(task.config["channels_last"])
        if not asked.profile:
            same = {name: task.config["optimizer"].get(name) for name in ("fused", "foreach")}
            turns.others = {"bare": Bare(task, datamodule, same, channels_last)}
            turns.seconds["bare"] = []
        trainer.callbacks.append(turns)
        if asked.profile:
            profile.runcall(fit, trainer, task, datamodule=datamodule, **options)
        else:
            fit(trainer, task, datamodule=datamodule, **options)

    Trainer.fit = fitted  # type: ignore[assignment, method-assign]
    inkdrop.train(*overrides(asked.case, folder, asked.steps, more))
    if asked.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(asked.profile)
        pstats.Stats(profile).sort_stats("cumtime").print_stats(2 * asked.profile)
    return turns.seconds


def against_options(asked: argparse.Namespace, folder: Path, more: list[str]) -> dict[str, list[float]]:
    """Seconds of each step of bare loops with other options, which take turns."""
    plain = resolved(composed("train", overrides(asked.case, folder, 1, more)))
    torch.manual_seed(0)
    data, task = build(plain["data"]), build(plain["task"])
    loops = {
        name: Bare(task, data, each["optimizer"], each.get("channels_last", False), each.get("bf16", False))
        for name, each in OPTIONS.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(asked.steps):
        for name, loop in loops.items():
            seconds[name].append(clocked(loop))
    return seconds


def main() -> None:
    """Measures in turns and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--warm", type=int, default=5, help="steps at the start that are left out")
    parser.add_argument("--options", action="store_true", help="compare options of the step")
    parser.add_argument("--profile", type=int, default=0, help="print this many functions of the trainer alone")
    asked, more = parser.parse_known_args()
    torch.set_num_threads(1)
    quiet()
    with tempfile.TemporaryDirectory() as name:
        seconds = (against_options if asked.options else against_bare)(asked, Path(name), more)
    if asked.profile:
        return
    base = "foreach" if asked.options else "bare"
    kept = {name: values[asked.warm :] for name, values in seconds.items()}
    count = min(map(len, kept.values()))
    print(
        f"\n{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, ", end=""
    )
    print(f"1 thread, {' '.join([asked.case, *more])}, {count} steps of each in turns")
    print(f"| | a step, ms | a step / {base}: median | quartiles |\n|---|---|---|---|")
    for name, values in kept.items():
        ratios = [one / other for one, other in zip(values[:count], kept[base], strict=False)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"| {name} | {statistics.median(values) * 1e3:.1f} | {middle:.3f} | {low:.3f} to {high:.3f} |")


if __name__ == "__main__":
    main()
