"""Edits of scenes by text: `python benchmarks/editing.py --steps 4000 --folder runs/editing` prints one table.

It trains experiment=scenes (text to image) and experiment=scenes_edit (instructions) for so many steps, unless the
folder has these runs already, and edits held-out scenes, in each of which one object gets another colour:

- by prompt-to-prompt, beside sampling the new caption with the same seed; the source is the sample of the old caption;
- by instruction, with guidance=staged at several scales, beside one scale for both conditions; the source is a picture.

Columns, in percent, are over scenes whose source the judge reads as its caption (`sources`): `target` has the object in
its new colour and shape and no longer in the old colour; `other` has the other object, of scenes with two, in the same
colour and shape within a pixel of where it was. `change` is the mean absolute difference from the source, in units of
the range of levels, over pixels that the edit leaves: of pictures by the mask that comes with the scene, and of samples
those farther than 4.5 pixels from the centre of the object.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

import inkdrop
from inkdrop.constraints import PromptToPrompt, Refine
from inkdrop.data import Scenes
from inkdrop.data.contents import SIDE, Description, described
from inkdrop.files.texts import decoded
from inkdrop.guidance import ClassifierFree, Clip, Staged
from inkdrop.metrics.scene_judge import Sight, judge, look
from inkdrop.pipeline import Pipeline

FIELDS = ("caption", "edited_caption", "instruction", "unchanged", "edited")
REACH = 4.5  # pixels from the centre of an object, beyond which nothing of it is
APART = 1.0  # pixels by which an object may move
BATCH = 64


def made(experiment: str, steps: int, folder: Path) -> Pipeline:
    """The model of an experiment, trained unless its run is there."""
    if not (folder / "result.json").exists():
        options = ["logger=none", "~callbacks.pictures", "~callbacks.evaluate", f"trainer.max_steps={steps}"]
        inkdrop.train(f"experiment={experiment}", *options, f"output_dir={folder}")
    pipeline = inkdrop.load(folder)
    assert isinstance(pipeline, Pipeline)
    return pipeline


def drawn(pipeline: Pipeline, batch: dict[str, Tensor]) -> Tensor:
    """Samples of the seeds 0, 1, ..., one for each item of the batch."""
    parts = []
    for seeds in torch.arange(len(next(iter(batch.values())))).split(BATCH):
        parts.append(pipeline({name: value[seeds] for name, value in batch.items()}, seeds.tolist()).cpu())
    return torch.cat(parts)


def of(values: Tensor, index: Tensor) -> Tensor:
    """The entry (N) or (N, 2) of values (N, K, ...) at an index (N)."""
    return values[torch.arange(len(index)), index]


class Scoring:
    """The scores of edits of sources (N, 3, 16, 16), given what the captions say before and after."""

    def __init__(self, sources: Tensor, before: Description, after: Description, unchanged: Tensor | None):
        self.sources, self.after, self.sight = sources.float(), after, look(sources)
        self.which = (before.colours != after.colours).int().argmax(1)
        self.old, self.new = of(before.colours, self.which), of(after.colours, self.which)
        self.valid = judge(self.sight, before).all
        if unchanged is None:
            axis = torch.arange(SIDE) + 0.5
            x, y = of(self.sight.centres, self.old)[:, :, None, None].unbind(1)
            unchanged = ((axis - x).abs() > REACH) | ((axis[:, None] - y).abs() > REACH)
        self.left = unchanged.reshape(-1, 1, SIDE, SIDE).expand_as(self.sources)

    def row(self, name: str, edits: Tensor) -> str:
        """A line of the table."""
        sight = look(edits)
        shape = of(self.after.shapes, self.which)
        target = of(sight.present, self.new) & (of(sight.shapes, self.new) == shape) & ~of(sight.present, self.old)
        two = self.valid & (self.after.number == 2)
        change = torch.where(self.left, (edits.float() - self.sources).abs() / 255, 0.0)
        change = change.flatten(1).sum(1) / self.left.flatten(1).sum(1)
        numbers = [100 * share(self.valid), 100 * share(target[self.valid]), 100 * share(self._kept(sight)[two])]
        return f"| {name} | " + " | ".join(f"{each:.1f}" for each in numbers) + f" | {share(change[self.valid]):.3f} |"

    def _kept(self, sight: Sight) -> Tensor:
        other = 1 - self.which
        colour, shape = of(self.after.colours, other).clamp(min=0), of(self.after.shapes, other)
        moved = (of(sight.centres, colour) - of(self.sight.centres, colour)).norm(dim=1)
        return of(sight.present, colour) & (of(sight.shapes, colour) == shape) & (moved <= APART)


def share(values: Tensor) -> float:
    """The mean of values, nan of none."""
    return float(values.double().mean())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--items", type=int, default=256)
    parser.add_argument("--folder", type=Path, default=Path("runs/editing"))
    arguments = parser.parse_args()
    fields = {name: name for name in FIELDS}
    splits = Scenes({"x": "picture", **fields}, [3, SIDE, SIDE], 0, BATCH, num_held_out=arguments.items).splits
    items = {name: column[torch.arange(arguments.items)] for name, column in splits["validation"].items()}
    before, after = (described(decoded(items[name])) for name in ("caption", "edited_caption"))
    print("| edit | sources | target | other | change |\n|---|---|---|---|---|", flush=True)

    painter = made("scenes", arguments.steps, arguments.folder / "painter")
    sources = drawn(painter, {"caption": items["caption"]})
    scoring = Scoring(sources, before, after, None)
    print(scoring.row("the sample of the old caption", sources))
    print(scoring.row("sampling the new caption, same seed", drawn(painter, {"caption": items["edited_caption"]})))
    batch = {"caption": items["edited_caption"], "source": items["caption"]}
    for name, constraint in (
        ("prompt-to-prompt", PromptToPrompt()),
        ("prompt-to-prompt, cross_share=0.4, self_share=0.2", PromptToPrompt(0.4, 0.2)),
        ("prompt-to-prompt, cross_share=1, self_share=0.8", PromptToPrompt(1.0, 0.8)),
        ("prompt-to-prompt, Refine", PromptToPrompt(alignment=Refine())),
    ):
        painter.constraint = constraint
        print(scoring.row(name, drawn(painter, batch)), flush=True)

    editor = made("scenes_edit", arguments.steps, arguments.folder / "editor")
    scoring = Scoring(items["x"], before, after, items["unchanged"] > 0)
    print(scoring.row("the picture", items["x"]))
    print(scoring.row("the true edit", items["edited"]))
    batch = {"caption": items["instruction"], "image": items["x"]}
    for name, guide in (
        ("instruction, classifier_free 1", ClassifierFree(1.0)),
        ("instruction, classifier_free 3", ClassifierFree(3.0)),
        ("instruction, staged image 1.5, caption 3", Staged({"image": 1.5, "caption": 3.0})),
        ("instruction, staged image 1, caption 3", Staged({"image": 1.0, "caption": 3.0})),
        ("instruction, staged image 1.5, caption 1.5", Staged({"image": 1.5, "caption": 1.5})),
    ):
        editor.guidance = {"guide": guide, "clip": Clip()}
        print(scoring.row(name, drawn(editor, batch)), flush=True)


if __name__ == "__main__":
    main()
