"""Sources of the noise of a sampling run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from inkdrop.noises.laws import Noise
from inkdrop.noises.transitions import Draw
from inkdrop.randomness import Generators, sent
from inkdrop.schedules import Point


class Move(NamedTuple):
    """One move of a sampling run: its number, the number of up-moves before it, and its start and end."""

    number: int
    loops: int
    now: Point
    next: Point


class Source(Protocol):
    """A source of noise for the moves of a sampling run."""

    def at(self, move: Move) -> Draw:
        """Returns the noise of this move."""


@dataclass(frozen=True)
class NoiseSource:
    """The noise of a sampling run as a pure function of the sample's seed, the move and the purpose."""

    law: Noise
    generators: Generators

    def at(self, move: Move) -> Draw:
        """Returns the noise of this move."""

        return _Draw(self.law, self.generators, move.number)


@dataclass(frozen=True)
class _Draw:
    """The noise of one move."""

    law: Noise
    generators: Generators
    number: int

    def __call__(self, like: Tensor, purpose: str, *position: int) -> Tensor:
        return sent(self.law(like.shape[1:], self.streams(purpose, *position), like.dtype), like.device)

    def streams(self, purpose: str, *position: int) -> Generators:
        return self.generators.at(purpose, self.number, *position)
