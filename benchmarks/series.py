"""How well series are forecast: `python benchmarks/series.py FOLDER [PART ...]` prints a table for each part.

Parts: increments, levels, windows, law, imputation, thousands, rollout; without any, all of them. Runs are trained into
FOLDER once, by their experiments: about half an hour of CPU time in all with `SEEDS=3` in the environment, which trains
forecasts of exchange rates three times. The last column says whether a figure meets what its row asks for; the command
ends with code 1 if one does not.
"""

from __future__ import annotations

import json
import os
import re
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from task_table import FAILED, row, trained

import inkdrop
from inkdrop.data import ExchangeRate

SEEDS = range(int(os.environ.get("SEEDS", "1")))


def values(run: Path, metric: str) -> dict[str, float]:
    """The value of a metric of a run by what it is of: "" is of samples, and baselines have their names."""
    measured = json.loads((run / "result.json").read_text())["metrics"]
    found = {name: re.fullmatch(rf"{metric}_\d+k?(?:_baseline_(\w+))?", name) for name in measured}
    return {match[1] or "": measured[name] for name, match in found.items() if match}


def seconds(run: Path) -> float:
    """The seconds of a run by the clock, with its evaluation."""
    return float(json.loads((run / "result.json").read_text())["seconds"])


def of_forecasts(folder: Path, name: str, limit: float, *options: str) -> None:
    """Prints CRPS_sum of forecasts of exchange rates over all seeds, next to both baselines."""
    runs = [trained(folder, f"{name}_{seed}", *options, f"seed={seed}") for seed in SEEDS]
    found = [values(run, "crps_sum") for run in runs]
    each = [value[""] for value in found]
    shown = f"{statistics.mean(each):.4f} ({', '.join(f'{value:.4f}' for value in each)})"
    row(f"CRPS_sum of {name}, {len(each)} seeds", shown, f"<= {limit:.4f}", statistics.mean(each) <= limit)
    walk, still = found[0]["random_walk"], found[0]["persistence"]
    row("random walk of 250 days; persistence", f"{walk:.4f}; {still:.4f}")
    row("seconds of a run", f"{statistics.mean(map(seconds, runs)):.0f}")


def of_increments(folder: Path) -> None:
    """Forecasts of exchange rates by their increments, step by step."""
    of_forecasts(folder, "increments", 0.0060, "experiment=exchange_rate")


def of_levels(folder: Path) -> None:
    """Forecasts of exchange rates by their levels over the mean, step by step."""
    of_forecasts(folder, "levels", 0.0080, "experiment=exchange_rate", "codec=mean_scaled")


def of_windows(folder: Path) -> None:
    """Forecasts of exchange rates by an unconditional model of windows, by replacement and by guidance."""
    for name in ("joint", "guided"):
        run = trained(folder, name, f"experiment=exchange_rate_{name}")
        found = values(run, "crps_sum")
        row(f"CRPS_sum, {name}", f"{found['']:.4f}; persistence {found['persistence']:.4f}; {seconds(run):.0f} s")


def of_law(folder: Path) -> None:
    """Forecasts of a vector autoregression next to its law."""
    found = values(trained(folder, "law", "experiment=var1"), "crps")
    ratio = found[""] / found["known_law"]
    shown = f"{found['']:.4f}; law {found['known_law']:.4f}; random walk {found['random_walk']:.4f}; ratio {ratio:.3f}"
    row("CRPS", shown, "ratio <= 1.10", ratio <= 1.1)


def of_imputation(folder: Path) -> None:
    """Gaps of a vector autoregression, filled in by an unconditional model."""
    found = values(trained(folder, "imputation", "experiment=imputation"), "crps")
    shown = f"{found['']:.4f}; straight line {found['interpolation']:.4f}"
    row("CRPS of hidden steps", shown, "below that of the line", found[""] < found["interpolation"])


def of_thousands(folder: Path) -> None:
    """Forecasts of 2,000 series at once."""
    run = trained(folder, "thousands", "experiment=low_rank", "data.shape=[2000,24]")
    found = values(run, "crps_sum")
    shown = f"{found['']:.4f}; persistence {found['persistence']:.4f}; random walk {found['random_walk']:.4f}"
    row("CRPS_sum", shown, "below persistence", found[""] < found["persistence"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    row("peak memory of the process", f"{peak:.2f} GiB")
    pipeline = inkdrop.load(run)
    history = 10 + torch.randn(20, 2000, 48)
    start = time.monotonic()
    pipeline({"history": history}, range(20))
    row("seconds of a window of 20 samples", f"{time.monotonic() - start:.1f}")


def of_rollout(folder: Path) -> None:
    """Steps of a rollout, and a sample alone and in a batch."""
    run = trained(folder, "increments_0", "experiment=exchange_rate", "seed=0")
    pipeline = inkdrop.load(run)
    data = ExchangeRate([8, 30], 0, 64, 251, 5, 6071)
    history = data.splits["validation"]["history"][torch.tensor([0])]
    batch = {"history": history.expand(64, -1, -1)}
    x = pipeline(batch, range(64))
    alone = pipeline({"history": history}, [17])
    apart = float((alone[0] - x[17]).abs().max() / x.std())
    row("largest difference of a sample alone and in a batch, in deviations", f"{apart:.1e}", "<= 1e-3", apart <= 1e-3)


PARTS: dict[str, Callable[[Path], None]] = {
    name: globals()[f"of_{name}"]
    for name in ("increments", "levels", "windows", "law", "imputation", "thousands", "rollout")
}

if __name__ == "__main__":
    if len(sys.argv) < 2 or (unknown := set(sys.argv[2:]) - set(PARTS)):
        sys.exit(f"usage: python benchmarks/series.py FOLDER [PART ...] with parts {', '.join(PARTS)}")
    for name in sys.argv[2:] or PARTS:
        print(f"\n{PARTS[name].__doc__}\n\n| {name} | figure | asks for | met |\n|---|---|---|---|", flush=True)
        PARTS[name](Path(sys.argv[1]))
    sys.exit(1 if FAILED else 0)
