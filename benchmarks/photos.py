"""Photos of one's own. `python benchmarks/photos.py make FOLDER` draws 200 landscapes of 96 x 64 pixels to train on,
and with --captions writes what they show to `metadata.jsonl`;
`python benchmarks/photos.py measure RUN` prints the table of docs/data.md and the path of a picture to look at.

Measured are, for each colour, the mean over all images and pixels, and the spread: the standard deviation over images
of their mean colours, which a model loses or blows up whose largest noise levels are wrong. n = 200 EMA samples by the
sampler of the run, beside the training images.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.progress import track
from torch import Tensor

import inkdrop
from inkdrop.checkpoints import read_checkpoint
from inkdrop.configuration import build
from inkdrop.data import collect
from inkdrop.pictures import Images, save_png

BATCH = 50
# Colours of the sky above, of the sky at the horizon and of the land, from noon to dusk.
SKIES = np.array([[70, 125, 205], [105, 150, 215], [95, 90, 150], [45, 45, 95]], float)
HORIZONS = np.array([[190, 215, 240], [215, 215, 205], [250, 165, 95], [190, 105, 105]], float)
LANDS = np.array([[75, 120, 55], [105, 110, 50], [85, 65, 50], [35, 40, 50]], float)
TIMES = ("at noon", "in the afternoon", "at sunset", "at dusk")
PLACES = ("on the left", "in the middle", "on the right")


def main() -> None:
    """Draws photos, or measures one run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    make = verbs.add_parser("make", help="draw landscapes")
    make.add_argument("folder", type=Path, help="folder to be made")
    make.add_argument("--num-images", type=int, default=200)
    make.add_argument("--size", type=int, nargs=2, default=(96, 64), metavar=("WIDTH", "HEIGHT"))
    make.add_argument("--captions", action="store_true", help="write metadata.jsonl with captions")
    make.set_defaults(run=lambda given: draw(given.folder, given.num_images, given.size, given.captions))
    measure = verbs.add_parser("measure", help="print the table of a run")
    measure.add_argument("run_folder", type=Path, help="run folder of `python train.py experiment=photos`")
    measure.add_argument("--num-samples", type=int, default=200)
    measure.set_defaults(run=lambda options: compare(options.run_folder, options.num_samples))
    options = parser.parse_args()
    options.run(options)


def draw(folder: Path, count: int, size: Sequence[int], captions: bool = False) -> None:
    """Writes so many landscapes as PNG; image i depends on i and the size alone."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for i in range(count):
        image, caption = landscape(np.random.RandomState(i), *size)
        Image.fromarray(image).save(folder / f"{i:04d}.png")
        lines.append(json.dumps({"file_name": f"{i:04d}.png", "text": caption}) + "\n")
    if captions:
        (folder / "metadata.jsonl").write_text("".join(lines))


def landscape(chance: np.random.RandomState, width: int, height: int) -> tuple[np.ndarray, str]:
    """A sky with a sun over hills that fade into the distance, and trees: uint8 (height, width, 3), and its caption."""
    hour = chance.uniform(0, 3)
    sky, horizon, land = (between(colours, hour) + chance.normal(0, 8, 3) for colours in (SKIES, HORIZONS, LANDS))
    x, y = np.meshgrid(np.arange(width) / height, np.arange(height) / height)
    line = chance.uniform(0.4, 0.65)  # of the horizon, from the top
    image = sky + (horizon - sky) * np.clip(y / line, 0, 1)[..., None] ** 1.5
    across = chance.uniform(0.1, width / height - 0.1)
    sun = np.hypot(x - across, y - line * (0.2 + 0.25 * hour))
    light = np.clip((0.07 - sun) * height, 0, 1) + 0.5 * np.exp(-sun / 0.12)
    image += (np.array([255, 240, 200]) - image) * np.clip(light, 0, 1)[..., None]
    for distance in (0.7, 0.35, 0.0):
        colour = land + (horizon - land) * distance
        ridge = np.full_like(x, line + 0.3 * (0.7 - distance))
        for wave in range(1, 5):
            ridge = ridge + 0.06 / wave * np.sin(wave * chance.uniform(1, 4) * x + chance.uniform(0, 2 * np.pi))
        cover = np.clip((y - ridge) * height, 0, 1)
        for _ in range(0 if distance else chance.randint(3, 9)):  # trees, on the nearest hill
            foot, size = chance.uniform(0, width / height), chance.uniform(0.12, 0.3)
            base = ridge[0, min(int(foot * height), width - 1)] + 0.03
            inside = (size - (base - y)) * 0.3 - np.abs(x - foot)
            cover = np.maximum(cover, np.clip(inside * height, 0, 1) * (y < base))
        shade = 1 - 0.25 * np.clip(y - ridge, 0, 1)[..., None] if distance else 0.8
        image += (colour * shade - image) * cover[..., None]
    caption = f"hills {TIMES[round(hour)]}, the sun {PLACES[int(3 * across * height / width)]}"
    return np.clip(image + chance.normal(0, 2, image.shape), 0, 255).astype(np.uint8), caption


def between(colours: np.ndarray, hour: float) -> np.ndarray:
    """The colour at an hour from 0 to 3, between those at whole hours."""
    return np.array([np.interp(hour, range(len(colours)), channel) for channel in colours.T])


def compare(run: Path, count: int) -> None:
    """Prints the table of one run."""
    start = time.monotonic()
    pipeline = inkdrop.load(run)
    train = collect(build(read_checkpoint(run)["config"]["data"]).splits["train"])["x"]
    parts = torch.arange(count).split(BATCH)
    samples = torch.cat([pipeline(pipeline.request(p.tolist()), p.tolist()) for p in track(parts, "sampling")])
    save_png(Images().sheet(torch.cat([samples[:40], train[:40]]), columns=10), run / "pictures" / "benchmark.png")
    print(f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}", end="")
    print(f", {(time.monotonic() - start) / 60:.1f} minutes: {run / 'pictures' / 'benchmark.png'}")
    print(f"| n = {count} | mean colour: red, green, blue | spread of mean colours |")
    print("|---|---|---|")
    for name, images in (("samples", samples), (f"{len(train)} training images", train)):
        means = images.double().mean((2, 3))
        print(f"| {name} | {colours(means.mean(0))} | {colours(means.std(0))} |")


def colours(values: Tensor) -> str:
    """Numbers with one decimal."""
    return ", ".join(f"{value:.1f}" for value in values.tolist())


if __name__ == "__main__":
    main()
