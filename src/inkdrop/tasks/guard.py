"""The guard of the optimizer step: nothing is changed by a loss or gradient that is not finite, or too large."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from inkdrop.errors import NonFiniteError, listed
from inkdrop.loggers.rows import record
from inkdrop.tasks.soundness import ADVICE, RecentLosses, broken_gradients, diagnosis

Groups = Mapping[str, Sequence[nn.Parameter]]


class Awaited(NamedTuple):
    """A step whose verdict the device has not returned yet.

    - `step`: the number of the step.
    - `losses`: those of its samples.
    - `verdict`: whether it was refused, and the norm of the gradient, (2), on the host.
    - `arrived`: the event after which these are there.
    - `actions`: what is to happen if the step was made.
    """

    step: int
    losses: RecentLosses
    verdict: Tensor
    arrived: Any
    actions: list[Callable[[], None]]


class GradientGuard:
    """Checks the norm of the gradient before each optimizer step, and refuses or skips the step.

    - `max_skipped_steps`: the number of steps in the whole run that may be skipped.
    - `max_gradient_norm`: a step with a larger norm counts as not finite; None is infinity.

    `skipped_steps` counts them, `finite` says whether the latest step may change the weights, and `losses` are those of
    the samples since the last step. Where the optimizer takes `found_inf` on a GPU, the device refuses a step itself,
    and the host reads the verdict before the next step, when the device is long past it.
    """

    def __init__(self, max_skipped_steps: int, max_gradient_norm: float | None):
        self.max_skipped_steps, self.skipped_steps = max_skipped_steps, 0
        self.max_gradient_norm = math.inf if max_gradient_norm is None else max_gradient_norm
        self.finite = True
        self.losses = RecentLosses()
        self.awaited: Awaited | None = None

    def check(self, task: Any, optimizer: Optimizer, groups: Groups) -> dict[str, Tensor]:
        """Returns the norm of the gradient of each group of parameters; nothing if the step is skipped.

        Raises `NonFiniteError` if it must not be skipped.
        """
        norms = norms_of(groups, scale_of(task, optimizer))
        value = math.hypot(*map(float, norms.values())) if len(norms) > 1 else float(*norms.values())
        self.finite = math.isfinite(value) and value <= self.max_gradient_norm
        if not self.finite:
            self._refuse(task, optimizer, value, task.trainer.global_step + 1, self.losses)
            norms = {}
        self.losses.clear()
        return norms

    def arm(self, task: Any, optimizer: Any, groups: Groups) -> dict[str, Tensor]:
        """Returns the norms, and makes the device refuse the step by itself; `settle` tells whether it did."""
        norms = norms_of(groups, 1.0)
        (norm, *others) = norms.values()
        if others:
            norm = torch.linalg.vector_norm(torch.stack([norm, *others]))
        largest = min(self.max_gradient_norm, torch.finfo(norm.dtype).max)
        refused = (~(norm <= largest)).to(norm.dtype)  # also NaN
        optimizer.found_inf = refused.float()
        verdict, arrived = torch.stack([refused, norm]).to("cpu", non_blocking=True), torch.cuda.Event()
        arrived.record()
        self.awaited = Awaited(task.trainer.global_step + 1, self.losses, verdict, arrived, [])
        self.losses = RecentLosses()
        return norms

    def scale(self, optimizer: Any, norm: Tensor, largest: float) -> None:
        """Makes an armed optimizer divide the gradient so that its norm is at most `largest`."""
        optimizer.grad_scale = ((norm.float() + 1e-6) / largest).clamp(min=1)

    def disarm(self, optimizer: Any) -> None:
        """Lets an optimizer step as it would by itself."""
        if getattr(optimizer, "found_inf", None) is not None:
            optimizer.found_inf = optimizer.grad_scale = None

    def settle(self, task: Any) -> None:
        """Reads the verdict on a step that is still awaited; raises `NonFiniteError` if it must not be skipped."""
        if self.awaited is None:
            return
        awaited, self.awaited = self.awaited, None
        awaited.arrived.synchronize()
        refused, norm = awaited.verdict.tolist()
        self.finite = not refused
        if self.finite:
            for action in awaited.actions:
                action()
        else:
            self._refuse(task, task.optimizers(use_pl_optimizer=False), norm, awaited.step, awaited.losses)

    def _refuse(self, task: Any, optimizer: Optimizer, norm: float, step: int, recent: RecentLosses) -> None:
        """Raises `NonFiniteError`, or skips this step."""
        order = getattr(task.trainer.train_dataloader, "order", None)
        losses, gradients = recent.wrong(order), broken_gradients(task)
        if _scaler(task) is not None and gradients and not losses:
            return  # overflow of fp16: the scaler skips the step and lowers its scale
        if math.isfinite(norm):
            message = (
                f"optimizer step {step}: the norm of the gradient is {norm:.4g}, above {self.max_gradient_norm:g}; "
                f"the largest losses are at {listed(recent.largest(order))}"
            )
        else:
            message = diagnosis(step, losses, gradients)
        if self.skipped_steps == self.max_skipped_steps:
            after = f" (after {self.skipped_steps} skipped steps)" if self.skipped_steps else ""
            raise NonFiniteError(f"{message}{after}; it changed nothing: {ADVICE}")
        self.skipped_steps += 1
        optimizer.zero_grad(set_to_none=True)  # optimizers skip parameters without a gradient
        if task.trainer.is_global_zero:
            print(f"warning: {message}; skipped, {self.skipped_steps} of {self.max_skipped_steps}", file=sys.stderr)
        record(task.trainer, {"train/skipped_steps": self.skipped_steps}, step)


def norms_of(groups: Groups, scale: float) -> dict[str, Tensor]:
    """Returns the norm of the gradient of each group of parameters, without the factor of fp16."""
    return {
        name: torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]) / scale
        for name, parameters in groups.items()
    }


def refuses_itself(task: Any, optimizer: Any) -> bool:
    """Returns whether the device can refuse a step by itself, so that the host need not wait for the norm.

    Fused optimizers of torch leave weights, moments and their count alone where `found_inf` is 1. On a CPU nothing is
    gained, and the scaler of fp16 judges by itself.
    """
    if _scaler(task) is not None or not optimizer.param_groups[0]["params"][0].is_cuda:
        return False
    return all(group.get("fused") for group in optimizer.param_groups)


def scale_of(task: Any, optimizer: Optimizer) -> float:
    """Returns the factor of fp16 that the gradients still have, which fused optimizers remove by themselves."""
    scaler = _scaler(task)
    scaled = scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False)
    return float(scaler.get_scale()) if scaled else 1.0


def _scaler(task: Any) -> Any:
    return getattr(task.trainer.precision_plugin, "scaler", None)  # only with fp16
