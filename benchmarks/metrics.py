"""What each metric sees and what it misses: `python benchmarks/metrics.py` prints the table of docs/measuring.md.

Sets of MNIST digits stand in for samples, one for each way in which a generator fails, measured as samples are:
- held out: test digits, what a perfect generator reaches;
- copies: training digits, each once;
- few: 100 training digits again and again;
- one class: training digits of one class alone;
- blurred: test digits behind a Gaussian blur of deviation 1 pixel;
- relabelled: test digits whose labels are those of others;
- trivial: each pixel on its own normal distribution;
- noise: uniform noise.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import time
from collections.abc import Mapping

import torch
from rich.progress import track
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from inkdrop.configuration import build
from inkdrop.configuration.compose import composed, resolved
from inkdrop.data import DataModule, collect
from inkdrop.metrics import Evaluation
from inkdrop.metrics.real import trivial_items

METRICS = (
    "metric=[frechet,kernel,inception_score,precision_recall,density_coverage,cmmd,sliced_wasserstein,nearest,"
    "accuracy_score]"
)


def main() -> None:
    """Measures all sets and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num-samples", type=int, default=2000, help="digits in a set")
    parser.add_argument("--fit-steps", type=int, default=500, help="steps of each classifier's fit")
    parser.add_argument(
        "--max-items", type=int, default=10_000, help="training digits that neighbours are sought among"
    )
    options = parser.parse_args()
    start = time.monotonic()
    overrides = ["experiment=mnist", METRICS, f"metric.accuracy_score.num_steps={options.fit_steps}"]
    overrides += [
        f"metric.{name}.max_items={options.max_items}" for name in ("precision_recall", "density_coverage", "cmmd")
    ]
    config = resolved(composed("train", overrides))
    data: DataModule = build(config["data"])
    evaluation: Evaluation = build({**config["evaluation"], "num_samples": options.num_samples})
    evaluation.check(data)
    values = {
        name: evaluation.values([images], data)
        for name, images in track(sets(data, evaluation, options.num_samples).items(), description="measuring")
    }
    print(f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}", end="")
    print(f", {(time.monotonic() - start) / 60:.0f} minutes\n")
    print(f"| n = {options.num_samples} | {' | '.join(values)} |\n|---|{'---|' * len(values)}")
    for metric in next(iter(values.values())):
        if not metric.endswith("_std"):
            print(f"| `{metric}` | {' | '.join(f'{each[metric]:.3g}' for each in values.values())} |")


def sets(data: DataModule, evaluation: Evaluation, count: int) -> Mapping[str, Tensor]:
    """Images (count, 1, 28, 28) by name, under the labels that samples would have."""
    train, test = collect(data.splits["train"]), collect(data.splits["validation"])
    labels = evaluation.conditions(data, count)["label"]
    held_out = test["x"][:count]
    copies = train["x"][matched(train["label"], labels)]
    generator = torch.Generator().manual_seed(0)
    return {
        "held out": held_out,
        "copies": copies,
        "few": copies[matched(labels[:100], labels)],
        "one class": train["x"][(train["label"] == 3).nonzero()[:count, 0]],
        "blurred": gaussian_blur(held_out, [7, 7], [1.0, 1.0]),
        "relabelled": held_out.roll(1, 0),
        "trivial": trivial_items(data, "train", {}, count, 256)["x"],
        "noise": torch.randint(0, 256, held_out.shape, dtype=torch.uint8, generator=generator),
    }


def matched(have: Tensor, want: Tensor) -> Tensor:
    """For each label wanted (N) the number of the next item that has it, from the first again after the last."""
    numbers = torch.empty_like(want)
    for label in want.unique():
        places, items = (want == label).nonzero()[:, 0], (have == label).nonzero()[:, 0]
        numbers[places] = items[torch.arange(len(places)) % len(items)]
    return numbers


if __name__ == "__main__":
    main()
