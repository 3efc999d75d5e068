"""The law of eps, and where a sampling run takes its noise from."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, NamedTuple, Protocol

import torch
from annotated_types import Ge
from torch import Tensor

from inkdrop.randomness import Generators
from inkdrop.schedules import Point


class Noise(ABC):
    """Draws eps for a batch, one stream per sample.

    `standard` says whether eps ~ N(0, I), the law that exact likelihoods are written for.
    """

    standard: bool = False

    @abstractmethod
    def __call__(self, shape: Iterable[int], generators: Generators, dtype: torch.dtype = torch.float32) -> Tensor:
        """Noise of shape (B, *shape) on the CPU, where B is the number of streams."""


class Gaussian(Noise):
    """eps ~ N(0, I)."""

    standard = True

    def __call__(self, shape: Iterable[int], generators: Generators, dtype: torch.dtype = torch.float32) -> Tensor:
        return generators.normal(shape, dtype)


class Offset(Noise):
    """Gaussian noise plus `strength` times one normal number per channel, which moves the mean of an image.

    `eps ~ N(0, I + strength^2 1 1^T)` within a channel. Sampling draws from the same law, so that training and sampling
    are one process. Source: Guttenberg 2023, "Diffusion with Offset Noise" (0.1).
    """

    def __init__(self, strength: Annotated[float, Ge(0)] = 0.1):
        self.strength = strength

    def __call__(self, shape: Iterable[int], generators: Generators, dtype: torch.dtype = torch.float32) -> Tensor:
        channels, *others = shape
        mean = generators.at("offset").normal([channels, *(1 for _ in others)], dtype)
        return generators.normal([channels, *others], dtype) + self.strength * mean


def slerp(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """From `first` to `second` (B, *) along the great circle through them, by a share (B) of the angle between them.

    `sin((1 - s) w) / sin(w) first + sin(s w) / sin(w) second` with w the angle: between draws of normal noise the
    length stays that of noise. Parallel ones are mixed in a straight line. Source: Shoemake 1985.
    """
    angle = torch.cosine_similarity(first.flatten(1), second.flatten(1)).clamp(-1, 1).acos()
    sine, share = angle.sin(), share.to(first)
    straight = sine < 1e-6
    weights = [torch.where(straight, part, (part * angle).sin() / sine) for part in (1 - share, share)]
    a, b = (weight.reshape(-1, *(1,) * (first.dim() - 1)) for weight in weights)
    return a * first + b * second


class Move(NamedTuple):
    """One move of a sampling run: its number, how many up-moves came before it, and its two ends."""

    number: int
    loops: int
    now: Point
    next: Point


class Draw(Protocol):
    """Noise of one move: `draw(like, purpose)` has the shape, type and device of `like` (B, *)."""

    def __call__(self, like: Tensor, purpose: str, *position: int) -> Tensor: ...


class Source(Protocol):
    """Where a sampling run takes the noise of its moves from."""

    def at(self, move: Move) -> Draw:
        """The noise of this move."""


@dataclass(frozen=True)
class NoiseSource:
    """All noise of one sampling run, a pure function of the sample's seed, the move and the purpose."""

    law: Noise
    generators: Generators

    def at(self, move: Move) -> Draw:
        """The noise of this move."""

        def draw(like: Tensor, purpose: str, *position: int) -> Tensor:
            generators = self.generators.at(purpose, move.number, *position)
            return self.law(like.shape[1:], generators, like.dtype).to(like.device, non_blocking=True)

        return draw


class Brownian:
    """One path of Brownian motion per sample, the same whatever the times that a run visits.

    The noise of a step of a reverse SDE is its increment over `c = (alpha / sigma)^2`, divided by the root of the
    length: where `x alpha / sigma^2` is followed, an increment of W(c) is what is added to it. W is 0 at c = 0, drawn
    at e^-40 and e^40, and found in between by halving the interval of log(c) again and again, each value normal given
    its two neighbours. Every up-move begins a path of its own. Up-moves, corrections and purposes other than "step"
    have fresh noise from the source inside. `ValueError` for c beyond e^-40 and e^40, but for 0.

    Source: Li et al. 2020, arXiv 2001.01328, section 4, for such trees.
    """

    ENDS = (-20.0, 20.0)  # of half the log-SNR
    DEPTH = 15  # halvings; in the last interval, 0.0012 long, the path is bridged from point to point

    def __init__(self, source: Source):
        self.source = source
        self._pass = -1
        self._known: dict[tuple[int, int], Tensor] = {}  # by level and place
        self._last: tuple[float, Tensor, int] | None = None  # half the log-SNR, W, points before it in its interval

    def at(self, move: Move) -> Draw:
        """The noise of this move."""
        own = self.source.at(move)

        def draw(like: Tensor, purpose: str, *position: int) -> Tensor:
            if purpose != "step" or move.next.half <= move.now.half:
                return own(like, purpose, *position)
            if move.loops != self._pass:
                self._pass, self._known, self._last = move.loops, {}, None
            normal = partial(self.source.at(move._replace(number=0)), like, "path", move.loops)
            before, after = self._value(float(move.now.half), normal), self._value(float(move.next.half), normal)
            return (after - before) / math.sqrt(math.exp(2 * move.next.half) - math.exp(2 * move.now.half))

        return draw

    def _value(self, half: float, normal: Callable[[int, int], Tensor]) -> Tensor:
        """W (B, *) where half the log-SNR has this value; `normal(level, place)` are the numbers that it is made of."""
        if self._last is not None and self._last[0] == half:
            return self._last[1]
        low, high = self.ENDS
        if half > high or (half < low and math.isfinite(half)):
            raise ValueError(
                f"the time grid has a log-SNR of {2 * half:.0f}, but Brownian noise is made for {2 * low:.0f} to "
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


def _bridge(half: float, low: float, left: Tensor, high: float, right: Tensor, normal: Tensor) -> Tensor:
    """W between two known values, all at half log-SNRs; `normal` (B, *) is what is new in it."""
    c, start, end = math.exp(2 * half), math.exp(2 * low), math.exp(2 * high)
    share = (c - start) / (end - start)
    return torch.lerp(left, right, share).add_(normal, alpha=math.sqrt(max(0.0, (1 - share) * (c - start))))
