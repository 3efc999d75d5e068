"""Quality of a digits run: `python benchmarks/digits.py RUN` prints the table of docs/results.md.

EMA samples by the sampler of the run, under the labels of the 350 held-out digits, for five sampling seeds:
- fd_digits against the training digits, as a ratio to the floor that the held-out digits reach at equal n and labels,
  with the floor's 95% bootstrap interval over held-out digits;
- distance to the nearest training digit, as a ratio to that of the held-out digits (below 1: copies);
- share recognised as their label by a support vector machine trained on the real training digits.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
from typing import Any

import numpy as np
import torch
from sklearn.svm import SVC
from torch import Tensor

import inkdrop
from inkdrop.data import Digits, collect
from inkdrop.metrics import Classifier, GaussianStatistics, frechet_distance
from inkdrop.metrics.moments import Statistics

EXTRACTOR: dict[str, Any] = {
    "name": "digits",
    "shape": [1, 8, 8],
    "num_classes": 10,
    "stages": [[32, 32], [64]],
    "dim": 64,
    "batch_norm": False,
    "weights": "digits.safetensors",
}
NUM_SEEDS, NUM_BOOTSTRAPS = 5, 1000


def statistics(features: Tensor) -> Statistics:
    """Gaussian statistics of features (N, D)."""
    metric = GaussianStatistics(features.shape[1])
    metric.update(features)
    return metric.compute()


def bootstrap(features: Tensor, labels: Tensor, reference: Statistics) -> tuple[float, float]:
    """95% bootstrap interval over items drawn within each label, so that the labels stay equal.

    Drawing with replacement adds a bias of its own; the interval is therefore centred on the distance itself.
    """
    generator = torch.Generator().manual_seed(0)
    classes = [features[labels == label] for label in labels.unique()]

    def redrawn() -> Tensor:
        return torch.cat([each[torch.randint(len(each), (len(each),), generator=generator)] for each in classes])

    drawn = [frechet_distance(statistics(redrawn()), reference) for _ in range(NUM_BOOTSTRAPS)]
    low, high = np.quantile(drawn, [0.025, 0.975]) - np.mean(drawn)
    value = frechet_distance(statistics(features), reference)
    return value + low, value + high


def nearest(images: Tensor, others: Tensor) -> float:
    """Mean Euclidean distance to the nearest of the others, in grey levels."""
    return torch.cdist(images.flatten(1).float(), others.flatten(1).float()).min(1).values.mean().item()


def main() -> None:
    """Measures one run and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="run folder or checkpoint of `python train.py`")
    run = parser.parse_args().run
    data, extractor, pipeline = Digits([1, 8, 8], 10, 128), Classifier(**EXTRACTOR), inkdrop.load(run)
    train, held_out = collect(data.splits["train"]), collect(data.splits["validation"])
    judge = SVC(C=10).fit(train["x"].flatten(1).numpy() / 255, train["label"].numpy())

    def recognised(images: Tensor) -> float:
        return float((judge.predict(images.flatten(1).numpy() / 255) == held_out["label"].numpy()).mean())

    with torch.no_grad():
        reference = statistics(extractor(train["x"]))
        floor = frechet_distance(statistics(extractor(held_out["x"])), reference)
        low, high = bootstrap(extractor(held_out["x"]), held_out["label"], reference)
        n = len(held_out["x"])
        samples = [pipeline({"label": held_out["label"]}, range(n * k, n * (k + 1))) for k in range(NUM_SEEDS)]
        distances = np.array([frechet_distance(statistics(extractor(each)), reference) for each in samples])
    copies = np.array([nearest(each, train["x"]) for each in samples]) / nearest(held_out["x"], train["x"])
    accuracy = np.array([recognised(each) for each in samples])

    moves = len(pipeline.sampler.time_grid(pipeline.denoiser.schedule)) - 1
    print(f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    sampler = f"{type(pipeline.sampler).__name__} {moves} steps"
    print(f"| {NUM_SEEDS} seeds, n = {n}, {sampler} | mean | each seed | real, held out |")
    print("|---|---|---|---|")
    print(row("fd_digits", distances, f"{floor:.3f} ({low:.3f} to {high:.3f})"))
    print(row("fd_digits / floor", distances / floor, "1"))
    print(row("nearest training digit / held out's", copies, "1"))
    print(row("recognised by the SVM", accuracy, f"{recognised(held_out['x']):.3f}"))


def row(name: str, values: np.ndarray, real: str) -> str:
    """One line of the table."""
    return f"| {name} | {values.mean():.3f} | {', '.join(f'{value:.3f}' for value in values)} | {real} |"


if __name__ == "__main__":
    main()
