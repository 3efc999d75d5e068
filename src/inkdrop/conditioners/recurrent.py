"""The conditioner of forecasts: the state of a recurrent network at each step of a series."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import torch
from annotated_types import Ge, Len
from torch import Tensor, nn

from inkdrop.codecs import Batches, Codec
from inkdrop.conditioners.base import Conditioner
from inkdrop.denoiser import Condition
from inkdrop.files.pictures import read_in_turn

_CELLS = {"gru": nn.GRU, "lstm": nn.LSTM}


class Carried(NamedTuple):
    """What is carried from a step of a forecast to the next: the last encoded values (B, C, lag), and the state."""

    recent: Tensor
    hidden: Any


class Recurrent(Conditioner):
    """Passes the state of a recurrent network as concat (B, width, T): at each step, what it read of those before.

    In training it reads the data themselves; in sampling `start` reads the history, and `advance` what was drawn.

    - `codec`: the codec in which it reads the values, its own copy of that of the data.
    - `shape`: the shape [C, T] of x.
    - `concat_channels`: the width of the state.
    - `num_layers`: number of recurrent layers.
    - `cell`: the kind of recurrent network.
    - `context`: how many steps of the history it reads before the first of x.
    - `lags`: how far the values that it reads at a step lie behind it; 1 is the value before.

    Raises `ValueError` for a history that is too short. Source: Rasul et al. 2021, arXiv 2101.12072, section 3.
    """

    names = ("history",)

    def __init__(
        self,
        codec: Codec,
        shape: Annotated[list[Annotated[int, Ge(1)]], Len(2, 2)],
        concat_channels: Annotated[int, Ge(1)],
        lags: Annotated[list[Annotated[int, Ge(1)]], Len(1)],
        num_layers: Annotated[int, Ge(1)] = 2,
        cell: Literal["gru", "lstm"] = "lstm",
        context: Annotated[int, Ge(0)] = 30,
    ):
        super().__init__()
        self.codec, self.shape, self.concat_channels = codec, list(shape), concat_channels
        self.context, self.lags = context, list(lags)
        self.network = _CELLS[cell](shape[0] * len(self.lags), concat_channels, num_layers, batch_first=True)

    def fit(self, batches: Batches) -> None:
        self.codec.fit(batches, torch.device("cpu"))

    def condition(self, batch: Mapping[str, Tensor], dropped: Mapping[str, Tensor]) -> Condition:
        if "x" not in batch:
            raise ValueError(
                "a recurrent conditioner gives its state step by step: set pipeline._target_=inkdrop.pipeline.Rollout"
            )
        x = self.codec.encode(batch)
        values = torch.cat([self._history(batch), x[..., :-1]], -1)
        states, _ = self.network(self._inputs(values, self.context + x.shape[-1]))
        return {"concat": states[:, -x.shape[-1] :].transpose(1, 2)}

    def start(self, batch: Mapping[str, Tensor]) -> tuple[Condition, Carried]:
        """Returns the condition of the first step after the histories of a raw batch, and what is carried on."""
        values = self._history(batch)
        states, hidden = self.network(self._inputs(values, self.context + 1))
        return {"concat": states[:, -1:].transpose(1, 2)}, Carried(values[..., -max(self.lags) :], hidden)

    def advance(self, state: Carried, x: Tensor) -> tuple[Condition, Carried]:
        """Returns the condition of the step after the drawn x (B, C, 1), and what is carried on from there."""
        recent = torch.cat([state.recent, x], -1)[..., -max(self.lags) :]
        states, hidden = self.network(self._inputs(recent, 1), state.hidden)
        return {"concat": states.transpose(1, 2)}, Carried(recent, hidden)

    def _history(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The history (B, C, L - 1) in the codec; what its first step becomes depends on nothing before it."""
        needed, length = self.context + max(self.lags) + 1, batch["history"].shape[-1]
        if length < needed:
            raise ValueError(
                f"the history has {length} steps, but conditioner.context={self.context} with "
                f"conditioner.lags={self.lags} needs {needed}: raise data.history, or lower one of them"
            )
        return self.codec.encode({**batch, "x": batch["history"]})[..., 1:]

    def _inputs(self, values: Tensor, count: int) -> Tensor:
        """What is read (B, count, C lags) at the last steps, of which the very last is after all values (B, C, N)."""
        end = values.shape[-1] + 1
        shifted = [values[..., end - count - lag : end - lag] for lag in self.lags]
        return torch.cat(shifted, 1).transpose(1, 2)

    def request(self, seeds: Sequence[int], **condition: Any) -> dict[str, Tensor]:
        """Returns the histories of these seeds from a file, from a list of files in turn, or from a tensor (B, C, L).

        A file is a .npy or .npz of one array (C, L) or (N, C, L).
        """
        self.require_known(condition)
        given = condition.get("history")
        if given is None:
            raise ValueError(
                "condition.history=FILE is needed, the series up to the forecast as an array (C, L); or set "
                "evaluate=true, which forecasts the held-out windows"
            )
        histories = given if isinstance(given, Tensor) else read_in_turn(given, "condition.history", seeds, 2)
        if histories.dim() != 3 or histories.shape[1] != self.shape[0]:
            raise ValueError(
                f"condition.history has the shape {list(histories.shape[1:])}, and this model needs "
                f"[{self.shape[0]}, L]: give an array (C, L)"
            )
        self._history({"history": histories[:1].float()})
        return {"history": histories.float()}

    def example(self, count: int) -> dict[str, Tensor]:
        length = self.context + max(self.lags) + 1
        return {"history": torch.arange(1.0, length + 1).expand(count, self.shape[0], length).clone()}
