"""How long a checkpoint holds training up: `python benchmarks/checkpoints.py FOLDER` prints the table.

The state is that of the published CIFAR-10 network (35.7 million weights) with Adam's two moments and two averages.
Rounds of a save and of one copy of the same tensors take turns; a save blocks until its copy is taken and then writes
in the background.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from inkdrop.checkpoints import CheckpointFolder
from inkdrop.checkpoints.content import num_bytes
from inkdrop.files.tensors import tensors

NUM_WEIGHTS, ROUNDS = 35_746_307, 7


def main() -> None:
    """Measures in turns and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the checkpoints are written; removed again")
    folder: Path = parser.parse_args().folder
    state = content()
    store = CheckpointFolder(folder / "checkpoints")
    seconds: dict[str, list[float]] = {"copy": [], "blocked": [], "written": []}
    try:
        for step in range(1, ROUNDS + 2):
            copied = timed(lambda: [value.clone() for _, value in tensors(state)])
            blocked = timed(lambda: store.save(state, step))  # noqa: B023 - called at once
            written = blocked + timed(store.wait)
            if step > 1:  # the first takes memory from the system
                for name, value in zip(seconds, (copied, blocked, written), strict=True):
                    seconds[name].append(value)
    finally:
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    ratios = [blocked / copied for blocked, copied in zip(seconds["blocked"], seconds["copy"], strict=True)]
    print(f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, ", end="")
    print(f"{num_bytes(state) / 1e6:.0f} MB, {ROUNDS} rounds")
    print("| | median | lowest | highest |\n|---|---|---|---|")
    for name, text in (("copy", "one copy in memory"), ("blocked", "training is held up"), ("written", "on the disk")):
        print(f"| {text}, s | {row(seconds[name])} |")
    print(f"| held up / copy | {row(ratios)} |")


def content() -> dict[str, Any]:
    """A state of this size in a few large tensors."""
    sizes = [NUM_WEIGHTS // 40] * 40
    weights = {str(number): torch.randn(size) for number, size in enumerate(sizes)}
    averages = {decay: {name: value.clone() for name, value in weights.items()} for decay in ("0.999", "0.9999")}
    moments = {i: {"exp_avg": torch.randn(size), "exp_avg_sq": torch.rand(size)} for i, size in enumerate(sizes)}
    return {"state_dict": weights, "ema": averages, "optimizer_states": [{"state": moments}], "config": {}}


def timed(action: Callable[[], Any]) -> float:
    """Seconds that an action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def row(values: list[float]) -> str:
    """Median, lowest and highest."""
    return f"{statistics.median(values):.2f} | {min(values):.2f} | {max(values):.2f}"


if __name__ == "__main__":
    main()
