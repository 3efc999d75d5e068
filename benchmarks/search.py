"""What a search gains: `python benchmarks/search.py [--trials 20] [--seeds 0 1 2]`.

TPE with pruning against random values with as many optimizer steps in all, on the digits: both search the learning
rate, the width and the weight decay for the lowest loss on held-out digits. A pruned trial leaves its steps to further
trials. The table has the best value of both for each seed, and the paired difference.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from inkdrop.commands.report.statistics import summary

ROOT = Path(__file__).parent.parent
STEPS = 120
OBJECTIVE = "validation/loss"
MODEL = [
    "experiment=digits",
    "network.norm_groups=4",
    "network.num_blocks=1",
    f"trainer.max_steps={STEPS}",
    "trainer.val_check_interval=20",
    "callbacks.evaluate=null",
    "callbacks.pictures=null",
    "callbacks.loss_by_noise_level=null",
    "trainer.enable_progress_bar=false",
    "logger=none",
    f"objective={OBJECTIVE}",
]
SPACE = [
    "optimizer.lr=tag(log,interval(1e-5,1e-1))",
    "network.base_channels=choice(4,8,16)",
    "optimizer.weight_decay=tag(log,interval(1e-6,1.0))",
]


def searched(folder: Path, seed: int, trials: int, *options: str) -> list[dict[str, Any]]:
    """Runs a search, or continues it, and returns the trials of its record."""
    search = ["hydra/sweeper=optuna", f"hydra.sweeper.seed={seed}", f"hydra.sweeper.trials={trials}", *options]
    command = [sys.executable, str(ROOT / "train.py"), "-m", *MODEL, *SPACE, *search, f"output_dir={folder}"]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    record: list[dict[str, Any]] = json.loads((folder / "sweep.json").read_text())["trials"]
    return record


def with_steps(folder: Path, seed: int, steps: int, *options: str) -> list[dict[str, Any]]:
    """Returns the trials of a search that goes on until it has used this many optimizer steps."""
    trials = steps // STEPS
    record = searched(folder, seed, trials, *options)
    while (left := steps - sum(each["steps"] for each in record)) >= STEPS:
        trials += max(1, left // STEPS)
        record = searched(folder, seed, trials, *options)
    return record


def best(record: list[dict[str, Any]]) -> float:
    """Returns the lowest objective of the finished trials."""
    return min(each["objective"][0] for each in record if each["state"] == "finished")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, default=Path("runs/search_benchmark"))
    given = parser.parse_args()
    rows, differences = [], []
    for seed in given.seeds:
        budget = given.trials * STEPS
        random = with_steps(given.folder / f"random-{seed}", seed, budget, "hydra.sweeper.sampler=random")
        pruned = with_steps(given.folder / f"tpe-{seed}", seed, budget, "hydra.sweeper.pruner=median")
        differences.append(best(pruned) - best(random))
        counts = [sum(each["state"] == state for each in pruned) for state in ("finished", "pruned")]
        shown = f"{best(random):.4f} | {best(pruned):.4f} | {differences[-1]:+.4f}"
        steps = [sum(each["steps"] for each in record) for record in (random, pruned)]
        rows.append(f"| {seed} | {shown} | {len(random)} | {counts[0]} + {counts[1]} | {steps[0]} / {steps[1]} |")
    print(f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} CPU cores, torch {torch.__version__}\n")
    print("| seed | random | TPE, median pruner | difference | random trials | finished + pruned | steps |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    print("\n".join(rows))
    found = summary(differences)
    print(f"\nmean difference of {OBJECTIVE}: {found.mean:+.4f} ± {found.half or float('nan'):.4f} (95%, n={found.n})")


if __name__ == "__main__":
    main()
