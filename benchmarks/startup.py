"""What a command costs before it computes: `python benchmarks/startup.py` prints the table.

A run of no steps, and a run of `sample.py` that draws 16 points, take turns with a process that imports torch,
Lightning and Hydra and nothing else. The processor time of each process is counted, of one thread; the ratio is taken
round by round.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]
BARE = ["-c", "import torch, lightning.pytorch, hydra"]
TRAINING = ["train.py", "experiment=moons", "trainer.accelerator=cpu"]
FEW = ["trainer.max_steps=5", "callbacks.pictures=null", "callbacks.evaluate=null", "logger=none"]


def cost(command: list[str]) -> float:
    """Processor seconds of a Python process and its children; raises `RuntimeError` if it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-500:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Measures in turns and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as name:
        cost([*TRAINING, *FEW, f"output_dir={name}/run"])
        commands = {
            "import torch, lightning.pytorch, hydra": BARE,
            "train.py experiment=moons trainer.max_steps=0": [*TRAINING, "trainer.max_steps=0"],
            "sample.py, 16 points": ["sample.py", f"checkpoint={name}/run", "num_samples=16"],
        }
        seconds: dict[str, list[float]] = {label: [] for label in commands}
        for number in range(rounds):
            for label, command in commands.items():
                own = [] if command is BARE else [f"output_dir={name}/{len(command)}_{number}"]
                seconds[label].append(cost([*command, *own]))
    print(f"\n{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, ", end="")
    print(f"torch {version('torch')}, 1 thread, {rounds} rounds in turns")
    print("| command | processor seconds | / the imports: median | from, to |\n|---|---|---|---|")
    base, *_ = seconds.values()
    for label, values in seconds.items():
        ratios = [one / other for one, other in zip(values, base, strict=True)]
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        print(f"| `{label}` | {statistics.median(values):.1f} | {statistics.median(ratios):.2f} | {spread} |")


if __name__ == "__main__":
    main()
