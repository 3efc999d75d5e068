"""Averages of the weights over training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any, Literal, cast

import torch
from annotated_types import Ge, Gt, Le, Lt
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from inkdrop.averaging import LONGEST, beta, gamma_of
from inkdrop.callbacks.cadence import Every
from inkdrop.callbacks.step import AfterStep
from inkdrop.checkpoints import CheckpointFolder
from inkdrop.checkpoints.content import FORMAT
from inkdrop.checkpoints.snapshots import name_of
from inkdrop.errors import CheckpointError


class EMA(AfterStep):
    """Averages of all trainable parameters, one per profile: `average += (1 - b) (weight - average)` in update t.

    The first average of all is sampled and evaluated. Skipped steps make no update, and buffers are not averaged. A
    checkpoint has the raw weights in `state_dict`, and each average in `ema` under its name: the decay, or
    `length:0.05`. A checkpoint cannot be saved while an average is in the network. Snapshots are stored at a cadence
    and when training ends; averages of any other length can be reconstructed from them. Raises `ValueError` without an
    average, and for snapshots without `lengths`.

    - `decays`: one average each, with b = min(decay^every_steps, (1 + t) / (10 + t)), which soon forgets the start.
    - `every_steps`: number of optimizer steps between two updates, which t counts.
    - `lengths`: one average each, with b = (1 - 1 / t)^(gamma + 1); a length is the standard deviation of the profile
      relative to the time since the start. Source: Karras et al. 2024, arXiv 2312.02696.
    - `snapshots`: cadence of the snapshots of the averages of `lengths`, or None.
    - `folder`: folder of the snapshots.
    - `snapshot_type`: floating-point type of the snapshots.
    """

    def __init__(
        self,
        decays: list[Annotated[float, Gt(0), Lt(1)]],
        every_steps: Annotated[int, Ge(1)] = 1,
        lengths: list[Annotated[float, Gt(0), Le(LONGEST)]] | None = None,
        snapshots: Every | None = None,
        folder: str = "snapshots",
        snapshot_type: Literal["float32", "float16"] = "float32",
    ):
        if not decays and not lengths:
            raise ValueError(f"callbacks.ema.decays={decays} and no lengths define no average: set callbacks.ema=null")
        if snapshots is not None and not lengths:
            raise ValueError("callbacks.ema.snapshots requires lengths: set callbacks.ema.lengths=[0.05,0.1]")
        self.every_steps, self.snapshots = every_steps, snapshots
        self._lengths = {name_of(length): gamma_of(length) for length in lengths or []}
        self._remaining: dict[str, Callable[[int], float]] = {
            **{str(decay): partial(_warmed_up, decay**every_steps) for decay in decays},
            **{name: partial(beta, gamma) for name, gamma in self._lengths.items()},
        }
        self.num_updates = 0
        self.averages: dict[str, dict[str, Tensor]] = {}
        self.files = CheckpointFolder(folder, keep=None)
        self._snapshot_type = getattr(torch, snapshot_type)
        self._stored_at = -1
        self._weights: list[Tensor] = []  # in training
        self._swapped = False

    @property
    def names(self) -> list[str]:
        """Names of the profiles; the first is the one that is sampled."""
        return list(self._remaining)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.files.owner = pl_module.config.get("run_id")  # type: ignore[operator, union-attr]
        trainable = _trainable(pl_module)
        self._weights = list(trainable.values())
        for profile in self._remaining:
            loaded = self.averages.get(profile, {})
            self.averages[profile] = {
                name: loaded.get(name, weight).detach().to(weight.device, torch.float32, copy=True)
                for name, weight in trainable.items()
            }

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._stored_at = trainer.global_step
        if self.snapshots is not None and trainer.is_global_zero:
            self.files.cut(trainer.global_step)  # later snapshots will be written again

    def after_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        task: Any = pl_module
        if trainer.global_step % self.every_steps == 0:
            task.once_updated(self._update)
        if self.snapshots is not None and self.snapshots.due(trainer):
            task.settle()
            self._store(trainer, pl_module)

    @torch.no_grad()
    def _update(self) -> None:
        self.num_updates += 1
        weights = [weight.detach().float() for weight in self._weights]
        for profile, remaining in self._remaining.items():
            averages = list(self.averages[profile].values())
            torch._foreach_lerp_(averages, weights, 1 - remaining(self.num_updates))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.snapshots is not None:
            task: Any = pl_module
            task.settle()
            self._store(trainer, pl_module)
            self.files.wait()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.files.wait()

    @contextmanager
    def averaged(self, pl_module: LightningModule, name: str | None = None) -> Iterator[None]:
        """Puts the average of this name (default: the first) into the network within the block."""
        assert not self._swapped, "an average is in the network already"
        weights = _trainable(pl_module)
        raw = {name: weight.detach().clone() for name, weight in weights.items()}
        _copy(self.averages[name or self.names[0]], weights)
        self._swapped = True
        try:
            yield
        finally:
            _copy(raw, weights)
            self._swapped = False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        assert not self._swapped, "a checkpoint must not be written while an average is in the network"
        self.files.wait()  # a run that resumes from this checkpoint needs all snapshots before it
        checkpoint["ema"] = self.averages

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        known = checkpoint.get("ema", {})
        if not known and self.state_key in checkpoint.get("callbacks", {}):
            raise CheckpointError(
                f"{trainer.ckpt_path} has no averages, although its run kept some: use another checkpoint"
            )
        self.averages = {profile: known[profile] for profile in self._remaining if profile in known}
        if missing := [name for name in self._lengths if name not in known]:
            raise CheckpointError(
                f"the run has no average {missing[0]}, which would have to cover it from the start: remove it from "
                "callbacks.ema.lengths"
            )

    def state_dict(self) -> dict[str, Any]:
        return {"num_updates": self.num_updates}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.num_updates = state_dict["num_updates"]

    def _store(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stores a checkpoint of the averages and the buffers, which is sufficient for sampling."""
        if self._stored_at == trainer.global_step or not self.num_updates or not trainer.is_global_zero:
            return
        self._stored_at = trainer.global_step
        averages = {
            profile: {name: value.to(self._snapshot_type) for name, value in self.averages[profile].items()}
            for profile in self._lengths
        }
        trainable = _trainable(pl_module)
        content = {
            "format": FORMAT,
            "config": pl_module.config,
            **({"models": pl_module.models} if pl_module.models else {}),
            "global_step": trainer.global_step,
            "state_dict": {name: value for name, value in pl_module.state_dict().items() if name not in trainable},
            "trainable": list(trainable),
            "ema": averages,
            "metrics": {"num_updates": self.num_updates},
        }
        self.files.save(content, trainer.global_step)


def _warmed_up(decay: float, t: int) -> float:
    return min(decay, (1 + t) / (10 + t))


def _trainable(pl_module: LightningModule) -> dict[str, Tensor]:
    return {name: parameter for name, parameter in pl_module.named_parameters() if parameter.requires_grad}


@torch.no_grad()
def _copy(values: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
    for name, weight in weights.items():
        weight.copy_(values[name])


@contextmanager
def averaged_weights(trainer: Trainer, pl_module: LightningModule, weights: str | None = None) -> Iterator[None]:
    """Puts these weights into the network within the block: `raw`, or an average by its name (default: the first).

    Raises `ValueError` for an average that is not kept.
    """
    name, task = profile_name(trainer, weights), cast(Any, pl_module)
    task.settle()
    if name == "raw":
        yield
        return
    with _averages(trainer)[0].averaged(pl_module, name):
        yield


def profile_name(trainer: Trainer, weights: str | None = None) -> str:
    """Returns the name of the weights that are sampled and evaluated: the given one, the first average, or `raw`."""
    known = [*(name for each in _averages(trainer) for name in each.names), "raw"]
    if weights is not None and weights not in known:
        raise ValueError(f"weights={weights} is not kept in this run; available: {', '.join(known)}")
    return weights or known[0]


def _averages(trainer: Trainer) -> list[EMA]:
    return [callback for callback in trainer.callbacks if isinstance(callback, EMA)]  # type: ignore[attr-defined]
