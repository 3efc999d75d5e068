"""How a training step grows: `python benchmarks/growth.py growth.png` prints the table and draws it.

Seconds of a bare step (forward, backward, AdamW), bytes kept for the backward pass, and operations of the digits'
network at 16 x 16, as the batch, the resolution or the width doubles. Each is that of the first number by turns.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from matplotlib.figure import Figure
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from inkdrop.networks import UNet

SIZES = {"batch": (4, 8, 16, 32), "resolution": (8, 16, 32, 64), "width": (32, 64, 128)}
FIRST = {"batch": 8, "resolution": 16, "width": 32}


class Step:
    """A training step of a network on random images."""

    def __init__(self, batch: int, resolution: int, width: int):
        torch.manual_seed(0)
        self.network = UNet([3, resolution, resolution], width, [1, 2], 1, [resolution // 2])
        self.network.to(memory_format=torch.channels_last)
        self.x = torch.randn(batch, 3, resolution, resolution).to(memory_format=torch.channels_last)
        self.t = torch.rand(batch) * 1000
        self.optimizer = torch.optim.AdamW(self.network.parameters(), fused=True)

    def __call__(self) -> None:
        self.optimizer.zero_grad()
        (self.network(self.x, self.t) - self.x).square().mean().backward()
        self.optimizer.step()

    def kept(self) -> int:
        """Bytes of distinct storages that the forward pass keeps, beyond the weights."""
        weights = {each.untyped_storage().data_ptr() for each in self.network.parameters()}
        found: dict[int, int] = {}

        def keep(value: torch.Tensor) -> torch.Tensor:
            found[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
            return value

        with saved_tensors_hooks(keep, lambda value: value):
            output = self.network(self.x, self.t)
        size = sum(count for place, count in found.items() if place not in weights)
        del output
        return size

    def operations(self) -> int:
        """Operations of a forward pass."""
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            self.network(self.x, self.t)
        return counter.get_total_flops()


def clocked(step: Callable[[], None]) -> float:
    """Processor time of one call."""
    start = time.process_time()
    step()
    return time.process_time() - start


def measured(name: str, rounds: int) -> list[dict[str, Any]]:
    """The figures along one size, whose steps take turns."""
    steps = {size: Step(**{**FIRST, name: size}) for size in SIZES[name]}
    seconds: dict[int, list[float]] = {size: [] for size in steps}
    for number in range(rounds + 1):
        for size, step in steps.items():
            taken = clocked(step)
            if number:
                seconds[size].append(taken)
    first = next(iter(steps))
    return [
        {
            "size": size,
            "seconds": statistics.median(seconds[size]),
            "ratio": statistics.median(a / b for a, b in zip(seconds[size], seconds[first], strict=True)),
            "kept": step.kept(),
            "operations": step.operations(),
        }
        for size, step in steps.items()
    ]


def main() -> None:
    """Measures, prints the table, and draws it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", help="PNG file")
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, ", end="")
    print(f"1 thread, {asked.rounds} rounds, batch {FIRST['batch']}, {FIRST['resolution']}^2, width {FIRST['width']}")
    print("| | | a step, ms | of the first | kept, MB | of the first | operations of the first |")
    print("|---|---|---|---|---|---|---|")
    figure = Figure(figsize=(10, 3), layout="constrained")
    for axes, name in zip(figure.subplots(1, 3), SIZES, strict=True):
        rows = measured(name, asked.rounds)
        for row in rows:
            kept, operations = (row[part] / rows[0][part] for part in ("kept", "operations"))
            print(f"| {name} | {row['size']} | {row['seconds'] * 1e3:.1f} | {row['ratio']:.2f} | ", end="")
            print(f"{row['kept'] / 1e6:.1f} | {kept:.2f} | {operations:.2f} |")
        sizes = [row["size"] for row in rows]
        for part, label in (("ratio", "time"), ("kept", "memory"), ("operations", "operations")):
            axes.loglog(sizes, [row[part] / rows[0][part] for row in rows], "o-", label=label)
        axes.set(xlabel=name, xticks=sizes, xticklabels=sizes, ylabel="relative to the smallest")
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(asked.picture, dpi=120)


if __name__ == "__main__":
    main()
