"""Exponential moving averages of the weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Len, Lt
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from inkdrop.callbacks.step import AfterStep


class EMA(AfterStep):
    """Averages of all trainable parameters, one profile per decay: `average += (1 - d) (weight - average)`.

    In step k the decay is `d = min(decay, (1 + k) / (10 + k))`, so that the start is soon forgotten; a step that
    was left out is none. Buffers are not averaged, the latest are used. A checkpoint holds the raw weights in
    `state_dict` and each profile in `ema[decay]`; a save while averages stand in the network is refused. The first
    decay is the one that is sampled.
    """

    def __init__(
        self,
        decays: Annotated[list[Annotated[float, Gt(0), Lt(1)]], Len(1)],
        every_steps: Annotated[int, Ge(1)] = 1,
    ):
        self.decays, self.every_steps = decays, every_steps
        self.num_updates = 0
        self.averages: dict[str, dict[str, Tensor]] = {}
        self._swapped = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainable = _trainable(pl_module)
        for decay in map(str, self.decays):
            loaded = self.averages.get(decay, {})
            self.averages[decay] = {
                name: loaded.get(name, weight).detach().to(weight.device, torch.float32, copy=True)
                for name, weight in trainable.items()
            }

    @torch.no_grad()
    def after_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step % self.every_steps or not pl_module.updated:
            return
        self.num_updates += 1
        weights = [weight.detach().float() for weight in _trainable(pl_module).values()]
        warm_up = (1 + self.num_updates) / (10 + self.num_updates)
        for decay in self.decays:
            averages = list(self.averages[str(decay)].values())
            torch._foreach_lerp_(averages, weights, 1 - min(decay**self.every_steps, warm_up))

    @contextmanager
    def averaged(self, pl_module: LightningModule, decay: float | None = None) -> Iterator[None]:
        """The profile of this decay (the first by default) stands in the network within the block."""
        assert not self._swapped, "the averages stand in the network already"
        weights = _trainable(pl_module)
        raw = {name: weight.detach().clone() for name, weight in weights.items()}
        _copy(self.averages[str(decay or self.decays[0])], weights)
        self._swapped = True
        try:
            yield
        finally:
            _copy(raw, weights)
            self._swapped = False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        assert not self._swapped, "a checkpoint must not be written while averages stand in the network"
        checkpoint["ema"] = self.averages

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        known = checkpoint.get("ema", {})
        self.averages = {decay: known[decay] for decay in map(str, self.decays) if decay in known}

    def state_dict(self) -> dict[str, Any]:
        return {"num_updates": self.num_updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.num_updates = state_dict["num_updates"]


def _trainable(pl_module: LightningModule) -> dict[str, Tensor]:
    return {name: parameter for name, parameter in pl_module.named_parameters() if parameter.requires_grad}


@torch.no_grad()
def _copy(values: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
    for name, weight in weights.items():
        weight.copy_(values[name])


@contextmanager
def averaged_weights(trainer: Trainer, pl_module: LightningModule) -> Iterator[None]:
    """The weights that are sampled and evaluated: the first EMA profile, or the raw ones if none is kept."""
    averages = [callback for callback in trainer.callbacks if isinstance(callback, EMA)]  # type: ignore[attr-defined]
    if not averages:
        yield
        return
    with averages[0].averaged(pl_module):
        yield
