"""The command `benchmark`: how fast a run trains on this machine, and where the time of a step goes."""

from __future__ import annotations

import argparse
import contextlib
import io
import resource
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.profilers import Profiler

from inkdrop.commands.command import Asked, for_the_user
from inkdrop.commands.describe import costs
from inkdrop.commands.describe.facts import averages, trainers_are_silent
from inkdrop.commands.describe.page import big, item, number
from inkdrop.commands.train.prepare import PreparedTraining, prepare_to_run
from inkdrop.commands.train.run import train
from inkdrop.configuration.compose import composed_in, primary_of
from inkdrop.randomness import Generators
from inkdrop.tasks import Task

# The part of a step to which what Lightning's profiler names is counted; the first that fits.
PARTS = {
    "draws": "random draws",
    "log": "logging",
    "train_dataloader_next": "data",
    "batch_to_device": "copy to the device",
    "training_step": "forward and loss",
    "backward": "backward",
    "configure_gradient_clipping": "norm, check and clipping",
    "optimizer_step": "update",
    "lr_scheduler": "update",
    "EMA.": "averages",
    "Rows.": "logging",
    "[Callback]": "other callbacks",
}
REST = "Lightning and the rest"


class Shares(Profiler):
    """The seconds that each part of a step takes without the parts within it, once it is `on`."""

    def __init__(self) -> None:
        super().__init__()
        self.on, self.seconds = False, defaultdict[str, float](float)
        self._open: list[str] = []
        self._since = 0.0

    def start(self, action_name: str) -> None:
        self._turn()
        fitting = (part for name, part in PARTS.items() if name in action_name)
        self._open.append(next(fitting, self._open[-1] if self._open else REST))

    def stop(self, action_name: str) -> None:
        self._turn()
        if self._open:
            self._open.pop()

    def _turn(self) -> None:
        if not self.on:
            return
        synchronize()
        now = time.perf_counter()
        self.seconds[self._open[-1] if self._open else REST] += now - self._since
        self._since = now

    def begin(self) -> None:
        """Counts from now on."""
        synchronize()
        self.on, self._since = True, time.perf_counter()

    def end(self) -> None:
        """Counts until now."""
        self._turn()
        self.on = False


class Stopwatch(Callback):
    """Leaves steps out at the start, times the next ones as they are, and takes the last ones apart."""

    def __init__(self, warm: int, timed: int, shares: Shares):
        self.warm, self.timed, self.shares = warm, timed, shares
        self.seconds: list[float] = []
        self.total = self._since = 0.0

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        done, now = trainer.global_step, time.perf_counter()
        if self.warm < done <= self.warm + self.timed:
            self.seconds.append(now - self._since)
        self._since = now
        if done in (self.warm, self.warm + self.timed):  # a device is waited for at the ends alone
            synchronize()
            self._since = time.perf_counter()
            self.total = self._since - self.total
        if done == self.warm + self.timed:
            self.shares.begin()
        elif done == trainer.max_steps:
            self.shares.end()


def synchronize() -> None:
    """Waits for what a device has to do, if there is one."""
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()


@contextlib.contextmanager
def counted(shares: Shares) -> Iterator[None]:
    """Counts random draws and logging apart within the block, which Lightning knows as parts of the forward pass."""
    before = [(Generators, "_fill", "draws"), (Task, "_log", "log")]
    kept = [getattr(owner, name) for owner, name, _ in before]

    def within(method: Any, label: str) -> Any:
        def called(*args: Any, **options: Any) -> Any:
            with shares.profile(label):
                return method(*args, **options)

        return called

    try:
        for (owner, name, label), method in zip(before, kept, strict=True):
            setattr(owner, name, within(method, label))
        yield
    finally:
        for (owner, name, _), method in zip(before, kept, strict=True):
            setattr(owner, name, method)


def benchmark(overrides: Sequence[str], warm: int = 20, timed: int = 100) -> dict[str, Any]:
    """Trains the run of these options for a few steps in a temporary folder, and returns what was measured.

    Times are in seconds, sizes in bytes, rates per second. Raises the errors of train.py.
    """
    apart = max(5, timed // 5)
    with tempfile.TemporaryDirectory() as folder, trainers_are_silent():
        given = [*overrides, f"output_dir={folder}/run", f"trainer.max_steps={warm + timed + apart}", "logger=none"]
        given += ["callbacks.pictures=null", "callbacks.evaluate=null", "++trainer.limit_val_batches=0"]
        given += ["trainer.enable_progress_bar=false", "likelihood=none"]
        config = composed_in(None, "train", given)
        with for_the_user():
            asked = Asked(config, Path(config.output_dir), "train", given, primary_of(config.hydra))
            asked.path.mkdir()
            prepared = prepare_to_run(asked)
        plain, shares = prepared.plain, Shares()
        size, precision = plain["data"]["batch_size"], plain["trainer"].get("precision", "32-true")
        memory = costs.memory(prepared.task, averages(prepared), size, precision)
        watch = Stopwatch(warm, timed, shares)
        trainer: Any = prepared.trainer
        trainer.profiler = shares
        trainer.callbacks.append(watch)
        with contextlib.redirect_stdout(io.StringIO()), counted(shares):
            train(prepared)
        return measured(prepared, watch, memory)


def measured(prepared: PreparedTraining, watch: Stopwatch, memory: Mapping[str, int]) -> dict[str, Any]:
    """Returns the figures of a run that was timed, with the bytes of its parts."""
    plain, device = prepared.plain, prepared.trainer.strategy.root_device
    samples = plain["data"]["batch_size"] * plain["trainer"].get("accumulate_grad_batches", 1)
    precision, rate = plain["trainer"].get("precision", "32-true"), samples * watch.timed / watch.total
    dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision, torch.float32)
    total = sum(watch.shares.seconds.values())
    return {
        "name": plain["name"],
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "precision": precision,
        "samples_per_step": samples,
        "steps": watch.timed,
        "step": watch.total / watch.timed,
        "quartiles": statistics.quantiles(watch.seconds, n=4),
        "samples_per_second": rate,
        "operations_per_second": prepared.flops * rate,
        "matrix_rate": matrix_rate(device, dtype),
        "bytes_per_second": moved(memory) * rate / plain["data"]["batch_size"],
        "copy_rate": copy_rate(device),
        "memory": peak(device),
        "shares": {part: seconds / total for part, seconds in watch.shares.seconds.items()},
    }


def moved(memory: Mapping[str, int]) -> int:
    """Returns the bytes that a step of one batch moves at least: each state is read and written, weights twice read."""
    state = memory["gradients"] + memory["optimizer"] + memory["averages"] + memory["activations"]
    return 2 * state + 3 * memory["weights"]


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Measures the operations per second of a product of square matrices, two for a multiply-add."""
    size = 8192 if device.type == "cuda" else 1024
    a = torch.ones(size, size, device=device, dtype=dtype)
    return 2 * size**3 / fastest(lambda: a @ a)


def copy_rate(device: torch.device) -> float:
    """Measures the bytes per second that a copy within memory reads and writes."""
    source = torch.ones((2**30 if device.type == "cuda" else 2**26) // 4, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 / fastest(lambda: target.copy_(source))


def fastest(call: Any, rounds: int = 7) -> float:
    """Returns the seconds of the fastest of a few calls."""
    seconds = []
    for _ in range(rounds):
        synchronize()
        start = time.perf_counter()
        call()
        synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def peak(device: torch.device) -> int:
    """Returns the bytes that were allocated on a GPU at most, or that the process had at most."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def page(found: Mapping[str, Any]) -> str:
    """Returns the figures as Markdown."""
    low, _, high = found["quartiles"]
    where = f"{found['device']}, {found['threads']} threads, {found['precision']}, torch {torch.__version__}"
    matrix, copy = found["matrix_rate"], found["copy_rate"]
    lines = [
        f"# {found['name']}\n",
        item("machine", where),
        item("a step", f"{found['step']:.4g} s, half of the {found['steps']} steps {low:.4g} to {high:.4g} s"),
        item("samples", f"{number(found['samples_per_second'])} per second, {found['samples_per_step']} in a step"),
        item(
            "operations",
            f"{big(found['operations_per_second'], 'FLOP/s')}, {found['operations_per_second'] / matrix:.1%} of the "
            f"{big(matrix, 'FLOP/s')} of a matrix product here",
        ),
        item(
            "memory traffic",
            f"at least {big(found['bytes_per_second'], 'B/s')}, {found['bytes_per_second'] / copy:.1%} of the "
            f"{big(copy, 'B/s')} of a copy here",
        ),
        item("memory", f"{big(found['memory'], 'B')} at most"),
        "\n| part of a step | share of the time |\n|---|---|",
    ]
    rows = sorted(found["shares"].items(), key=lambda pair: -pair[1])
    return "\n".join([*lines, *(f"| {part} | {share:.1%} |" for part, share in rows)])


def main(arguments: Sequence[str]) -> None:
    """Prints how fast the run with these options trains here."""
    parser = argparse.ArgumentParser(
        prog="inkdrop benchmark", description="Measures the speed of a training run, and where the time of a step goes."
    )
    parser.add_argument("overrides", nargs="*", metavar="option=value", help="options as for train")
    parser.add_argument("--warm", type=int, default=20, help="steps at the start that are left out")
    parser.add_argument("--steps", type=int, default=100, help="steps that are timed")
    given = parser.parse_intermixed_args(arguments)
    if given.warm < 1 or given.steps < 2:
        parser.error("--warm must be at least 1, and --steps at least 2")
    print(page(benchmark(given.overrides, given.warm, given.steps)))
