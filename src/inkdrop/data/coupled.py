"""Pairs of data and noise that are coupled in groups which are larger than a batch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le
from torch import Tensor

from inkdrop.data.loaders import Order, Split
from inkdrop.data.module import DataModule
from inkdrop.data.toys import Draw
from inkdrop.losses.coupling import Coupling, independent
from inkdrop.noises import Modes
from inkdrop.randomness import Generators

NOISE = "eps"  # the field that noise=paired reads


class CoupledPoints(DataModule):
    """Points x in the plane with the noise `eps` that each is paired with by a coupling within a group of points.

    Each group is drawn anew, so that no training point occurs twice, and its pairs are in the order of the noise. The
    groups follow each other, and so do the batches of a group. Training points depend on the seed of the run; those of
    the splits `validation` and `test` do not.

    - `draw`: the law of the points of a group.
    - `source`: the law of the noise.
    - `coupling`: the pairing within a group; `independent` leaves the points in the order in which they are drawn.
    - `group`: points of a group.
    - `num_points`: training points, a multiple of `group`; the run begins again after them.
    - `num_held_out`: points of each of the other two splits.
    - `shape`, `num_classes`, `batch_size`, `seed`: see `DataModule`.

    Raises `ValueError` if `group` does not divide `num_points`. Source: Cheng and Schwing 2025, arXiv 2503.10636.
    """

    def __init__(
        self,
        draw: Draw,
        source: Modes,
        group: Annotated[int, Ge(2)],
        num_points: Annotated[int, Ge(2), Le(10_000_000_000)],
        num_held_out: Annotated[int, Ge(2), Le(100_000_000)],
        shape: list[int],
        num_classes: Annotated[int, Ge(0)],
        batch_size: Annotated[int, Ge(1)],
        coupling: Coupling = independent,
        seed: Annotated[int, Ge(0)] = 0,
    ):
        super().__init__(shape, num_classes, batch_size, seed, num_workers=0)
        if num_points % group:
            raise ValueError(
                f"data.num_points={num_points} is not a multiple of data.group={group}: change one of them"
            )
        self.draw, self.source, self.coupling = draw, source, coupling
        self.group, self.num_points, self.num_held_out = group, num_points, num_held_out

    def load(self) -> dict[str, Split]:
        drawn = lru_cache(1)(self._group)  # its batches follow each other
        law = f"{_named(self.draw)} {_named(self.source)} {_named(self.coupling)} in groups of {self.group}"
        splits: dict[str, Split] = {
            "train": {name: _Groups(drawn, name, self.num_points, self.group, law, self.shape) for name in ("x", NOISE)}
        }
        for name in ("validation", "test"):
            generator = _generator(0, name, 0)
            x = self.draw(self.num_held_out, generator)
            order = torch.randperm(self.num_held_out, generator=generator)  # so that any part of them has the same law
            splits[name] = {"x": x[order], NOISE: self.source.points(self.num_held_out, generator)}
        return splits

    def order(self) -> Order:
        return lambda positions: torch.tensor(positions) % self.num_points

    def _group(self, number: int) -> dict[str, Tensor]:
        generator = _generator(self.seed, "train", number)
        x = self.draw(self.group, generator)
        eps = self.source.points(self.group, generator)
        return {"x": self.coupling(eps, x), NOISE: eps}


class _Groups:
    """One field of the pairs, which are drawn when items are fetched."""

    def __init__(self, drawn: Any, name: str, count: int, group: int, law: str, shape: Sequence[int]):
        self.drawn, self.name, self.group, self.law = drawn, name, group, law
        self.shape, self.dtype = (count, *shape), torch.float32

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, items: Tensor, /) -> Tensor:
        result = torch.empty(len(items), *self.shape[1:])
        groups = items // self.group
        for number in groups.unique().tolist():
            chosen = groups == number
            result[chosen] = self.drawn(number)[self.name][items[chosen] % self.group]
        return result

    def digest(self) -> str:
        """Returns the law of the pairs, which is the same for all seeds."""
        return self.law


def _generator(seed: int, split: str, number: int) -> torch.Generator:
    """Returns the stream of a group."""
    key = int(Generators.from_positions(seed, [number]).at(f"coupled {split}").keys[0])
    return torch.Generator().manual_seed(key)


def _named(part: Any) -> str:
    """Returns what a part is: the name of a function, or the class of an object with its options."""
    part = getattr(part, "func", part)
    return getattr(part, "__qualname__", "") or f"{type(part).__qualname__} {sorted(vars(part).items())}"
