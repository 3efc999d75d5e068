"""Whether samples show what captions of scenes say, read from their pixels without learned weights."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from inkdrop.data.contents import NOTHING, RELATIONS, SHAPES, SIDE, Description, described
from inkdrop.data.drawing import STYLES, coverage
from inkdrop.data.loaders import Split
from inkdrop.files.texts import decoded, is_text
from inkdrop.metrics.extractors import Extractor
from inkdrop.metrics.metric import Extracted, Metric, Results

_HALVES = (2.7, 2.95, 3.2)  # half widths of the templates in pixels
_STEP = 0.4  # pixels between templates
_FEWEST = 8.0  # pixels that an object covers at least
_FAINT = 0.2  # smaller shares of a pixel are noise
_WORST = 0.2  # relative squared distance from its template above which a shape is not recognised
_APART = 1.0  # pixels between the centres of objects, from which on one is left of the other
_BATCH = 256  # pictures judged at a time


@dataclass(frozen=True)
class Sight:
    """What N pictures show, by colour, in the order of `COLOURS`; at most one object of a colour is recognised.

    - `present` (N, 6): whether the colour covers at least eight pixels.
    - `shapes` (N, 6): number of the shape in `SHAPES`, -1 where none is recognised.
    - `centres` (N, 6, 2): x and y of the centre of mass in pixels, nan where the colour is absent.
    - `misfit` (N, 6): squared distance of the shares of pixels from those of the shape, in units of their square.
    """

    present: Tensor
    shapes: Tensor
    centres: Tensor
    misfit: Tensor


@dataclass(frozen=True)
class Verdict:
    """Which parts of a description N pictures show, each (N) and bool; `relation` is False for single objects."""

    number: Tensor
    colours: Tensor
    binding: Tensor
    relation: Tensor
    all: Tensor


@functools.cache
def _templates() -> tuple[Tensor, Tensor]:
    """Shares of pixels (T, 256) of all shapes, sizes and places, with the numbers (T) of the shapes."""
    shapes, centres, halves = [], [], []
    for number in range(len(SHAPES)):
        for half in _HALVES:
            axis = torch.arange(half + 0.3, SIDE - half - 0.3 + 1e-6, _STEP, dtype=torch.float64)
            places = torch.cartesian_prod(axis, axis)
            shapes.append(torch.full((len(places),), number))
            centres.append(places)
            halves.append(torch.full((len(places),), half, dtype=torch.float64))
    kinds = torch.cat(shapes)
    return coverage(kinds, torch.cat(centres), torch.cat(halves)).flatten(1), kinds


def look(pictures: Tensor, style: str = "bright") -> Sight:
    """Returns what pictures of scenes (N, 3, 16, 16) in levels from 0 to 255 show.

    The ground is the median of the border. Each pixel belongs to the colour whose ray from the ground is nearest, with
    its projection as the share of the pixel that is covered; the shape of a colour is that of the nearest template.
    """
    parts = [_look(each.float(), style) for each in pictures.split(_BATCH)]
    names = ("present", "shapes", "centres", "misfit")
    return Sight(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def _look(pictures: Tensor, style: str) -> Sight:
    edges = [pictures[:, :, 0], pictures[:, :, -1], pictures[:, :, 1:-1, 0], pictures[:, :, 1:-1, -1]]
    ground = torch.cat(edges, 2).median(2).values
    rays = STYLES[style].levels() - ground[:, None]
    lengths = rays.norm(dim=2)
    along = torch.einsum("nkc,nchw->nkhw", rays / lengths[..., None], pictures - ground[:, :, None, None])
    share = (along / lengths[..., None, None]).clamp(0, 1)
    mine = torch.zeros_like(along).scatter_(1, along.argmax(1, keepdim=True), 1.0)
    share = torch.where(share < _FAINT, 0.0, share * mine).flatten(2)
    present = share.sum(2) >= _FEWEST
    templates, kinds = _templates()
    seen = share[present]
    distances = torch.addmm(templates.square().sum(1), seen, templates.T, alpha=-2)
    least, best = distances.min(1)
    misfit = torch.full_like(share[:, :, 0], torch.inf)
    misfit[present] = (least + seen.square().sum(1)) / templates[best].square().sum(1)
    shapes = torch.full(present.shape, NOTHING)
    shapes[present] = kinds[best]
    centres = share @ _middles() / share.sum(2, keepdim=True)
    centres = torch.where(present[..., None], centres, torch.nan)
    return Sight(present, torch.where(misfit <= _WORST, shapes, NOTHING), centres, misfit)


def _middles() -> Tensor:
    """x and y (256, 2) of the middles of the pixels."""
    axis = torch.arange(SIDE) + 0.5
    return torch.cartesian_prod(axis, axis).flip(1)


def judge(sight: Sight, wanted: Description) -> Verdict:
    """Returns which parts of descriptions of N pictures are what they show."""
    there = wanted.colours >= 0
    index = wanted.colours.clamp(min=0)
    number = sight.present.sum(1) == wanted.number
    colours = number & (sight.present.gather(1, index) | ~there).all(1)
    binding = colours & ((sight.shapes.gather(1, index) == wanted.shapes) | ~there).all(1)
    first, second = sight.centres.gather(1, index[:, :, None].expand(-1, -1, 2)).unbind(1)
    right, below = ((second - first)[:, axis] for axis in (0, 1))
    gaps = torch.stack([right, -right, below, -below], 1)  # in the order of RELATIONS
    apart = gaps.gather(1, wanted.relation.clamp(min=0)[:, None])[:, 0] > _APART
    relation = apart & (wanted.relation >= 0)
    return Verdict(number, colours, binding, relation, binding & (relation | (wanted.relation < 0)))


@dataclass(frozen=True)
class SceneJudge(Metric):
    """The shares of samples of `data=scenes` that show what their captions say, `scene_number` to `scene_all`.

    `scene_number` is right with as many colours as objects, `scene_colours` with these colours, `scene_binding` if each
    also has its shape, and `scene_relation`, over captions with two objects, if these colours are in the relation of
    the caption. `scene_all` counts samples that are right in everything. The floor is that of real scenes.

    - `field`: the field of the captions.
    - `style`: the style of the scenes.

    Raises `ValueError` for data that are not scenes, and for captions of another form.
    """

    field: str = "caption"
    style: Literal["bright", "pastel"] = "bright"

    needs: ClassVar[frozenset[str]] = frozenset({"items"})
    better: ClassVar[Literal["lower", "higher"]] = "higher"

    def check(self, held_out: Split, reference: Split, extractor: Extractor) -> None:
        super().check(held_out, reference, extractor)
        x = held_out["x"]
        if (shape := list(x.shape[1:])) != [3, SIDE, SIDE] or x.dtype != torch.uint8:
            raise ValueError(f"the judge of scenes needs pictures of shape {[3, SIDE, SIDE]}, not {shape}: set metric")
        first = torch.arange(1)
        texts = [name for name, column in held_out.items() if name != "x" and is_text(column[first])]
        if self.field not in texts:
            raise ValueError(
                f"field={self.field} of the judge of scenes is not a text of the data (available: "
                f"{', '.join(texts) or 'none'}): set it to one of these"
            )
        described(decoded(held_out[self.field][torch.arange(len(held_out["x"]))]))

    def __call__(self, samples: Extracted, reference: Extracted, held_out: Extracted, extractor: Extractor) -> Results:
        items = torch.arange(samples.count)
        wanted = described(decoded(samples.items[self.field][items]))
        verdict = judge(look(samples.items["x"][items], self.style), wanted)
        two = wanted.relation >= 0
        shares = {name: getattr(verdict, name) for name in ("number", "colours", "binding", "all")}
        shares |= {"relation": verdict.relation[two]} if two.any() else {}
        return {f"scene_{name}": float(each.double().mean()) for name, each in shares.items()}


assert RELATIONS == ("left of", "right of", "above", "below")
