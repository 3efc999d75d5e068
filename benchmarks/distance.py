"""Speed and agreement of the Fréchet distance: `python benchmarks/distance.py` prints the tables.

From given features of the size of Inception's, inkdrop, torchmetrics, torch-fidelity and scipy take the statistics of
two sets and then the distance between them, in turns, by processor time; scipy's matrix root takes minutes and has
rounds of its own. `DIM=1024 python benchmarks/distance.py` is for features of another size.
Peak memory is that of a process of its own which is given features in batches and forgets them, beyond what it needed
before the first batch.
"""

from __future__ import annotations

import argparse
import datetime
import multiprocessing
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from scipy import linalg
from torch import Tensor, nn
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torchmetrics.image.fid import FrechetInceptionDistance, _compute_fid

from inkdrop.metrics import GaussianStatistics, Statistics, frechet_distance

DIM, BATCH = int(os.environ.get("DIM", "2048")), 250
Peer = tuple[Callable[[Tensor], Any], Callable[[Any, Any], float]]  # statistics of features, and distance of two


def main() -> None:
    """Measures in turns and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scipy-rounds", type=int, default=1, help="rounds in which scipy takes part")
    parser.add_argument("--num-samples", type=int, default=10_000)
    options = parser.parse_args()
    first, second = clouds(options.num_samples)
    peers: dict[str, Peer] = {
        "inkdrop": (ours, frechet_distance),
        "torchmetrics": (torchmetrics_statistics, lambda a, b: float(_compute_fid(*a, *b))),
        "torch-fidelity": (fid_features_to_statistics, torch_fidelity_distance),
        "scipy sqrtm": (numpy_statistics, scipy_distance),
    }
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in peers}
    values: dict[str, float] = {}
    for number in range(options.rounds):
        for name, (statistics, distance) in peers.items():
            if name != "scipy sqrtm" or number < options.scipy_rounds:
                values[name], *spent = measured(statistics, distance, first, second)
                seconds[name].append((spent[0], spent[1]))
    scale = float(first.var(0).sum() + second.var(0).sum())
    print(f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, ", end="")
    print(f"{torch.get_num_threads()} threads, n = {options.num_samples}, D = {DIM}, {options.rounds} rounds")
    print("| | statistics of two sets, s | distance, s | lowest | highest | distance | off by, of the scale |")
    print("|---|---|---|---|---|---|---|")
    for name in values:
        statistics_seconds, distance_seconds = zip(*seconds[name], strict=True)
        print(f"| {name} | {median(statistics_seconds):.2f} | {median(distance_seconds):.2f} | ", end="")
        print(f"{min(distance_seconds):.2f} | {max(distance_seconds):.2f} | {values[name]:.6f} | ", end="")
        print(f"{abs(values[name] - values['inkdrop']) / scale:.1e} |")
    print(f"| inkdrop / best peer | {ratio(seconds, 0)} | {ratio(seconds, 1)} | | | | |")
    print("| peak memory of a stream, MB | n = 10,000 | n = 40,000 |\n|---|---|---|")
    print(f"| inkdrop | {streamed(10_000)} | {streamed(40_000)} |")


def clouds(count: int) -> tuple[Tensor, Tensor]:
    """Features (n, D) as networks make them: correlated, not negative, far from zero mean."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(DIM, DIM, generator=generator) / DIM**0.5
    normal = [torch.randn(count, DIM, generator=generator) for _ in range(2)]
    return (normal[0] @ mixing).relu() + 0.3, (1.1 * normal[1] @ mixing).relu() + 0.3


def measured(
    statistics: Callable[[Tensor], Any], distance: Callable[[Any, Any], float], first: Tensor, second: Tensor
) -> tuple[float, float, float]:
    """The distance, and the seconds of processor time of its two parts."""
    start = time.process_time()
    a, b = statistics(first), statistics(second)
    between = time.process_time()
    value = distance(a, b)
    return value, between - start, time.process_time() - between


def ratio(seconds: dict[str, list[tuple[float, float]]], part: int) -> str:
    """Median over rounds of our seconds by those of the fastest peer of the round."""
    own, *others = seconds.values()
    rounds = range(len(own))
    return f"{median(own[i][part] / min(each[i][part] for each in others if i < len(each)) for i in rounds):.2f}"


def ours(features: Tensor) -> Statistics:
    """Mean and covariance, summed in batches."""
    statistics = GaussianStatistics(DIM)
    for part in features.split(BATCH):
        statistics.update(part)
    return statistics.compute()


class Given(nn.Module):
    """An extractor of features that are there already."""

    num_features = DIM

    def forward(self, features: Tensor) -> Tensor:
        return features


def torchmetrics_statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance as torchmetrics sums them and, in `compute`, takes them."""
    metric = FrechetInceptionDistance(feature=Given())
    metric.used_custom_model = True
    for part in features.split(BATCH):
        metric.update(part, real=True)
    n = metric.real_features_num_samples
    mean = (metric.real_features_sum / n).unsqueeze(0)
    return mean.squeeze(0), (metric.real_features_cov_sum - n * mean.T @ mean) / (n - 1)


def torch_fidelity_distance(first: Any, second: Any) -> float:
    """By the eigenvalues of the product."""
    return fid_statistics_to_metric(first, second, verbose=False)["frechet_inception_distance"]


def numpy_statistics(features: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of all features at once, in float64."""
    return features.double().mean(0).numpy(), np.cov(features.double().numpy(), rowvar=False)


def scipy_distance(first: Any, second: Any) -> float:
    """By the root of the product of the covariances."""
    root = linalg.sqrtm(first[1] @ second[1]).real
    return float(np.square(first[0] - second[0]).sum() + np.trace(first[1] + second[1] - 2 * root))


def streamed(count: int) -> str:
    """Megabytes, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return f"{pool.apply(peak, (count,)):.0f}"


def peak(count: int) -> float:
    """Megabytes that the statistics of so many features and the distance to themselves take at most."""
    before = resident()
    statistics = GaussianStatistics(DIM)
    for number in range(count // BATCH):
        statistics.update(torch.rand(BATCH, DIM, generator=torch.Generator().manual_seed(number)))
    frechet_distance(statistics.compute(), statistics.compute())
    return (resident() - before) / 1e3


def resident() -> int:
    """Kilobytes that this process has held at most; `getrusage` would count what it was started from."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


if __name__ == "__main__":
    main()
