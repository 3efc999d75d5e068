"""Whether samples are scenes with one object in another colour and everything else as it was."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from inkdrop.data.contents import SIDE, described
from inkdrop.data.loaders import Split
from inkdrop.files.texts import decoded
from inkdrop.metrics.extractors import Extractor
from inkdrop.metrics.metric import Extracted, Metric, Results
from inkdrop.metrics.paired import grouped
from inkdrop.metrics.scene_judge import Sight, look

_MOVED = 1.0  # pixels by which an object may move


@dataclass(frozen=True)
class SceneEdit(Metric):
    """How well samples of `data=scenes` follow an instruction: `edit_target`, `edit_others`, `edit_kept`.

    `edit_target` is the share of samples whose edited object has its new colour, and its shape and place as before, and
    in which there are as many colours as before. `edit_others` is the share, over scenes with two objects, in which the
    other object has its colour, shape and place as before. `edit_kept` is 1 minus the mean absolute change of the
    pixels that the edit leaves, with levels in [-1, 1]. A place is as before if the centre of mass moves by at most one
    pixel.

    - `before`, `caption`, `unchanged`: the fields of the pictures before the edit, of the captions after it, and of
      the masks of pixels that it leaves.
    - `style`: the style of the scenes.

    Raises `ValueError` if the data lack one of these fields.
    """

    before: str = "image"
    caption: str = "edited_caption"
    unchanged: str = "unchanged"
    style: Literal["bright", "pastel"] = "bright"

    needs: ClassVar[frozenset[str]] = frozenset({"items"})
    better: ClassVar[Literal["lower", "higher"]] = "higher"
    paired: ClassVar[bool] = True

    def check(self, held_out: Split, reference: Split, extractor: Extractor) -> None:
        super().check(held_out, reference, extractor)
        if (shape := list(held_out["x"].shape[1:])) != [3, SIDE, SIDE]:
            raise ValueError(f"edits of scenes are pictures of shape {[3, SIDE, SIDE]}, not {shape}: set metric")
        for option in ("before", "caption", "unchanged"):
            if (name := getattr(self, option)) not in held_out:
                raise ValueError(
                    f"{option}={name} of the edits of scenes is not a field of the data (available: "
                    f"{', '.join(held_out)}): add it to data.fields"
                )

    def __call__(self, samples: Extracted, reference: Extracted, held_out: Extracted, extractor: Extractor) -> Results:
        targets, others, changes = [], [], []
        for items, x, _ in grouped(samples, held_out, "edits of scenes"):
            fields = {name: held_out.items[name][items] for name in (self.before, self.caption, self.unchanged)}
            before, wanted = look(fields[self.before], self.style), described(decoded(fields[self.caption])).colours
            stays = (fields[self.unchanged] > 0).expand_as(fields[self.before])
            for each in x.unbind(1):
                after = look(each.round().clamp(0, 255), self.style)
                target, other = _followed(before, after, wanted)
                targets.append(target)
                others.append(other[wanted[:, 1] >= 0])
                change = (each - fields[self.before].double()).abs() / 127.5
                changes.append(torch.where(stays, change, 0.0).sum((1, 2, 3)) / stays.sum((1, 2, 3)))
        shares = {"target": torch.cat(targets), "others": torch.cat(others), "kept": 1 - torch.cat(changes)}
        return {f"edit_{name}": float(each.double().mean()) for name, each in shares.items() if len(each)}


def _followed(before: Sight, after: Sight, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Whether the edited object (N) is as it should be, and the other one (N); False where there is no other one.

    `wanted` (N, 2) are the colours after the edit, -1 in place of the second of a single object.
    """
    rows = torch.arange(len(wanted))
    goal = torch.zeros_like(before.present)
    for colours in wanted.unbind(1):
        goal[rows[colours >= 0], colours[colours >= 0]] = True
    new, old, same = (
        each.int().argmax(1) for each in (goal & ~before.present, before.present & ~goal, goal & before.present)
    )
    target = _alike(before, after, old, new) & (after.present.sum(1) == before.present.sum(1))
    return target, _alike(before, after, same, same) & (goal & before.present).any(1)


def _alike(before: Sight, after: Sight, old: Tensor, new: Tensor) -> Tensor:
    """Whether colour `new` (N) is after an edit what colour `old` (N) was before, but for the colour."""
    rows = torch.arange(len(old))
    moved = (after.centres[rows, new] - before.centres[rows, old]).norm(dim=1)
    return after.present[rows, new] & (after.shapes[rows, new] == before.shapes[rows, old]) & (moved <= _MOVED)
