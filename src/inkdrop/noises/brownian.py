"""Brownian paths as the noise of sampling."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from inkdrop.noises.sources import Move, Source
from inkdrop.noises.transitions import Draw
from inkdrop.randomness import Generators


class Brownian:
    """A Brownian path for each sample, which does not depend on the times that a sampling run visits.

    The noise of a step of a reverse SDE is the increment of W over `c = (alpha / sigma)^2`, divided by the square root
    of its length: the SDE adds an increment of W(c) to `x alpha / sigma^2`. W is 0 at c = 0 and is drawn at e^-40 and
    e^40. Values in between come from repeated bisection of the interval of log(c), each of them normal given its two
    neighbours. Every up-move starts a new path. Up-moves, corrections and purposes other than "step" use fresh noise
    from the inner source. Raises `ValueError` for c outside e^-40 to e^40, except 0.

    Source: Li et al. 2020, arXiv 2001.01328, section 4, for such trees.
    """

    ENDS = (-20.0, 20.0)  # of half the log-SNR
    DEPTH = 15  # bisections; within the last interval, of length 0.0012, bridges join successive points

    def __init__(self, source: Source):
        self.source = source
        self._pass = -1
        self._known: dict[tuple[int, int], Tensor] = {}  # by level and place
        self._last: tuple[float, Tensor, int] | None = None  # half the log-SNR, W, points before it in its interval

    def at(self, move: Move) -> Draw:
        """Returns the noise of this move."""
        fresh = self.source.at(move)

        return fresh if move.next.half <= move.now.half else _Step(fresh, partial(self._increment, move))

    def _increment(self, move: Move, like: Tensor) -> Tensor:
        """Returns the increment of W (B, *) over a move, divided by the root of its length."""
        if move.loops != self._pass:
            self._pass, self._known, self._last = move.loops, {}, None
        normal = partial(self.source.at(move._replace(number=0)), like, "path", move.loops)
        before, after = self._value(float(move.now.half), normal), self._value(float(move.next.half), normal)
        return (after - before) / math.sqrt(math.exp(2 * move.next.half) - math.exp(2 * move.now.half))

    def _value(self, half: float, normal: Callable[[int, int], Tensor]) -> Tensor:
        """Returns W (B, *) at this half log-SNR, computed from the random numbers `normal(level, place)`."""
        if self._last is not None and self._last[0] == half:
            return self._last[1]
        low, high = self.ENDS
        if half > high or (half < low and math.isfinite(half)):
            raise ValueError(
                f"the time grid has a log-SNR of {2 * half:.0f}, but Brownian noise is defined from {2 * low:.0f} to "
                f"{2 * high:.0f}: choose another grid"
            )
        if half < low:
            return torch.zeros_like(normal(-1, 0))
        before, path = self._known, {}

        def known(level: int, place: int, make: Callable[[Tensor], Tensor]) -> Tensor:
            key = level, place
            path[key] = before[key] if key in before else make(normal(level, place))
            return path[key]

        left = known(-1, 0, lambda z: math.exp(low) * z)
        right = known(-1, 1, lambda z: torch.add(left, z, alpha=math.exp(high)))
        place = 0
        for level in range(self.DEPTH):
            middle = (low + high) / 2
            value = known(level, place, partial(_bridge, middle, low, left, high, right))
            if half < middle:
                high, right, place = middle, value, 2 * place
            else:
                low, left, place = middle, value, 2 * place + 1
        self._known, number = path, 0
        if self._last is not None and low <= self._last[0] < half:
            low, left, number = self._last[0], self._last[1], self._last[2] + 1
        value = _bridge(half, low, left, high, right, normal(self.DEPTH + number, place))
        self._last = half, value, number
        return value


@dataclass(frozen=True)
class _Step:
    """The noise of a step along the path; other purposes have fresh noise."""

    fresh: Draw
    increment: Callable[[Tensor], Tensor]

    def __call__(self, like: Tensor, purpose: str, *position: int) -> Tensor:
        return self.increment(like) if purpose == "step" else self.fresh(like, purpose, *position)

    def streams(self, purpose: str, *position: int) -> Generators:
        return self.fresh.streams(purpose, *position)


def _bridge(half: float, low: float, left: Tensor, high: float, right: Tensor, normal: Tensor) -> Tensor:
    """Draws W between two known values, all at half log-SNRs, with the standard normal numbers `normal` (B, *)."""
    c, start, end = math.exp(2 * half), math.exp(2 * low), math.exp(2 * high)
    share = (c - start) / (end - start)
    return torch.lerp(left, right, share).add_(normal, alpha=math.sqrt(max(0.0, (1 - share) * (c - start))))
