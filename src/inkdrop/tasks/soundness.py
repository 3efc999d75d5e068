"""The diagnosis of an optimizer step that is refused because something is not finite or the gradient is too large."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from inkdrop.distributed.ranks import from_all_ranks
from inkdrop.errors import listed

ADVICE = "try a lower optimizer.lr, a lower trainer.gradient_clip_val, or trainer.precision=32-true"


class RecentLosses:
    """The losses of the samples since the last optimizer step, kept by reference and read only for a diagnosis."""

    def __init__(self) -> None:
        self._parts: list[tuple[Tensor, Tensor]] = []

    def add(self, losses: Tensor, positions: Tensor) -> None:
        """Adds losses (B) of samples at global positions (B)."""
        self._parts.append((losses.detach(), positions))

    def clear(self) -> None:
        self._parts = []

    def wrong(self, order: Any) -> list[str]:
        """Returns the samples of all ranks whose loss is not finite; `order`, if given, maps positions to items."""
        return self._described([pair for pair in self._pairs() if not math.isfinite(pair[1])], order)

    def largest(self, order: Any, count: int = 3) -> list[str]:
        """Returns the samples of each rank with the largest losses."""
        return self._described(sorted(self._pairs(), key=lambda pair: -pair[1])[:count], order)

    def _pairs(self) -> list[tuple[int, float]]:
        return [
            pair for losses, positions in self._parts for pair in zip(positions.tolist(), losses.tolist(), strict=True)
        ]

    def _described(self, pairs: list[tuple[int, float]], order: Any) -> list[str]:
        items = order([position for position, _ in pairs]).tolist() if order and pairs else [None] * len(pairs)
        texts = [
            f"position {position}" + (f" (item {item})" if item is not None else "") + f": {value}"
            for (position, value), item in zip(pairs, items, strict=True)
        ]
        ranks = from_all_ranks(texts)
        return [f"rank {i}, {text}" if len(ranks) > 1 else text for i, rank in enumerate(ranks) for text in rank]


def broken_gradients(module: nn.Module) -> list[str]:
    """Returns the names of the parameters whose gradient is not finite."""
    named = [(name, p.grad) for name, p in module.named_parameters() if p.grad is not None]
    return [name for name, gradient in named if not bool(gradient.isfinite().all())]


def diagnosis(step: int, losses: list[str], gradients: list[str]) -> str:
    """Returns a message that says why this optimizer step is refused."""
    if losses:
        return f"optimizer step {step}: the loss is not finite at {listed(losses)}"
    if gradients:
        return f"optimizer step {step}: all losses are finite, but the gradient is not, in {listed(gradients, 3)}"
    return f"optimizer step {step}: all losses and gradients are finite, but the norm of the gradient is not"
