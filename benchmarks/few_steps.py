"""What few-step training reaches: `python benchmarks/few_steps.py FOLDER [PART ...]` prints a table for each part.

Parts: plane, methods, digits; without any, all of them.

Runs are trained into FOLDER once. Calls of training are network evaluations for each sample of a step, with a gradient
+ without one; a Jacobian-vector product counts as two. The last column says whether a figure meets what its row asks
for; the command ends with code 1 if one does not.
"""

from __future__ import annotations

import importlib
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from task_table import FAILED, part_of, row, trained
from torch import Tensor

import inkdrop
from inkdrop.data.toys import moons
from inkdrop.samplers import DDIM
from inkdrop.time_grids import Consistency, Trailing

sliced_w1 = importlib.import_module("analytic").sliced_w1  # of the tests, which task_table adds to the path

QUIET = [
    *("trainer.enable_progress_bar=false", "callbacks.evaluate=null", "trainer.val_check_interval=1000"),
    *("callbacks.checkpoint.every.steps=100000", "callbacks.loss_by_noise_level=null"),
]
STRAIGHT = ["schedule=linear", "prediction=flow", "sampler=ddim", "time_grid=trailing"]
MAP = ["denoiser=flow_map", "time_sampler=logit_normal"]


class Method(NamedTuple):
    """The options of a method, its number of steps, its sampler by the number of calls, and its calls of training."""

    options: list[str]
    steps: int
    sampler: Callable[[int], DDIM]
    calls: str


def restarted(calls: int) -> DDIM:
    return DDIM(Consistency(Trailing(calls)))


def straight(calls: int) -> DDIM:
    return DDIM(Trailing(calls))


def methods(teacher: Path, pairs: Path, base: list[str], tuned: list[str], steps: int, whole: int) -> dict[str, Method]:
    """The methods by name; those with a teacher start with its weights, and take `steps` steps, the others `whole`."""
    start = [*base, f"init_from={teacher}", "callbacks.ema.decays=[0.99]", *tuned]
    named = [f"loss.teacher.checkpoint={teacher}"]
    reflow = ["noise=paired", f"data.path={pairs}"]
    return {
        "consistency tuning": Method([*start, "loss=consistency", "time_grid=consistency"], steps, restarted, "1 + 1"),
        "progressive, 2 steps of 10": Method(
            [*start, "loss=progressive", *named, "loss.num_steps=2", "loss.substeps=10"], steps, straight, "1 + 10"
        ),
        "reflow": Method([*start, *reflow], steps, straight, "1 + 0, and 20 for each pair"),
        "DMD": Method([*start, "loss=distribution_matching", *named, "optimizer.lr=5e-4"], steps, straight, "2 + 2"),
        "shortcut, no teacher": Method([*base, *MAP, "loss=shortcut"], whole, straight, "1 + 1"),
        "MeanFlow, no teacher": Method([*base, *MAP, "loss=mean_flow"], whole, straight, "2 + 0"),
    }


def train(folder: Path, name: str, method: Method, seed: int) -> Path:
    options = [*method.options, *QUIET, f"seed={seed}", f"trainer.max_steps={method.steps}"]
    return trained(folder, name.replace(",", "").replace(" ", "_"), *options)


def made(folder: Path, teacher: Path, count: int) -> Path:
    """Returns a file of pairs of noise and the teacher's data, 20 calls each, which is made once."""
    if not folder.exists():
        options = [f"num_samples={count}", "batch_size=5000", "save_noise=true", "time_grid.num_steps=20"]
        inkdrop.sample(f"checkpoint={teacher}", f"output_dir={folder}", *options)
    return folder / "samples.npz"


def shown(values: Sequence[float]) -> str:
    each = ", ".join(f"{value:.4g}" for value in values)
    return each if len(values) == 1 else f"{statistics.fmean(values):.4g} ({each})"


def table(
    name: str, method: Method, values: list[list[float]], took: float, asks: str = "", met: bool | None = None
) -> None:
    one, two, four = (shown(column) for column in zip(*values, strict=True))
    cost = f"{method.steps} steps of {method.calls} calls, {took:.0f} s"
    row(name, f"1 call {one}; 2 calls {two}; 4 calls {four}; {cost}", asks, met)


# The plane -----------------------------------------------------------------------------------------------------------

COUNT, TEACHER = 50_000, 2000
SEEDS, JUDGED = (0, 1, 2), ("consistency tuning", "progressive, 2 steps of 10")
TUNED = ["optimizer.lr=2e-3"]
POINTS = ["experiment=moons", *STRAIGHT, "time_sampler=uniform"]


WHOLE = Method(POINTS, TEACHER, straight, "1 + 0")


def distance(run: Path, sampler: DDIM, real: Tensor) -> float:
    """Sliced W1 of samples of a run to real points."""
    pipeline = inkdrop.load(run)
    pipeline.sampler = sampler
    parts = [pipeline({}, range(first, first + 10_000)) for first in range(0, COUNT, 10_000)]
    return float(sliced_w1(torch.cat(parts).double(), real))


def of_plane(folder: Path) -> None:
    """Sliced W1 in the plane of the two methods that are judged, over three seeds."""
    real, others = (moons(COUNT, torch.Generator().manual_seed(seed)).double() for seed in (1, 2))
    row("real points, as many", f"{sliced_w1(real, others):.4f}")
    base: list[float] = []
    values: dict[str, list[list[float]]] = {name: [] for name in JUDGED}
    took = dict.fromkeys(JUDGED, 0.0)
    for seed in SEEDS:
        teacher = train(folder, f"plane {seed}", WHOLE, seed)
        base.append(distance(teacher, straight(20), real))
        chosen = methods(teacher, folder, POINTS, TUNED, TEACHER // 3, TEACHER)
        for name in JUDGED:
            began = time.monotonic()
            run = train(folder, f"plane {seed} {name}", chosen[name], seed)
            took[name] += time.monotonic() - began
            values[name].append([distance(run, chosen[name].sampler(calls), real) for calls in (1, 2, 4)])
            print(f"seed {seed}: teacher {base[-1]:.4f}, {name} {values[name][-1]}", file=sys.stderr, flush=True)
    limit = 1.2 * statistics.fmean(base)
    row("teacher, 20 calls", f"{shown(base)}; {TEACHER} steps of 1 + 0 calls")
    for name in JUDGED:
        met = statistics.fmean(two for _, two, _ in values[name]) <= limit
        table(name, chosen[name], values[name], took[name] / len(SEEDS), f"2 calls <= {limit:.4f}", met)


def of_methods(folder: Path) -> None:
    """Sliced W1 in the plane of the other methods, with one seed."""
    real = moons(COUNT, torch.Generator().manual_seed(1)).double()
    teacher = train(folder, "plane 0", WHOLE, 0)
    pairs = made(folder / "pairs", teacher, 30_000)
    for name, method in methods(teacher, pairs, POINTS, TUNED, TEACHER // 3, TEACHER).items():
        if name in JUDGED:
            continue
        fields = ["data=arrays", "+data.fields.eps=eps", "data.batch_size=256"] if name == "reflow" else []
        began = time.monotonic()
        run = train(folder, f"plane 0 {name}", method._replace(options=[*method.options, *fields]), 0)
        took = time.monotonic() - began
        table(name, method, [[distance(run, method.sampler(calls), real) for calls in (1, 2, 4)]], took)


# Digits --------------------------------------------------------------------------------------------------------------

DIGITS, FROM_NOTHING, REPEATS = 1500, 1500, 4


def of_digits(folder: Path) -> None:
    """The Fréchet distance of digits in 1, 2 and 4 calls, on the features and the held-out items of the teacher."""
    base = ["experiment=digits_flow"]
    evaluation, data = part_of(base, "evaluation"), part_of(base, "data")
    count = len(data.splits[evaluation.held_out]["x"])

    def distance(run: Path, sampler: DDIM) -> float:
        pipeline = inkdrop.load(run)
        pipeline.sampler, seeds = sampler, range(REPEATS * count)
        samples = pipeline(pipeline.request(seeds), seeds)
        values = evaluation.measure(list(samples.split(count)), data)
        return float(next(value for name, value in values.items() if name.startswith("fd_")))

    whole = Method(base, DIGITS, straight, "1 + 0")
    teacher = train(folder, "digits teacher", whole, 0)
    calls = [distance(teacher, straight(number)) for number in (1, 2, 4, 20)]
    row("teacher, 20 calls", f"{calls[3]:.4g}; 1 call {calls[0]:.4g}; 2 calls {calls[1]:.4g}; 4 calls {calls[2]:.4g}")
    pairs, steps, limit = made(folder / "digit pairs", teacher, 5000), DIGITS // 5, 1.1 * calls[3]
    for name, method in methods(teacher, pairs, base, ["optimizer.lr=1e-3"], steps, FROM_NOTHING).items():
        if name == "reflow":
            fields = ["data=arrays", "+data.fields.eps=eps", "+data.fields.label=label", "data.batch_size=128"]
            method = method._replace(options=[*method.options, *fields])
        began = time.monotonic()
        run = train(folder, f"digits {name}", method, 0)
        took = time.monotonic() - began
        values = [distance(run, method.sampler(number)) for number in (1, 2, 4)]
        judged = name == "consistency tuning"
        table(
            name,
            method,
            [values],
            took,
            f"2 calls <= {limit:.4g}" if judged else "",
            values[1] <= limit if judged else None,
        )


PARTS = {"plane": of_plane, "methods": of_methods, "digits": of_digits}


def main() -> None:
    folder, *names = sys.argv[1:]
    for name in names or PARTS:
        print(f"\n## {name}\n\n| what | measured | asked | met |\n|---|---|---|---|", flush=True)
        PARTS[name](Path(folder))
    if FAILED:
        raise SystemExit(1)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
