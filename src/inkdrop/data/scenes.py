"""Scenes of one or two coloured shapes with captions, drawn from seeds, whose contents are known exactly."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from inkdrop.data import drawing
from inkdrop.data.contents import COLOURS, SEEN_PAIRS, SHAPES, SIDE, contents, edits, instructions
from inkdrop.data.drawing import STYLES
from inkdrop.data.loaders import Derive, Split
from inkdrop.data.module import DataModule
from inkdrop.files.texts import encoded
from inkdrop.randomness import Generators

_SEEDS = {"train": 1, "validation": 2, "unseen": 3}
_LONGEST = max((f"a {colour} {shape} right of " for colour in COLOURS for shape in SHAPES), key=len) * 2


class _Drawn:
    """The fields of the scenes of a split, each computed when it is asked for."""

    def __init__(self, split: str, count: int, style: str):
        self.seed, self.style = _SEEDS[split], STYLES[style]
        self.other = next(each for name, each in STYLES.items() if name != style)
        self.scenes = contents(self.seed, count, split == "unseen")
        self._pairs = torch.ones_like(SEEN_PAIRS) if split == "unseen" else SEEN_PAIRS
        self._generators = Generators.from_positions(self.seed, range(count))

    @cached_property
    def shares(self) -> Tensor:
        return drawing.covered(self.scenes)

    @cached_property
    def edit(self) -> tuple[Tensor, Tensor]:
        return edits(self.seed, self.scenes, self._pairs)

    def picture(self) -> Tensor:
        return drawing.pictures(self.scenes, self.shares, self.style)

    def other_style(self) -> Tensor:
        return drawing.pictures(self.scenes, self.shares, self.other)

    def edited(self) -> Tensor:
        return drawing.pictures(self.scenes.recoloured(*self.edit), self.shares, self.style)

    def unchanged(self) -> Tensor:
        share = self.shares.gather(1, self.edit[0][:, None, None, None].expand(-1, 1, SIDE, SIDE))
        return (share == 0).to(torch.uint8) * 255

    def small(self) -> Tensor:
        return nn.functional.avg_pool2d(self.picture().float(), 2).round().to(torch.uint8)

    def tiny(self) -> Tensor:
        return nn.functional.avg_pool2d(self.picture().float(), 4).round().to(torch.uint8)

    def mask(self) -> Tensor:
        return drawing.mask(self.shares)

    def outline(self) -> Tensor:
        return drawing.outline(self.shares)

    def textured(self) -> Tensor:
        return drawing.textured(self.shares, self._generators.at("texture"))

    def annotators(self) -> Tensor:
        return torch.cat([self.mask(), drawing.wider(self.mask())], 1)

    def annotated(self) -> Tensor:
        second = self._generators.at("annotator").uniform() < 0.5
        return self.annotators().gather(1, second.long()[:, None, None, None].expand(-1, 1, SIDE, SIDE))

    def caption(self) -> Tensor:
        return _texts(self.scenes.captions())

    def edited_caption(self) -> Tensor:
        return _texts(self.scenes.recoloured(*self.edit).captions())

    def instruction(self) -> Tensor:
        return _texts(instructions(self.scenes, *self.edit))


def _texts(texts: list[str]) -> Tensor:
    """Texts (N, L), of which L is the same for all splits."""
    return encoded([*texts, _LONGEST.removesuffix(" right of ")])[:-1]


_FIELDS: dict[str, tuple[Callable[[_Drawn], Tensor], list[int] | None]] = {
    "picture": (_Drawn.picture, [3, SIDE, SIDE]),
    "caption": (_Drawn.caption, None),
    "mask": (_Drawn.mask, [1, SIDE, SIDE]),
    "outline": (_Drawn.outline, [1, SIDE, SIDE]),
    "small": (_Drawn.small, [3, SIDE // 2, SIDE // 2]),
    "tiny": (_Drawn.tiny, [3, SIDE // 4, SIDE // 4]),
    "textured": (_Drawn.textured, [1, SIDE, SIDE]),
    "annotators": (_Drawn.annotators, [2, SIDE, SIDE]),
    "annotated": (_Drawn.annotated, [1, SIDE, SIDE]),
    "edited": (_Drawn.edited, [3, SIDE, SIDE]),
    "edited_caption": (_Drawn.edited_caption, None),
    "instruction": (_Drawn.instruction, None),
    "unchanged": (_Drawn.unchanged, [1, SIDE, SIDE]),
    "other_style": (_Drawn.other_style, [3, SIDE, SIDE]),
}


class Scenes(DataModule):
    """Scenes of 16 x 16 pixels with one or two objects, from seeds: red circles left of blue squares, and captions.

    Six colours and four shapes make 24 pairs, of which four are in no item of `train` and `validation` and in each item
    of `unseen`: red triangle, blue cross, green circle, yellow square. Arguments beyond those of `DataModule`:

    - `shape`: null is that of x.
    - `fields`: what each field of the data is, {"x": "picture", "caption": "caption"}; nothing else is drawn.
    - `num_scenes`, `num_held_out`: number of scenes in `train`, and in each of the other splits.
    - `style`: `bright` or `pastel`, the same scenes with other levels of ground and colours.

    What a field may be, uint8, where masks are 0 and 255: `picture` (3, 16, 16); `caption`; `mask` (1, 16, 16) of all
    objects; `outline` of each object (1, 16, 16); `small` (3, 8, 8) and `tiny` (3, 4, 4), means of 2 x 2 and of 4 x 4
    pixels; `textured` (1, 16, 16), the objects as noise in other noise; `annotators` (2, 16, 16), the mask and one that
    is wider by a pixel; `annotated`, one of these two; `edited` (3, 16, 16), the scene with one object in another
    colour, its `edited_caption`, the `instruction` for it, and the mask `unchanged` of the pixels that it leaves;
    `other_style` (3, 16, 16), the picture in the other style.

    Raises `ValueError` for other fields, and for a shape that is not that of x.
    """

    def __init__(
        self,
        fields: dict[str, str],
        shape: list[int] | None,
        num_classes: Annotated[int, Ge(0)],
        batch_size: Annotated[int, Ge(1)],
        seed: Annotated[int, Ge(0)] = 0,
        num_scenes: Annotated[int, Ge(1)] = 20_000,
        num_held_out: Annotated[int, Ge(2)] = 480,
        style: Literal["bright", "pastel"] = "bright",
        derive: dict[str, Derive] | None = None,
    ):
        pictures = [name for name, (_, size) in _FIELDS.items() if size is not None]
        if wrong := [name for name, kind in fields.items() if kind not in (pictures if name == "x" else _FIELDS)]:
            available = ", ".join(pictures if wrong[0] == "x" else _FIELDS)
            raise ValueError(f"data.fields.{wrong[0]}={fields[wrong[0]]} is not available: choose one of {available}")
        if "x" not in fields:
            raise ValueError(f"data.fields={fields} does not say what x is: data.fields.x=picture")
        shape = list(_FIELDS[fields["x"]][1] or ()) if shape is None else shape
        super().__init__(shape, num_classes, batch_size, seed, derive=derive)
        self.fields, self.num_scenes, self.num_held_out, self.style = dict(fields), num_scenes, num_held_out, style

    def verify(self) -> None:
        _, shape = _FIELDS[self.fields["x"]]
        if self.shape != shape:
            raise ValueError(f"data.shape={self.shape} must be {shape} where data.fields.x={self.fields['x']}")

    def num_train(self) -> int | None:
        return self.num_scenes

    def load(self) -> dict[str, Split]:
        self.verify()
        splits: dict[str, Split] = {}
        for split in _SEEDS:
            drawn = _Drawn(split, self.num_scenes if split == "train" else self.num_held_out, self.style)
            splits[split] = {name: _FIELDS[kind][0](drawn) for name, kind in self.fields.items()}
        return splits
