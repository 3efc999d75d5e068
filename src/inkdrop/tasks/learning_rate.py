"""Learning-rate schedules: two of our own, and how those of torch are made and moved."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from annotated_types import Ge, Le
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

FORESEEN = 1_000_000  # steps, in three seconds


def warmup_cosine(
    optimizer: Optimizer,
    warmup_steps: Annotated[int, Ge(0)],
    num_steps: Annotated[int, Ge(0)],
    final_factor: Annotated[float, Ge(0), Le(1)] = 0.0,
) -> LambdaLR:
    """The rate rises linearly over `warmup_steps`, then falls along half a cosine to `final_factor` at `num_steps`."""

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = min(1.0, (step - warmup_steps) / max(1, num_steps - warmup_steps))
        return final_factor + (1 - final_factor) * (1 + math.cos(math.pi * progress)) / 2

    return LambdaLR(optimizer, factor)


def inverse_square_root(
    optimizer: Optimizer, warmup_steps: Annotated[int, Ge(0)], constant_steps: Annotated[int, Ge(1)]
) -> LambdaLR:
    """The rate rises linearly over `warmup_steps`, and after `constant_steps` falls as sqrt(constant_steps / step).

    EDM2's. Source: Karras et al. 2024, arXiv 2312.02696, appendix B.
    """

    def factor(step: int) -> float:
        return min(1.0, (step + 1) / max(1, warmup_steps)) * min(1.0, math.sqrt(constant_steps / max(1, step)))

    return LambdaLR(optimizer, factor)


def made(scheduler: Callable[..., Any], optimizer: Optimizer) -> LRScheduler:
    """The scheduler of an optimizer; those that it is made of, such as SequentialLR's `schedulers`, are made first.

    `ValueError` for one that follows a metric instead of the step.
    """
    parts = getattr(scheduler, "keywords", {}).get("schedulers")
    if parts is None:
        whole = scheduler(optimizer)
    else:
        whole = scheduler(optimizer=optimizer, schedulers=[made(part, optimizer) for part in parts])
    if isinstance(whole, ReduceLROnPlateau):
        raise ValueError(
            "ReduceLROnPlateau follows a metric, and the learning rate of a run is a function of the step alone: "
            "choose another scheduler, or callbacks.stop_early"
        )
    return whole


def move(scheduler: LRScheduler, num_steps: int) -> None:
    """Moves a scheduler, and with it the options of its optimizer, as that many steps do.

    `ValueError` names a step whose learning rate cannot be had, or is no rate.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the optimizer makes no step between
        for step in range(1, num_steps + 1):
            rates = [float(group["lr"]) for group in scheduler.optimizer.param_groups]
            if not all(0 <= rate < math.inf for rate in rates):
                raise ValueError(f"the learning rate of step {step} would be {rates[0]}")
            try:
                scheduler.step()
            except Exception as error:  # whatever the arithmetic of somebody's scheduler raises
                raise ValueError(f"it ends at step {step}: {str(error) or type(error).__name__}") from None


def num_moves(state: Mapping[str, Any]) -> int:
    """How often the scheduler with this state was moved."""
    return state["last_epoch"] if "last_epoch" in state else num_moves(state["_schedulers"][0])
