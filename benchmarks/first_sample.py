"""How long `sample.py` takes from its start to its first sample: `python benchmarks/first_sample.py FOLDER`.

The checkpoint is that of the published CIFAR-10 network (35.7 million weights) with two averages and both moments of
Adam, 715 MB. `--against TREE` takes turns with the `sample.py` of another checkout of the repository. The sampler makes
one step of one sample, so that nearly all of the time is the preparation.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import inkdrop

ROOT = Path(__file__).parent.parent
MODEL = [
    "experiment=digits_unconditional",
    "network=ddpm_cifar10",
    "data=image_folder",
    "data.shape=[3,32,32]",
    "callbacks.evaluate=null",
    "callbacks.pictures=null",
    "callbacks.ema.decays=[0.999,0.9999]",
    "logger=none",
    "trainer.max_steps=1",
    "data.batch_size=2",
    "trainer.enable_progress_bar=false",
]


def main() -> None:
    """Measures in turns and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the checkpoint is written, or lies from the last time")
    parser.add_argument("--against", type=Path, metavar="TREE", help="another checkout, whose sample.py takes turns")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    run = arguments.folder.absolute() / "run"
    if not (run / "result.json").exists():
        train(run)
    size = sum(file.stat().st_size for file in (run / "checkpoints").glob("*.ckpt"))
    trees = {"this": ROOT, **({"the other": arguments.against.absolute()} if arguments.against else {})}
    seconds: dict[str, list[float]] = {name: [] for name in trees}
    for _ in range(arguments.rounds):
        for name, tree in trees.items():
            seconds[name].append(first_sample(tree, run))
    print(f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, ", end="")
    print(f"{size / 1e6:.0f} MB, {arguments.rounds} rounds")
    print("| sample.py of | median, s | lowest | highest |\n|---|---|---|---|")
    for name, values in seconds.items():
        print(f"| {name} tree | {statistics.median(values):.1f} | {min(values):.1f} | {max(values):.1f} |")


def train(run: Path) -> None:
    """A run of one step, on images that it makes."""
    with tempfile.TemporaryDirectory() as folder:
        from PIL import Image

        for number in range(8):
            Image.effect_noise((32, 32), 90).convert("RGB").save(Path(folder) / f"{number}.png")
        inkdrop.train(*MODEL, f"data.path={folder}", "data.held_out=0.5", f"output_dir={run}")


def first_sample(tree: Path, run: Path) -> float:
    """Seconds of one sample in one step, by the sample.py of a checkout."""
    with tempfile.TemporaryDirectory() as folder:
        options = [f"checkpoint={run}", "num_samples=1", "time_grid.num_steps=1", f"output_dir={folder}/samples"]
        environment = {**os.environ, "PYTHONPATH": str(tree / "src")}
        command: list[Any] = [sys.executable, tree / "sample.py", *options]
        start = time.perf_counter()
        subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True)
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
