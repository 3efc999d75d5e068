"""Quality of an MNIST run: `python benchmarks/mnist.py RUN` prints the table of docs/results.md.

EMA samples by the sampler of the run under the labels of the test digits:
- fd_mnist against the training digits, as a ratio to the floor that the test digits reach at equal n and labels;
- distance to the nearest training digit, as a ratio to that of the test digits (below 1: copies);
- classification accuracy score: a classifier fitted to the samples alone, tested on the test digits, beside the same
  classifier fitted to as many training digits. Source: Ravuri and Vinyals 2019, arXiv 1905.10887;
- bits per dimension of test digits: the variational bound over all steps, and the probability-flow ODE, beside a model
  of independent pixels, each with the histogram of its levels over the training digits.
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import platform
import time
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor

import inkdrop
from inkdrop.checkpoints import read_checkpoint
from inkdrop.configuration import build
from inkdrop.data import DataModule, collect
from inkdrop.data.loaders import Split
from inkdrop.likelihood import ODELikelihood, VariationalBound
from inkdrop.metrics import ClassificationAccuracyScore, Classifier, GaussianStatistics, Statistics, frechet_distance
from inkdrop.metrics.metric import Extracted
from inkdrop.metrics.neighbours import nearest
from inkdrop.pictures import Images, save_png
from inkdrop.pipeline import Pipeline
from inkdrop.randomness import Generators

BATCH = 250


def main() -> None:
    """Measures one run and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder of `python train.py experiment=mnist`")
    parser.add_argument("--num-samples", type=int, default=10_000, help="samples, at most as many as test digits")
    parser.add_argument("--num-items", type=int, default=250, help="test digits whose likelihood is measured")
    parser.add_argument("--fit-steps", type=int, default=2000, help="steps of each classifier's fit")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    start = time.monotonic()
    config = read_checkpoint(options.run)["config"]
    data: DataModule = build(config["data"])
    extractor: Classifier = build(config["evaluation"]["extractor"]).to(options.device)
    pipeline = inkdrop.load(options.run).to(options.device)
    moves = len(pipeline.sampler.time_grid(pipeline.denoiser.schedule)) - 1
    train, test = collect(data.splits["train"]), collect(data.splits["validation"])

    n = options.num_samples
    samples = draw(pipeline, test["label"][:n])
    save_png(
        Images().sheet(samples[test["label"][:100].argsort()], columns=10), options.run / "pictures" / "benchmark.png"
    )
    with torch.no_grad():
        reference = statistics(extractor, train["x"])
        floor = frechet_distance(statistics(extractor, test["x"][:n]), reference)
        distance = frechet_distance(statistics(extractor, samples), reference)
    ours, real_ones = (nearest(each[:1000].flatten(1), train["x"].flatten(1)) for each in (samples, test["x"]))
    copies = float(ours.mean() / real_ones.mean())
    real = {name: values[:n] for name, values in train.items()}
    score = accuracy({"x": samples, "label": test["label"][:n]}, extractor, options.fit_steps, test)
    real_score = accuracy(real, extractor, options.fit_steps, test)
    bits = likelihoods(pipeline, {name: values[: options.num_items] for name, values in test.items()})

    machine = (
        torch.cuda.get_device_name() if options.device == "cuda" else f"{platform.machine()}, {os.cpu_count()} cores"
    )
    print(f"{datetime.date.today()}, {machine}, torch {torch.__version__}", end="")
    print(f", {(time.monotonic() - start) / 60:.0f} minutes")
    print(f"| n = {n}, {type(pipeline.sampler).__name__} {moves} steps | samples | real |")
    print("|---|---|---|")
    print(f"| fd_mnist | {distance:.3f} | {floor:.3f} |")
    print(f"| fd_mnist / floor | {distance / floor:.2f} | 1 |")
    print(f"| nearest training digit / test digits' | {copies:.3f} | 1 |")
    print(f"| classification accuracy score, {options.fit_steps} steps | {score:.2%} | {real_score:.2%} |")
    print(f"| bits per dimension, {options.num_items} test digits | mean | standard error |")
    print("|---|---|---|")
    for name, values in bits.items():
        print(f"| {name} | {values.mean():.3f} | {values.std() / math.sqrt(len(values)):.3f} |")
    print(f"| independent pixels | {histogram_bits(train['x'], test['x'][: options.num_items]):.3f} | |")


def draw(pipeline: Pipeline, labels: Tensor) -> Tensor:
    """One sample for each label (N), seeds from 0 on."""
    parts = torch.arange(len(labels)).split(BATCH)
    return torch.cat([pipeline({"label": labels[p]}, p.tolist()).cpu() for p in track(parts, description="sampling")])


def statistics(extractor: Classifier, images: Tensor) -> Statistics:
    """Gaussian statistics of the features of images (N, C, H, W)."""
    metric = GaussianStatistics(extractor.dim)
    for part in images.split(1000):
        metric.update(extractor(part.to(extractor.device)).cpu())
    return metric.compute()


def accuracy(split: Split, extractor: Classifier, num_steps: int, test: Split) -> float:
    """Share of the test digits recognised by a classifier fitted to a split alone, from random weights."""
    fitted, held_out = Extracted(len(split["x"]), split), Extracted(len(test["x"]), test)
    return ClassificationAccuracyScore(num_steps, max_shift=2)(fitted, fitted, held_out, extractor)["cas"]


def likelihoods(pipeline: Pipeline, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Bits per dimension (N) by name."""
    generators = Generators.from_positions(0, range(len(batch["x"]))).at("likelihood")
    bound = VariationalBound()(pipeline, batch, generators)
    ode = ODELikelihood(rtol=1e-4, atol=1e-4)(pipeline, batch, generators)
    names = {"total": "variational bound", "prior": "its prior", "diffusion": "its steps", "decoder": "its decoder"}
    return {
        **{names[name]: bound[name].cpu() for name in names},
        "ODE, uniform dequantisation": ode["dequantized"].cpu(),
    }


def histogram_bits(train: Tensor, test: Tensor) -> float:
    """Bits per dimension of independent pixels, each level counted once more than it was seen."""
    pixels = train.flatten(1).long()
    counts = torch.ones(pixels.shape[1], 256, dtype=torch.float64)
    counts.scatter_add_(1, pixels.T.contiguous(), torch.ones(pixels.T.shape, dtype=torch.float64))
    log_share = (counts / counts.sum(1, keepdim=True)).log2()
    return -log_share.gather(1, test.flatten(1).T.contiguous().long()).mean().item()


if __name__ == "__main__":
    main()
