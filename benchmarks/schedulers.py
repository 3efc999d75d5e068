"""The same sweep by each launcher: `python benchmarks/schedulers.py FOLDER [--launchers processes slurm ray]`.

Eight trials of 60 steps on digits, two at a time: by processes of this machine, by submitit on its local executor, and
by a local Ray. The metrics of each trial are compared to the bit with those of the first launcher, and the exit code is
1 if some differ. Times are those of the whole sweep, with its checks and its report.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parent.parent
SWEEP = ["experiment=digits", "schedule=linear_beta,cosine", "prediction=noise,v", "seed=0,1", "trainer.max_steps=60"]
LAUNCHERS = {
    "processes": ["hydra/launcher=processes"],
    "slurm": ["hydra/launcher=slurm", "hydra.launcher.cluster=local"],
    "ray": ["hydra/launcher=ray", "hydra.launcher.num_cpus=1"],
}


def main() -> None:
    """Runs the sweeps and compares their metrics."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="new folder for the sweeps")
    parser.add_argument("--launchers", nargs="+", choices=LAUNCHERS, default=[*LAUNCHERS])
    given = parser.parse_args()
    given.folder.mkdir(parents=True)
    print(f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    print("| launcher | trials | steps | metrics | seconds |\n|---|---|---|---|---|")
    first: dict[str, Any] = {}
    equal = True
    for name in given.launchers:
        begin = time.monotonic()
        found = swept(given.folder / name, LAUNCHERS[name])
        seconds = time.monotonic() - begin
        first = first or found
        same = sum(found.get(trial) == result for trial, result in first.items())
        equal = equal and same == len(first) == len(found)
        steps = sum(count for count, _ in found.values())
        print(
            f"| {name} | {len(found)} | {steps} | {same} of {len(first)} equal to the bit | {seconds:.0f} |", flush=True
        )
    sys.exit(0 if equal else 1)


def swept(folder: Path, options: list[str]) -> dict[str, Any]:
    """Runs a sweep, and returns number of steps and metrics of each trial by its name."""
    command = [sys.executable, str(ROOT / "train.py"), "-m", *SWEEP, *options, "hydra.launcher.jobs=2"]
    done = subprocess.run([*command, f"output_dir={folder}"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(options)} ended with exit code {done.returncode}:\n{done.stdout}\n{done.stderr}")
    results = {file.parent.name: json.loads(file.read_text()) for file in folder.glob("*/result.json")}
    return {name: (result["steps"], result["metrics"]) for name, result in results.items()}


if __name__ == "__main__":
    main()
