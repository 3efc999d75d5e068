"""What guidance buys and what it costs: `python benchmarks/guidance.py RUN --unconditional RUN --classifier RUN`.

On runs of `python train.py`, `experiment=digits_unconditional` and `experiment=digits_classifier`: for each scale,
under the labels of the 350 held-out digits,
- the share recognised as their label by a support vector machine that was fitted to the real training digits;
- the variance within a class, relative to that of the held-out digits;
- fd_digits against the training digits, relative to the floor that the held-out digits reach;
then the time of a sample with guidance relative to that without, all ways taking turns.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import torch
from digits import EXTRACTOR
from digits import statistics as gaussian
from sklearn.svm import SVC
from torch import Tensor

import inkdrop
from inkdrop.data import Digits, collect
from inkdrop.guidance import ClassifierFree, ClassifierGuidance, Guidance
from inkdrop.metrics import Classifier, frechet_distance
from inkdrop.pipeline import Pipeline, loaded

BATCH = 64  # samples whose time is measured
CLASSIFIER_SCALES = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
FREE_SCALES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0)


class Row(NamedTuple):
    """Means over the seeds at one scale."""

    scale: float
    accuracy: float
    variance: float
    distance: float


class Judges:
    """What samples are measured with, fitted to the real digits."""

    def __init__(self) -> None:
        data = Digits([1, 8, 8], 10, 128)
        train, self.held_out = collect(data.splits["train"]), collect(data.splits["validation"])
        self.label: Tensor = self.held_out["label"]
        self.svm = SVC(C=10).fit(train["x"].flatten(1).numpy() / 255, train["label"].numpy())
        self.extractor = Classifier(**EXTRACTOR)
        with torch.no_grad():
            self.reference = gaussian(self.extractor(train["x"]))
        self.floor = self.distance(self.held_out["x"])

    def accuracy(self, x: Tensor) -> float:
        """The share that is recognised."""
        return float((self.svm.predict(x.flatten(1).numpy() / 255) == self.label.numpy()).mean())

    def variance(self, x: Tensor) -> float:
        """The variance within a class, summed over pixels."""
        pixels = x.flatten(1).double() / 255
        return statistics.mean(pixels[self.label == each].var(0).sum().item() for each in range(10))

    @torch.no_grad()
    def distance(self, x: Tensor) -> float:
        """The Fréchet distance to the training digits."""
        return frechet_distance(gaussian(self.extractor(x)), self.reference)

    def row(self, pipeline: Pipeline, guide: Guidance, scale: float, num_seeds: int) -> Row:
        """The means over seeds of samples under this guide and the pipeline's other ones."""
        pipeline.guidance = {"guide": guide, **{k: v for k, v in pipeline.guidance.items() if k == "static_threshold"}}
        n = len(self.label)
        samples = [pipeline({"label": self.label}, range(n * k, n * (k + 1))) for k in range(num_seeds)]
        real = self.variance(self.held_out["x"])
        return Row(
            scale,
            statistics.mean(map(self.accuracy, samples)),
            statistics.mean(self.variance(x) / real for x in samples),
            statistics.mean(self.distance(x) / self.floor for x in samples),
        )


def table(title: str, rows: list[Row], judges: Judges) -> None:
    """Prints one way of guidance; the lowest distance is bold."""
    best = min(row.distance for row in rows)
    print(f"\n| {title}, scale | recognised | variance within a class | `fd_digits` / floor |\n|---|---|---|---|")
    for row in rows:
        distance = f"**{row.distance:.3f}**" if row.distance == best else f"{row.distance:.3f}"
        print(f"| {row.scale:g} | {row.accuracy:.1%} | {row.variance:.3f} | {distance} |")
    print(f"| real digits, held out | {judges.accuracy(judges.held_out['x']):.1%} | 1 | 1 |")


def plot(ways: dict[str, list[Row]], path: Path) -> None:
    """Accuracy, variance and distance against the scale."""
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
    for axis, (field, title) in zip(
        axes,
        {
            "accuracy": "recognised",
            "variance": "variance within a class / real",
            "distance": "fd_digits / floor",
        }.items(),
        strict=True,
    ):
        for name, rows in ways.items():
            axis.plot([row.scale for row in rows], [getattr(row, field) for row in rows], marker="o", label=name)
        if field != "accuracy":
            axis.axhline(1, color="grey", linewidth=0.8)
        if field == "distance":
            axis.set_yscale("log")
        axis.set(title=title, xlabel="guidance.scale")
    axes[0].legend()
    figure.savefig(path, dpi=110)
    print(f"\n{path}")


def costs(pipeline: Pipeline, unconditional: Pipeline, classifier: Any, rounds: int) -> None:
    """Prints the time of a batch relative to that without guidance, and what the network calls would make it."""
    grid = pipeline.denoiser.schedule.points(pipeline.sampler.time_grid(pipeline.denoiser.schedule))
    low, high = 0.2, 2.0
    share = sum(low < float(point.sigma / point.alpha) <= high for point in grid[:-1]) / (len(grid) - 1)
    ways: dict[str, tuple[Pipeline, Guidance | None, float | None]] = {
        "none": (pipeline, None, 1.0),
        "classifier-free": (pipeline, ClassifierFree(2.0), 2.0),
        f"classifier-free for sigma / alpha in ({low:g}, {high:g}]": (
            pipeline,
            ClassifierFree(2.0, [low, high]),
            1 + share,
        ),
        "none, unconditional": (unconditional, None, 1.0),
        "classifier": (unconditional, ClassifierGuidance(classifier, 2.0), None),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        for name, (model, guide, _calls) in ways.items():
            model.guidance = {} if guide is None else {"guide": guide}
            start = time.process_time()
            model({"label": torch.arange(BATCH) % 10}, range(BATCH))
            taken[name].append(time.process_time() - start)
    print("\n| guidance | time / without guidance (lowest to highest round) | network calls |\n|---|---|---|")
    for name, (model, _guide, calls) in ways.items():
        base = taken["none" if model is pipeline else "none, unconditional"]
        ratios = [a / b for a, b in zip(taken[name][1:], base[1:], strict=True)]
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {name} | {spread} | {'' if calls is None else f'{calls:.2f}'} |")


def main() -> None:
    """Prints the tables and draws the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="run of `python train.py`")
    parser.add_argument("--unconditional", required=True, help="run of experiment=digits_unconditional")
    parser.add_argument("--classifier", required=True, help="run of experiment=digits_classifier")
    parser.add_argument("--num-seeds", type=int, default=3, help="sets of samples; 0 measures time alone")
    parser.add_argument("--rounds", type=int, default=7, help="of the measurement of time")
    parser.add_argument("--plot", type=Path, help="PNG to draw")
    options = parser.parse_args()
    judges = Judges()
    labelled, unconditional = inkdrop.load(options.run), inkdrop.load(options.unconditional)
    classifier: Any = loaded(options.classifier)
    moves = len(labelled.sampler.time_grid(labelled.denoiser.schedule)) - 1
    print(f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}: "
          f"{moves} steps, {options.num_seeds} seeds, n = {len(judges.label)}, floor {judges.floor:.3f}")  # fmt: skip

    def rows(pipeline: Pipeline, scales: tuple[float, ...], guide: Callable[[float], Guidance]) -> list[Row]:
        return [judges.row(pipeline, guide(scale), scale, options.num_seeds) for scale in scales]

    if options.num_seeds == 0:
        return costs(labelled, unconditional, classifier, options.rounds)
    ways = {
        "classifier": rows(unconditional, CLASSIFIER_SCALES, lambda scale: ClassifierGuidance(classifier, scale)),
        "classifier-free": rows(labelled, FREE_SCALES, ClassifierFree),
    }
    for name, found in ways.items():
        table(name, found, judges)
    if options.plot:
        plot(ways, options.plot)
    return costs(labelled, unconditional, classifier, options.rounds)


if __name__ == "__main__":
    main()
