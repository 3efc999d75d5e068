"""The judge of scenes on 2,000 scenes of each kind: `python benchmarks/scenes.py` prints the table of docs/data.md.

`python benchmarks/scenes.py docs/scenes.png` draws scenes of the three splits with their captions, and their fields.

Each row of the table is a set of pictures, with the shares that the judge finds right: real scenes, the same through
noise of some grey levels, under the captions of other scenes, and through 8 x 8 pixels and bilinear interpolation. The
last line has the seconds for drawing and for judging 2,000 scenes.
"""

from __future__ import annotations

import sys
import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from inkdrop.data import Scenes, drawing
from inkdrop.data.contents import RELATIONS, Contents, contents
from inkdrop.files.texts import decoded
from inkdrop.metrics.scene_judge import judge, look

COUNT = 2000
SHARES = ("number", "colours", "binding", "all")


def row(name: str, x: Tensor, scenes: Contents, style: str) -> str:
    """A line of the table."""
    verdict = judge(look(x, style), scenes)
    values = [float(getattr(verdict, each).double().mean()) for each in SHARES]
    values.append(float(verdict.relation[scenes.relation >= 0].double().mean()))
    return f"| {name} | " + " | ".join(f"{100 * value:.2f}" for value in values) + " |"


FIELDS = ("picture", "mask", "outline", "small", "textured", "annotated", "edited", "unchanged", "other_style")


def draw(file: str) -> None:
    """Draws nine scenes of each split, and the fields of one."""
    names = {name: name for name in (*FIELDS, "caption", "instruction")}
    splits = Scenes({"x": "picture", **names}, [3, 16, 16], 0, 16, num_scenes=100).splits
    figure, axes = plt.subplots(4, len(FIELDS), figsize=(13, 6.4), layout="constrained")
    columns = [slice(0, 3), slice(3, 6), slice(6, 9)]
    items = torch.arange(3)
    for axis in axes.flat:
        axis.axis("off")
    for part, split in zip(columns, ("train", "validation", "unseen"), strict=True):
        for row in range(3):
            chosen = 3 * row + items
            captions = decoded(splits[split]["caption"][chosen])
            for axis, x, caption in zip(axes[row, part], splits[split]["x"][chosen], captions, strict=True):
                axis.imshow(x.permute(1, 2, 0).numpy())
                axis.set_title(_lines(caption, split if row == 0 else ""), fontsize=7)
    item = torch.tensor([4])
    for axis, name in zip(axes[3], FIELDS, strict=True):
        x = splits["train"][name][item][0]
        axis.imshow(np.asarray(x.expand(3, -1, -1).permute(1, 2, 0)))
        words = decoded(splits["train"]["instruction"][item])[0] if name == "edited" else ""
        axis.set_title(_lines(words, name), fontsize=7)
    figure.savefig(file, dpi=100)


def _lines(caption: str, title: str) -> str:
    for relation in RELATIONS:
        caption = caption.replace(f" {relation} ", f"\n{relation} ")
    return f"{title}\n{caption}"


def main() -> None:
    if len(sys.argv) > 1:
        draw(sys.argv[1])
        return
    print("| pictures, % right | number | colours | binding | all | relation |\n|---|---|---|---|---|---|")
    generator = torch.Generator().manual_seed(0)
    for style in drawing.STYLES:
        for unseen in (False, True):
            kind = f"{style}, {'unseen' if unseen else 'seen'} pairs"
            started = time.perf_counter()
            scenes = contents(77, COUNT, unseen)
            x = drawing.pictures(scenes, drawing.covered(scenes), drawing.STYLES[style])
            drawn = time.perf_counter() - started
            print(row(kind, x, scenes, style))
            for levels in (5, 10, 20, 30):
                noise = levels * torch.randn(x.shape, generator=generator)
                print(row(f"noise of {levels} levels", (x + noise).round().clamp(0, 255), scenes, style))
            print(row("other captions", x[torch.randperm(COUNT, generator=generator)], scenes, style))
            small = torch.nn.functional.avg_pool2d(x.float(), 2)
            large = torch.nn.functional.interpolate(small, scale_factor=2, mode="bilinear")
            print(row("8 x 8, bilinear", large, scenes, style))
    started = time.perf_counter()
    look(x, style)
    print(f"\ndrawing {COUNT} scenes: {drawn:.2f} s; judging: {time.perf_counter() - started:.2f} s")


if __name__ == "__main__":
    main()
