"""The guard of the optimizer step: nothing is changed by a loss or gradient that is not finite, or too large."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from inkdrop.errors import NonFiniteError, listed
from inkdrop.loggers.rows import record
from inkdrop.tasks.soundness import ADVICE, RecentLosses, broken_gradients, diagnosis

Groups = Mapping[str, Sequence[nn.Parameter]]


class GradientGuard:
    """Checks the norm of the gradient before each optimizer step, and refuses or skips the step.

    - `max_skipped_steps`: the number of steps in the whole run that may be skipped.
    - `max_gradient_norm`: a step with a larger norm counts as not finite; None is infinity.

    `skipped_steps` counts them, `finite` says whether the latest step may change the weights, and `losses` are those of
    the samples since the last step.
    """

    def __init__(self, max_skipped_steps: int, max_gradient_norm: float | None):
        self.max_skipped_steps, self.skipped_steps = max_skipped_steps, 0
        self.max_gradient_norm = math.inf if max_gradient_norm is None else max_gradient_norm
        self.finite = True
        self.losses = RecentLosses()

    def check(self, task: Any, optimizer: Optimizer, groups: Groups) -> dict[str, Tensor]:
        """Returns the norm of the gradient of each group of parameters; nothing if the step is skipped.

        Raises `NonFiniteError` if it must not be skipped.
        """
        scale = scale_of(task, optimizer)
        norms = {
            name: torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]) / scale
            for name, parameters in groups.items()
        }
        value = math.hypot(*map(float, norms.values())) if len(norms) > 1 else float(*norms.values())
        self.finite = math.isfinite(value) and value <= self.max_gradient_norm
        if not self.finite:
            self._refuse(task, optimizer, value)
            norms = {}
        self.losses.clear()
        return norms

    def _refuse(self, task: Any, optimizer: Optimizer, norm: float) -> None:
        """Raises `NonFiniteError`, or skips this step."""
        step = task.trainer.global_step + 1
        order = getattr(task.trainer.train_dataloader, "order", None)
        losses, gradients = self.losses.wrong(order), broken_gradients(task)
        if _scaler(task) is not None and gradients and not losses:
            return  # overflow of fp16: the scaler skips the step and lowers its scale
        if math.isfinite(norm):
            message = (
                f"optimizer step {step}: the norm of the gradient is {norm:.4g}, above {self.max_gradient_norm:g}; "
                f"the largest losses are at {listed(self.losses.largest(order))}"
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


def scale_of(task: Any, optimizer: Optimizer) -> float:
    """Returns the factor of fp16 that the gradients still have, which fused optimizers remove by themselves."""
    scaler = _scaler(task)
    scaled = scaler is not None and getattr(optimizer, "_step_supports_amp_scaling", False)
    return float(scaler.get_scale()) if scaled else 1.0


def _scaler(task: Any) -> Any:
    return getattr(task.trainer.precision_plugin, "scaler", None)  # only with fp16
