"""Averages of the weights from snapshots: `python benchmarks/ema.py RUN` prints two tables and draws the second.

RUN is a run folder of `python train.py` with snapshots of the lengths 0.05, 0.1 and perhaps others. The first table, if
there are others, makes each of them from snapshots of 0.05 and 0.1 at several spacings, and compares it with what
training kept: the error is |made - kept| / |kept - raw weights|, beside the residual of the profiles. The second
measures the last snapshot at many lengths by the evaluation of the run, over several sampling seeds, made from
snapshots of all lengths that RUN has.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

import inkdrop
from inkdrop.averaging import gamma_of, reconstruction_weights
from inkdrop.checkpoints import read_checkpoint, reconstructed
from inkdrop.checkpoints.snapshots import find_snapshots, length_in, name_of
from inkdrop.configuration import CHECKPOINT_TARGETS, build
from inkdrop.pipeline import Pipeline, restored

BASIS = (0.05, 0.1)
LENGTHS = (0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.125, 0.15, 0.2, 0.25, 0.28)
SPACINGS = (1, 2, 4, 8, 16)


def main() -> None:
    """Prints the tables of one run and draws the sweep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder of `python train.py` with snapshots")
    parser.add_argument("--num-seeds", type=int, default=3, help="sampling seeds of each length in the second table")
    parser.add_argument("--lengths", type=float, nargs="+", default=LENGTHS, help="lengths of the second table")
    parser.add_argument("--num-samples", type=int, help="samples of each; as many as in the run by default")
    parser.add_argument("--output", type=Path, default=Path("ema.png"), help="PNG file to write")
    arguments = parser.parse_args()
    print(f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}\n")
    reconstructions(arguments.run)
    sweep(arguments.run, arguments.num_seeds, arguments.lengths, arguments.num_samples, arguments.output)


def reconstructions(run: Path) -> None:
    """The error of each length that is not in the basis, for every spacing of the snapshots."""
    entries = find_snapshots(run)
    stored = [flat(entry["file"]) for entry in entries]
    others = [name for name in stored[-1] if name not in map(name_of, BASIS)]
    if not others:
        return
    times = np.array([entry["metrics"]["num_updates"] for entry in entries])
    raw = read_checkpoint(run)  # of the same step, the last
    assert raw["global_step"] == entries[-1]["step"]
    weights = joined(raw["state_dict"], raw["trainable"])
    print(f"| steps between snapshots | {' | '.join(others)} |\n|---|{'---|' * len(others)}")
    for spacing in SPACINGS:
        chosen = list(range(len(entries) - 1, -1, -spacing))
        gammas = np.tile([gamma_of(length) for length in BASIS], len(chosen))
        cells = []
        for name in others:
            gamma = gamma_of(length_in(name))
            x, residual = reconstruction_weights(gammas, times[chosen].repeat(len(BASIS)), gamma, times[-1], 3e-8)
            basis = (stored[place][name_of(length)].double() for place in chosen for length in BASIS)
            made = sum((share * each for share, each in zip(x.tolist(), basis, strict=True)), torch.zeros(()))
            kept = stored[-1][name].double()
            cells.append(f"{(made - kept).norm() / (kept - weights).norm():.2%} ({residual:.2%})")
        print(f"| {spacing * (entries[-1]['step'] - entries[-2]['step'])} | {' | '.join(cells)} |")
    print()


def sweep(run: Path, num_seeds: int, lengths: Sequence[float], num_samples: int | None, output: Path) -> None:
    """The distance of samples to the data, and its floor, against the length."""
    config = read_checkpoint(run)["config"]
    evaluation, data = (build(config[name], CHECKPOINT_TARGETS) for name in ("evaluation", "data"))
    evaluation.num_samples = num_samples or evaluation.num_samples

    results: list[dict[str, float]] = []

    def measured(pipeline: Pipeline) -> list[float]:
        for evaluation.seed in (number * 10**6 for number in range(num_seeds)):
            results.append(evaluation(pipeline, data))
        return [next(iter(result.values())) for result in results[-num_seeds:]]

    print("| weights | residual | mean | each seed |\n|---|---|---|---|")
    values: dict[float, list[float]] = {}
    for length in lengths:
        checkpoint = reconstructed(run, length)
        values[length] = measured(restored(checkpoint))
        row(f"length {length}", f"{checkpoint['reconstruction']['residual']:.2%}", values[length])
    others = {weights: measured(inkdrop.load(run, weights)) for weights in ("raw", "ema")}
    for weights, each in others.items():
        row(weights, "", each)
    metric, floor = next(iter(results[0])), list(results[0].values())[1]
    print(f"\n{metric}; real data reach {floor:.4f}")
    draw(dict(sorted(values.items())), others, metric, floor, output)


def flat(file: Path) -> dict[str, Tensor]:
    """Each average of a snapshot as one vector."""
    content = read_checkpoint(file)
    return {name: joined(average, content["trainable"]) for name, average in content["ema"].items()}


def joined(values: dict[str, Tensor], names: list[str]) -> Tensor:
    """Weights in one vector."""
    return torch.cat([values[name].flatten() for name in names])


def row(name: str, residual: str, values: list[float]) -> None:
    """Prints one line of the second table."""
    each = ", ".join(f"{value:.3f}" for value in values)
    print(f"| {name} | {residual} | {statistics.mean(values):.3f} | {each} |", flush=True)


def draw(
    values: dict[float, list[float]], others: dict[str, list[float]], metric: str, floor: float, output: Path
) -> None:
    """Mean over seeds as a line, each seed as a dot, and levels for what is compared."""
    figure = Figure(figsize=(7, 4.2), dpi=110, layout="constrained")
    axes = figure.subplots()
    for length, each in values.items():
        axes.plot([length] * len(each), each, "o", color="#0072B2", alpha=0.4, markersize=4)
    axes.plot(list(values), [statistics.mean(each) for each in values.values()], color="#0072B2", label="by length")
    levels = {**{name: statistics.mean(each) for name, each in others.items()}, "real data": floor}
    for (name, level), colour in zip(levels.items(), ("#D55E00", "#009E73", "#000000"), strict=True):
        axes.axhline(level, color=colour, linestyle="--", linewidth=1.2, label=name)
    axes.set(xscale="log", xlabel="relative length of the average of the weights", ylabel=metric, ylim=(0, None))
    axes.set_xticks(list(values), [str(length) for length in values], rotation=45)
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")  # below all distances, as the axis begins at 0
    figure.savefig(output)
    print(output)


if __name__ == "__main__":
    main()
