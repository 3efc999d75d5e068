"""What a scene contains: objects by colour, shape, place and size, and the captions that describe them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from inkdrop.randomness import Generators

COLOURS = ("red", "green", "blue", "yellow", "magenta", "cyan")
SHAPES = ("circle", "square", "triangle", "cross")
RELATIONS = ("left of", "right of", "above", "below")
SIDE = 16  # pixels
NOTHING = -1  # in place of the number of a colour, shape or relation that a scene does not have

_UNSEEN = (("red", "triangle"), ("blue", "cross"), ("green", "circle"), ("yellow", "square"))
_COLOUR_OF = torch.arange(24) // 4  # a pair has the number 4 * colour + shape
_SHAPE_OF = torch.arange(24) % 4
_SMALLEST, _LARGEST = 2.6, 3.3  # half widths in pixels
_OBJECT = rf"a ({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})"
_CAPTION = re.compile(rf"{_OBJECT}(?: ({'|'.join(RELATIONS)}) {_OBJECT})?")


def _pairs(names: Sequence[tuple[str, str]]) -> Tensor:
    """A mask (24) of these pairs of colour and shape."""
    mask = torch.zeros(24, dtype=torch.bool)
    mask[[4 * COLOURS.index(colour) + SHAPES.index(shape) for colour, shape in names]] = True
    return mask


UNSEEN_PAIRS = _pairs(_UNSEEN)
SEEN_PAIRS = ~UNSEEN_PAIRS


@dataclass(frozen=True)
class Description:
    """What the captions of N scenes say; the second entry of a scene with one object is -1, as is its relation.

    `colours` and `shapes` (N, 2) are numbers in `COLOURS` and `SHAPES`, and `relation` (N) is one in `RELATIONS`.
    """

    colours: Tensor
    shapes: Tensor
    relation: Tensor

    @property
    def number(self) -> Tensor:
        """The number (N) of objects."""
        return (self.colours >= 0).sum(1)

    def captions(self) -> list[str]:
        """Returns `a COLOUR SHAPE` or `a COLOUR SHAPE RELATION a COLOUR SHAPE` for each scene."""
        rows = torch.cat([self.colours, self.shapes, self.relation[:, None]], 1).tolist()
        return [
            f"a {COLOURS[c]} {SHAPES[s]}" + (f" {RELATIONS[r]} a {COLOURS[d]} {SHAPES[t]}" if r >= 0 else "")
            for c, d, s, t, r in rows
        ]


def described(captions: Sequence[str]) -> Description:
    """Returns what captions of scenes say; raises `ValueError` for a caption of another form."""
    rows = []
    for caption in captions:
        match = _CAPTION.fullmatch(caption)
        if match is None:
            raise ValueError(
                f"{caption[:80]!r} is not the caption of a scene, `a COLOUR SHAPE` or `a COLOUR SHAPE RELATION a "
                "COLOUR SHAPE`: choose a field of such captions"
            )
        first, shape, relation, second, other = match.groups()
        rows.append(
            [
                *(COLOURS.index(each) if each else NOTHING for each in (first, second)),
                *(SHAPES.index(each) if each else NOTHING for each in (shape, other)),
                RELATIONS.index(relation) if relation else NOTHING,
            ]
        )
    numbers = torch.tensor(rows).reshape(-1, 5)
    return Description(numbers[:, :2], numbers[:, 2:4], numbers[:, 4])


@dataclass(frozen=True)
class Contents(Description):
    """All from which N scenes are drawn, in pixels, with x to the right and y downwards from the upper left corner.

    `centres` (N, 2, 2) are x and y of the centre of each object, `halves` (N, 2) half its width, and `ground` (N) in
    [0, 1] is the brightness of the ground within the range of a style.
    """

    centres: Tensor
    halves: Tensor
    ground: Tensor

    def recoloured(self, which: Tensor, colour: Tensor) -> Contents:
        """Returns the same scenes, in each of which object `which` (N) has another `colour` (N)."""
        return replace(self, colours=self.colours.scatter(1, which[:, None], colour[:, None]))


def contents(seed: int, count: int, unseen: bool) -> Contents:
    """Draws `count` scenes, each from its own stream: a longer set begins with the scenes of a shorter one.

    Three of four have two objects, of different colours. Pairs of colour and shape are those that training has, or in
    every scene with `unseen` one of the others.
    """
    u = Generators.from_positions(seed, range(count)).at("scene").uniform((12,))
    two = u[:, 0] < 0.75
    first = _chosen((UNSEEN_PAIRS if unseen else SEEN_PAIRS).expand(count, -1), u[:, 1])
    second = _chosen(SEEN_PAIRS & (_COLOUR_OF[first][:, None] != _COLOUR_OF), u[:, 2])
    pairs = torch.stack([first, second], 1)
    if unseen:
        pairs = torch.where((two & (u[:, 3] < 0.5))[:, None], pairs.flip(1), pairs)
    relation = (4 * u[:, 4]).long()
    halves = _SMALLEST + (_LARGEST - _SMALLEST) * u[:, 5:7]
    present = torch.stack([torch.ones_like(two), two], 1)
    return Contents(
        torch.where(present, _COLOUR_OF[pairs], NOTHING),
        torch.where(present, _SHAPE_OF[pairs], NOTHING),
        torch.where(two, relation, NOTHING),
        _centres(two, relation, halves, u[:, 7:11]),
        halves,
        u[:, 11],
    )


def _centres(two: Tensor, relation: Tensor, halves: Tensor, u: Tensor) -> Tensor:
    """Centres (N, 2, 2): of two objects each is in its half of the picture, and a single one is anywhere."""
    along, across = u[:, :2], u[:, 2:]
    near = halves + 0.3 + (7.4 - 2 * halves) * along
    is_far = torch.stack([relation % 2 == 1, relation % 2 == 0], 1)
    free = halves + 0.5 + (SIDE - 1 - 2 * halves) * torch.stack([along, across])
    on_axis = torch.where(two[:, None], torch.where(is_far, SIDE - near, near), free[0])
    sideways = torch.stack([on_axis, free[1]], 2)
    return torch.where((relation < 2)[:, None, None], sideways, sideways.flip(2))


def edits(seed: int, scenes: Contents, pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Draws for each scene an object (N) and a new colour (N), which occurs in neither object.

    `pairs` (24) is a mask of the pairs of colour and shape that may result.
    """
    u = Generators.from_positions(seed, range(len(scenes.ground))).at("edit").uniform((2,))
    which = (u[:, 0] * scenes.number).long()
    shape = scenes.shapes.gather(1, which[:, None])
    allowed = pairs.reshape(6, 4).T[shape[:, 0]]
    allowed = allowed & (torch.arange(6) != scenes.colours[:, :1]) & (torch.arange(6) != scenes.colours[:, 1:])
    return which, _chosen(allowed, u[:, 1])


def instructions(scenes: Contents, which: Tensor, colour: Tensor) -> list[str]:
    """Returns `make the COLOUR SHAPE COLOUR` for each scene, an object `which` (N) and a new `colour` (N)."""
    before, shape = (each.gather(1, which[:, None])[:, 0] for each in (scenes.colours, scenes.shapes))
    rows = torch.stack([before, shape, colour], 1).tolist()
    return [f"make the {COLOURS[c]} {SHAPES[s]} {COLOURS[d]}" for c, s, d in rows]


def _chosen(allowed: Tensor, u: Tensor) -> Tensor:
    """The column (N) of a mask (N, K) that numbers u (N) in [0, 1) choose, each allowed one equally often."""
    rank = (u * allowed.sum(1)).long() + 1
    return ((allowed.cumsum(1) == rank[:, None]) & allowed).int().argmax(1)
