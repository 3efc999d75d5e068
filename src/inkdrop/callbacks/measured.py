"""Values that validation and callbacks have measured."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer

from inkdrop.files.showing import warn
from inkdrop.files.value_names import metric_of
from inkdrop.loggers.about import Direction
from inkdrop.losses import Loss
from inkdrop.metrics.protocol import hash_of, is_higher_better


def measured(trainer: Trainer) -> dict[str, float]:
    """Returns the values measured after the current step."""
    step, values = trainer.global_step, {}
    if getattr(trainer.lightning_module, "validated_at", -1) == step:
        values = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("validation/")}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if getattr(callback, "measured_at", -1) == step:
            values.update(callback.results)
    return values


def latest(trainer: Trainer) -> dict[str, float]:
    """Returns the latest value of each metric since training started or resumed."""
    values = {name: float(value) for name, value in trainer.callback_metrics.items()}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        values.update(getattr(callback, "results", {}))
    return values


def improves_upwards(trainer: Trainer, name: str) -> bool:
    """Returns whether the metric of this name, which the latest evaluation has measured, is better when higher."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return any(is_higher_better(name, getattr(each, "protocol", {})) for each in callbacks)


def direction(trainer: Trainer, loss: Loss, name: str) -> Direction | None:
    """Returns the direction in which a value of this name improves, or None for one without, such as a rate.

    Losses improve downwards, and a loss knows which of its parts do not; metrics state their directions.
    """
    stage, _, part = name.partition("/")
    if stage in ("train", "validation") and part in ("loss", *loss.logged):
        return "max" if part in loss.higher else "min"
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    records = [each.protocol for each in callbacks if hasattr(each, "protocol")]
    if name.partition("@")[0] != metric_of(name) or not any(hash_of(name, record) for record in records):
        return None  # floors and baselines are constants
    return "max" if improves_upwards(trainer, name) else "min"


def warn_if_never_measured(option: str, name: str, trainer: Trainer) -> None:
    """Warns with the available names if a metric was never measured, because a mistyped one would have no effect."""
    known = [key for key in trainer.callback_metrics if key.startswith("validation/")]
    known += [key for callback in trainer.callbacks for key in getattr(callback, "results", {})]  # type: ignore[attr-defined]
    if name not in known and trainer.is_global_zero:
        warn(f"callbacks.{option}={name} is not measured in this run; available: {', '.join(known)}")
