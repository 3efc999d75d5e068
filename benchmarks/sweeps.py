"""What a sweep costs besides its trials: `python benchmarks/sweeps.py [--trials 200]`.

The trials are one step each, so that starting and ending them is all that they do. The memory and the CPU time of the
sweeping process are read once a second; the CPU time of a trial, with its check, is the difference between sweeps of
two and of six trials, forked and fresh in turns.
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
import time
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
MODEL = [
    "experiment=moons",
    "network.width=16",
    "network.num_blocks=1",
    "trainer.max_steps=1",
    "scheduler.num_steps=1",
    "callbacks.evaluate=null",
    "callbacks.pictures=null",
    "callbacks.loss_by_noise_level=null",
    "trainer.enable_progress_bar=false",
    "logger=none",
]
_TICKS = os.sysconf("SC_CLK_TCK")


def command(trials: int, folder: Path, *options: str) -> list[str]:
    """Returns the command of a sweep of this many seeds."""
    sweep = [f"seed=range(0,{trials})", f"output_dir={folder}", *options]
    return [sys.executable, str(ROOT / "train.py"), "-m", *MODEL, *sweep]


def watched(trials: int, folder: Path) -> tuple[float, list[tuple[float, float, int]]]:
    """Runs a sweep; returns its seconds, and once a second memory in MB, CPU seconds and number of ended trials."""
    start, seen = time.monotonic(), []
    with subprocess.Popen(command(trials, folder), stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            stat = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
            cpu, ended = (int(stat[11]) + int(stat[12])) / _TICKS, len(list(folder.glob("*/result.json")))
            seen.append((pages * os.sysconf("SC_PAGE_SIZE") / 2**20, cpu, ended))
            time.sleep(1)
    assert process.returncode == 0, f"the sweep ended with code {process.returncode}"
    assert len(list(folder.glob("*/result.json"))) == trials
    return time.monotonic() - start, seen


def cpu_of(trials: int, folder: Path, start: str) -> float:
    """Returns the CPU seconds of a sweep and of all its processes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command(trials, folder, f"hydra.launcher.start={start}"), stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        seconds, seen = watched(given.trials, Path(place) / "many")
        memory = [each for each, _, _ in seen]
        since_first = [each for each, _, ended in seen if ended]
        costs: dict[str, list[float]] = {"fork": [], "fresh": []}
        for number in range(given.rounds):
            for start in costs:
                two, six = (cpu_of(count, Path(place) / f"{start}{number}{count}", start) for count in (2, 6))
                costs[start].append((six - two) / 4)
    day, cores = datetime.date.today(), os.cpu_count()
    print(f"{day}, {platform.machine()}, {cores} CPU cores, torch {torch.__version__}\n")
    print("| what | value |\n| --- | --- |")
    print(f"| trials of one step | {given.trials} in {seconds:.0f} s |")
    print(f"| memory of the sweeping process, largest | {max(memory):.0f} MB |")
    print(f"| the same, growth from the end of the first trial | {max(since_first) - since_first[0]:.1f} MB |")
    print(f"| CPU of the sweeping process per trial | {seen[-1][1] / given.trials:.2f} s |")
    fork, fresh = (statistics.median(each) for each in costs.values())
    print(f"| CPU of a forked trial and its check, median of {given.rounds} | {fork:.2f} s |")
    print(f"| CPU of a fresh trial and its check | {fresh:.2f} s |")
    ratios = [one / other for one, other in zip(costs["fork"], costs["fresh"], strict=True)]
    span = f"{min(ratios):.2f} to {max(ratios):.2f}"
    print(f"| their ratio, median and range | {statistics.median(ratios):.2f} ({span}) |")


if __name__ == "__main__":
    main()
