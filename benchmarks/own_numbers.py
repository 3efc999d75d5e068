"""Series and tables of one's own: `python benchmarks/own_numbers.py FOLDER [--only series|table] [--steps N]`.

It makes 400 series of 100 x 3 in float64, whose channels have unlike units, and a table of 1,500 rows and 8 columns
over seven orders of magnitude, and trains and samples each by the commands of docs/data.md. The table has, for each
channel or column, how far the mean of the samples is from that of the data, in deviations of the data, and the ratio of
the two deviations. A mean of n independent samples scatters by 1 / sqrt(n), and less within series.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parent.parent
COMMANDS = {"series": "experiment=series data.path=series.npz", "table": "experiment=table data.path=table.csv"}
CHANNELS = ("waves, unit 5 around 20", "noise that is correlated, unit 500", "random walk, unit 0.001")


def main() -> None:
    """Makes, trains, samples and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder for data, runs and samples; the same command continues there")
    parser.add_argument("--only", choices=COMMANDS, help="series or table alone")
    parser.add_argument("--steps", type=int, help="optimizer steps; those of the experiments unless it is given")
    parser.add_argument("--num-samples", type=int, default=1000)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    data = {"series": series(), "table": table()}
    np.savez(given.folder / "series.npz", x=data["series"])
    header = ",".join(f"column_{number}" for number in range(data["table"].shape[1]))
    np.savetxt(given.folder / "table.csv", data["table"], "%.9g", delimiter=",", header=header, comments="")
    print(f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    for kind, options in COMMANDS.items():
        if given.only in (None, kind):
            begin = time.monotonic()
            samples = sampled(given.folder, kind, options, given.steps, given.num_samples)
            report(kind, data[kind], samples, (time.monotonic() - begin) / 60)


def series(count: int = 400, length: int = 100) -> np.ndarray:
    """Returns series (count, length, 3), float64, whose channels have unlike units."""
    chance = np.random.RandomState(0)
    times = np.arange(length)[None] / length
    phase, periods = chance.uniform(0, 2 * np.pi, (count, 1)), chance.uniform(1, 4, (count, 1))
    waves = 20 + 5 * np.sin(2 * np.pi * periods * times + phase)
    noise = np.zeros((count, length))
    noise[:, 0] = chance.normal(size=count)
    for time_ in range(1, length):
        noise[:, time_] = 0.8 * noise[:, time_ - 1] + 0.6 * chance.normal(size=count)
    walk = chance.normal(size=(count, length)).cumsum(1) / np.sqrt(length)
    return np.stack([waves, 3000 + 500 * noise, 1e-3 * walk], 2)


def table(rows: int = 1500) -> np.ndarray:
    """Returns a table (rows, 8) with columns that depend on each other, over seven orders of magnitude."""
    chance = np.random.RandomState(0)
    common = chance.normal(size=(rows, 3))
    columns = common @ chance.normal(size=(3, 8)) + 0.5 * chance.normal(size=(rows, 8))
    columns[:, 3] = np.exp(0.5 * columns[:, 3])  # skewed
    columns[:, 5] = np.where(chance.uniform(size=rows) < 0.3, -2, 2) + 0.3 * columns[:, 5]  # two modes
    return columns * 10.0 ** np.arange(-3, 5) + 10.0 ** np.arange(4, -4, -1)


def sampled(folder: Path, kind: str, options: str, steps: int | None, count: int) -> np.ndarray:
    """Trains and samples by the commands of the documentation, and returns the samples, channels last."""
    train = ["train.py", *options.split(), f"output_dir={kind}", *([f"trainer.max_steps={steps}"] if steps else [])]
    run(folder, train)
    samples = folder / f"{kind}-{count}-samples"
    if not (samples / "samples.npz").exists():
        shutil.rmtree(samples, ignore_errors=True)
        run(folder, ["sample.py", f"checkpoint={kind}", f"num_samples={count}", f"output_dir={samples.name}"])
    with np.load(samples / "samples.npz") as file:
        return np.moveaxis(file["x"], 1, -1).astype(float)


def run(folder: Path, command: list[str]) -> None:
    """Runs a script of the repository in a folder, and shows its output only if it fails."""
    done = subprocess.run([sys.executable, ROOT / command[0], *command[1:]], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"python {' '.join(command)} ended with exit code {done.returncode}:\n{done.stderr}")


def report(kind: str, data: np.ndarray, samples: np.ndarray, minutes: float) -> None:
    """Prints the table of one kind."""
    print(f"\n`{COMMANDS[kind]}`, {len(samples)} samples, {minutes:.1f} minutes\n")
    print("| channel | mean of the data | mean of the samples | difference in deviations | ratio of deviations |")
    print("|---|---|---|---|---|")
    worst = 0.0
    for number in range(data.shape[-1]):
        real, drawn = data[..., number], samples[..., number]
        difference, ratio = (drawn.mean() - real.mean()) / real.std(), drawn.std() / real.std()
        worst = max(worst, abs(difference), abs(ratio - 1))
        name = CHANNELS[number] if kind == "series" else str(number)
        print(f"| {name} | {real.mean():.5g} | {drawn.mean():.5g} | {difference:+.3f} | {ratio:.3f} |")
    print(f"\nThe largest deviation is {worst:.1%}: {'within' if worst <= 0.1 else 'beyond'} 10%.")


if __name__ == "__main__":
    main()
