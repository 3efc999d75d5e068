"""Whether samples show their captions: `python benchmarks/text_to_image.py RUN` prints a table.

It is that of docs/text_to_image.md. RUN is of experiment=text_to_image on the landscapes that
`python benchmarks/photos.py make FOLDER --captions` draws. What a picture shows is read from its pixels without a
network: the time of day is that of the training pictures whose mean colours in four bands are nearest, each in its
deviations, and the sun is in the third of the column whose upper half is brightest. The captions are those of the
held-out pictures; the controls have the captions of other pictures.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
from pathlib import Path

import torch
from photos import PLACES, TIMES
from rich.progress import track
from torch import Tensor

import inkdrop
from inkdrop.checkpoints import read_checkpoint
from inkdrop.configuration import build
from inkdrop.data import collect
from inkdrop.files.texts import decoded

BATCH, BANDS = 60, 4


def main() -> None:
    """Prints the table of a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_folder", type=Path, help="run folder")
    parser.add_argument("--num-samples", type=int, default=240)
    options = parser.parse_args()
    pipeline = inkdrop.load(options.run_folder)
    splits = build(read_checkpoint(options.run_folder)["config"]["data"]).splits
    train, held_out = collect(splits["train"]), collect(splits["validation"])
    judge = Judge(train["x"], named(train["caption"], TIMES))
    items = torch.arange(options.num_samples) % len(held_out["x"])
    wanted = held_out["caption"][items]
    samples = torch.cat(
        [pipeline({"caption": wanted[part]}, part.tolist()) for part in track(torch.arange(len(items)).split(BATCH))]
    )
    print(f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    print("| pictures, % right | time of day | place of the sun | both |\n|---|---|---|---|")
    for name, images, captions in (
        (f"{len(held_out['x'])} held-out pictures", held_out["x"], held_out["caption"]),
        (f"{len(samples)} samples", samples, wanted),
        ("the same samples with captions of others", samples, wanted.roll(len(samples) // 2 + 1, 0)),
    ):
        time, place = judge(images)
        right = torch.stack([time == named(captions, TIMES), place == named(captions, PLACES)])
        print(f"| {name} | {' | '.join(f'{100 * each.double().mean():.1f}' for each in (*right, right.all(0)))} |")


class Judge:
    """Reads the time of day and the place of the sun from landscapes."""

    def __init__(self, images: Tensor, times: Tensor):
        features = bands(images)
        self.scale = features.std(0)
        self.centres = torch.stack([features[times == number].mean(0) for number in range(len(TIMES))])

    def __call__(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the numbers (N) of the time and of the place that images (N, C, H, W) show."""
        distances = torch.cdist(bands(images) / self.scale, self.centres / self.scale)
        upper = images[:, :, : images.shape[2] // 2].double().mean(1)
        brightest = upper.amax(1).argmax(1)
        return distances.argmin(1), (3 * brightest) // images.shape[3]


def bands(images: Tensor) -> Tensor:
    """Mean colours (N, 3 x bands) of horizontal bands."""
    return torch.stack([each.mean((2, 3)) for each in images.double().tensor_split(BANDS, 2)], 2).flatten(1)


def named(captions: Tensor, names: tuple[str, ...]) -> Tensor:
    """The number (N) of the name that each caption has."""
    return torch.tensor([next(i for i, name in enumerate(names) if name in text) for text in decoded(captions)])


if __name__ == "__main__":
    main()
