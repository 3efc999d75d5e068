"""Codecs of series whose scale is that of each item's own history."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from inkdrop.codecs.base import NOTHING, Batches, Codec
from inkdrop.randomness import Generators

_SIZE = 512  # windows of a batch of which statistics are taken
_EXAMPLE = 2  # steps of a history by which a model is tried
_LEAST = 0.1  # of the typical scale: a channel that has stood still in its history may move again


class Increments(Codec):
    """Maps series y (B, C, T) to their scaled increments `x_k = (y_k - y_(k-1)) / s`, where y_0 ends the history.

    The scale s (B, C, 1) is the root mean square of the increments of the item's own `history` (B, C, L), and at least
    a tenth of that of the training data.

    - `channels`: the number of channels C.
    - `context`: the last steps of the history from which the scale is taken; null is all.

    Raises `ValueError` for data that are no series, and where a batch has no history.
    """

    typical: Tensor

    def __init__(self, channels: Annotated[int, Ge(1)], context: Annotated[int, Ge(1)] | None = None) -> None:
        super().__init__()
        self.channels, self.context = channels, context
        self.register_buffer("typical", torch.ones(channels))

    def check(self, data: Tensor) -> None:
        check_series(data, self.channels)

    def example(self, count: int) -> dict[str, Tensor]:
        return {"history": torch.zeros(count, self.channels, self.context or _EXAMPLE)}

    def fit(self, batches: Batches, device: torch.device) -> None:
        count, squares = 0, torch.zeros(self.channels).double()
        for batch in batches(_SIZE, ["x", "history"]):
            moves = torch.cat([history_of(batch)[..., -1:], batch["x"]], -1).double().diff(dim=-1)
            count += moves.shape[0] * moves.shape[2]
            squares += moves.square().sum((0, 2))
        typical = (squares / max(count, 1)).sqrt()
        self.typical.copy_(torch.where(typical > 0, typical, 1.0))

    def encode(self, batch: Mapping[str, Tensor], generators: Generators | None = None) -> Tensor:
        history, y = history_of(batch).float(), batch["x"].float()
        return torch.cat([history[..., -1:], y], -1).diff(dim=-1) / self._scale(history)

    def decode(
        self, x: Tensor, batch: Mapping[str, Tensor] = NOTHING, extras: Mapping[str, Tensor] = NOTHING
    ) -> Tensor:
        history = history_of(batch).float()
        return history[..., -1:] + x.float().cumsum(-1) * self._scale(history)

    def _scale(self, history: Tensor) -> Tensor:
        moves = history.diff(dim=-1)
        moves = moves if self.context is None else moves[..., -self.context :]
        return torch.maximum(moves.square().mean(-1).sqrt(), _LEAST * self.typical)[..., None]


class MeanScaled(Codec):
    """Maps series y (B, C, T) to `x = y / s`, where s (B, C, 1) is the mean of |y| over the item's own history.

    The history is the field `history` (B, C, L). Where it is 0, s is 1.

    - `channels`: the number of channels C.
    - `context`: the last steps of the history from which the scale is taken; null is all.

    Raises `ValueError` for data that are no series, and where a batch has no history. Source: Salinas et al. 2020,
    arXiv 1704.04110, section 3.3.
    """

    def __init__(self, channels: Annotated[int, Ge(1)], context: Annotated[int, Ge(1)] | None = None) -> None:
        super().__init__()
        self.channels, self.context = channels, context

    def check(self, data: Tensor) -> None:
        check_series(data, self.channels)

    def example(self, count: int) -> dict[str, Tensor]:
        return {"history": torch.zeros(count, self.channels, self.context or _EXAMPLE)}

    def encode(self, batch: Mapping[str, Tensor], generators: Generators | None = None) -> Tensor:
        return batch["x"].float() / self._scale(history_of(batch).float())

    def decode(
        self, x: Tensor, batch: Mapping[str, Tensor] = NOTHING, extras: Mapping[str, Tensor] = NOTHING
    ) -> Tensor:
        return x.float() * self._scale(history_of(batch).float())

    def _scale(self, history: Tensor) -> Tensor:
        level = (history if self.context is None else history[..., -self.context :]).abs().mean(-1, keepdim=True)
        return torch.where(level > 0, level, 1.0)


def check_series(data: Tensor, channels: int) -> None:
    """Raises `ValueError` unless raw data are series (B, C, T) of real numbers with so many channels."""
    if data.dim() != 3 or not data.is_floating_point():
        kind = f"{list(data.shape[1:])} in {str(data.dtype).removeprefix('torch.')}"
        raise ValueError(f"this codec is for series [C,T] of real numbers, not for data of shape {kind}: set codec")
    if data.shape[1] != channels:
        raise ValueError(f"codec.channels={channels}, but the series have {data.shape[1]} channels: set it to that")


def history_of(batch: Mapping[str, Tensor]) -> Tensor:
    """Returns the history (B, C, L) of a raw batch; raises `ValueError` if it has none, or a too short one."""
    if "history" not in batch:
        raise ValueError(
            f"the data have no history, by which this codec scales them (available: {', '.join(batch) or 'nothing'}): "
            "choose data of windows, such as data=series_table, or codec=standardize_channels"
        )
    if batch["history"].shape[-1] < 2:
        raise ValueError("a history needs at least two steps: raise data.history")
    return batch["history"]
