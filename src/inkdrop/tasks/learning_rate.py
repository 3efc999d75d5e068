"""Learning-rate schedules: two of inkdrop, and functions that build and step those of torch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from annotated_types import Ge, Le
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

FORESEEN = 1_000_000  # steps, which take some seconds
_LOOKED_AT = 10_000  # steps of a function of the step, from the first on, and again over the whole run


def warmup_cosine(
    optimizer: Optimizer,
    warmup_steps: Annotated[int, Ge(0)],
    num_steps: Annotated[int, Ge(0)],
    final_factor: Annotated[float, Ge(0), Le(1)] = 0.0,
) -> LambdaLR:
    """Returns a linear warm-up over `warmup_steps`, followed by half a cosine down to `final_factor` at `num_steps`."""

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = min(1.0, (step - warmup_steps) / max(1, num_steps - warmup_steps))
        return final_factor + (1 - final_factor) * (1 + math.cos(math.pi * progress)) / 2

    return LambdaLR(optimizer, factor)


def inverse_square_root(
    optimizer: Optimizer, warmup_steps: Annotated[int, Ge(0)], constant_steps: Annotated[int, Ge(1)]
) -> LambdaLR:
    """Returns a linear warm-up over `warmup_steps`, and a decay as sqrt(constant_steps / step) after `constant_steps`.

    It is the schedule of EDM2. Source: Karras et al. 2024, arXiv 2312.02696, appendix B.
    """

    def factor(step: int) -> float:
        return min(1.0, (step + 1) / max(1, warmup_steps)) * min(1.0, math.sqrt(constant_steps / max(1, step)))

    return LambdaLR(optimizer, factor)


def made(scheduler: Callable[..., Any], optimizer: Optimizer) -> LRScheduler:
    """Builds the scheduler of an optimizer, after the parts that it contains, such as SequentialLR's `schedulers`.

    Raises `ValueError` for a scheduler that follows a metric instead of the step.
    """
    parts = getattr(scheduler, "keywords", {}).get("schedulers")
    if parts is None:
        whole = scheduler(optimizer)
    else:
        whole = scheduler(optimizer=optimizer, schedulers=[made(part, optimizer) for part in parts])
    if isinstance(whole, ReduceLROnPlateau):
        raise ValueError(
            "ReduceLROnPlateau follows a metric, but the learning rate must be a function of the step alone: "
            "choose another scheduler, or callbacks.stop_early"
        )
    return whole


def move(scheduler: LRScheduler, num_steps: int) -> None:
    """Steps a scheduler, and with it the options of its optimizer, this number of times.

    Raises `ValueError` with the step whose learning rate is invalid or cannot be computed.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the warning that the optimizer was not stepped
        for step in range(1, num_steps + 1):
            _check([float(group["lr"]) for group in scheduler.optimizer.param_groups], step)
            try:
                scheduler.step()
            except Exception as error:  # a scheduler of a user's own may raise any error
                raise ValueError(f"it ends at step {step}: {str(error) or type(error).__name__}") from None


def foresee(scheduler: LRScheduler, num_steps: int) -> None:
    """Raises `ValueError` if a scheduler ends before this step, or has an invalid learning rate on the way.

    Where the learning rate is a function of the step, the function is called for the first steps and for some of all
    later ones; other schedulers are stepped, up to a million times.
    """
    if not isinstance(scheduler, LambdaLR):
        move(scheduler, min(num_steps, FORESEEN))
        return
    later = {round(num_steps * part / _LOOKED_AT) for part in range(_LOOKED_AT + 1)}
    for done in sorted({*range(min(num_steps, _LOOKED_AT) + 1), *later, num_steps - 1}) if num_steps > 0 else ():
        try:
            pairs = zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
            rates = [float(rate * factor(done)) for rate, factor in pairs]
        except Exception as error:  # a function of a user's own may raise any error
            raise ValueError(f"it ends at step {done}: {str(error) or type(error).__name__}") from None
        if done < num_steps:
            _check(rates, done + 1)


def _check(rates: Sequence[float], step: int) -> None:
    if not all(0 <= rate < math.inf for rate in rates):
        raise ValueError(f"the learning rate of step {step} is {rates[0]}, but must be finite and at least 0")


def num_moves(state: Mapping[str, Any]) -> int:
    """Returns how often the scheduler with this state was stepped."""
    return state["last_epoch"] if "last_epoch" in state else num_moves(state["_schedulers"][0])


def rewrite(checkpoint: dict[str, Any], optimizer: Optimizer, scheduler: LRScheduler, afresh: bool) -> None:
    """Rewrites a checkpoint as if it had had the options of this optimizer and scheduler from the start.

    `afresh` removes the state of the optimizer, which another kind cannot use.
    """
    (state,), (curve,) = checkpoint["optimizer_states"], checkpoint["lr_schedulers"]
    move(scheduler, num_moves(curve))
    for old, new in zip(state["param_groups"], optimizer.param_groups, strict=True):
        parameters = old["params"]
        old.clear()
        old.update(new, params=parameters)
    checkpoint["lr_schedulers"] = [scheduler.state_dict()]
    if afresh:
        state["state"] = {}
