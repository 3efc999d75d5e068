"""Constraints act on the law of the next x before it is drawn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from inkdrop.codecs import Codec
from inkdrop.denoiser import Denoiser, Estimate
from inkdrop.noises import Draw, Transition
from inkdrop.schedules import Point


class Constraint(ABC):
    """A constraint of one sampling call. `copies` is the number of adjacent rows (particles) that each sample needs."""

    copies: int = 1

    def around(self, denoiser: Denoiser) -> Denoiser:
        """Returns the denoiser of the run, which it may wrap; `denoiser` has all guidance."""
        return denoiser

    def start(self, x: Tensor, points: Sequence[Point], noise: Draw) -> Tensor:
        """Returns the first x of the run, which it may change; `points` are all points of the run."""
        return x

    @abstractmethod
    def apply(
        self, transition: Transition, now: Point, next: Point, noise: Draw, estimate: Estimate | None
    ) -> tuple[Tensor, Tensor | None]:
        """Draws the next x, and returns the rows (B) that it continues, or None if every row continues itself.

        - `transition`: the law of the next x.
        - `now`, `next`: the start and the end of the move.
        - `noise`: the noise of the move.
        - `estimate`: what the denoiser said in its last call, with its extras; None before the first.
        """

    def finish(self, x: Tensor) -> Tensor:
        """Returns the samples from the last rows."""
        return x


class Constrained(Protocol):
    """What a constraint may know of the pipeline that it acts in; `shape` is that of x without the batch."""

    codec: Codec
    denoiser: Denoiser
    shape: tuple[int, ...]


class Stepping(Protocol):
    """What a constraint may know of the sampler on whose moves it acts."""

    @property
    def deterministic(self) -> bool:
        """Whether the law of every step has std 0."""


class ConstraintFactory(ABC):
    """Makes the constraint of each sampling call, as guidance does with denoisers, so that its state starts fresh.

    `names` are the conditions that it reads of a raw batch, next to those of the model. `copies` is the number of
    adjacent rows (particles) that each sample needs.
    """

    names: tuple[str, ...] = ()
    copies: int = 1

    @abstractmethod
    def __call__(self, pipeline: Constrained, batch: Mapping[str, Tensor]) -> Constraint:
        """Returns the constraint of a raw batch, whose rows are already repeated."""

    def check(self, sampler: Stepping, points: Sequence[Point]) -> None:  # noqa: B027
        """Raises `ValueError` if it cannot act on the moves of this sampler through these points."""

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """Returns what it needs of a raw batch for samples with these seeds, from a user's words."""
        return {}

    def measured(self) -> dict[str, Tensor]:
        """Returns what its constraints have measured since the last call, with a row for each sample."""
        return {}
