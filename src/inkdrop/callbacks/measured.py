"""Values that validation and callbacks have measured."""

from __future__ import annotations

from lightning.pytorch import Trainer

from inkdrop.files.showing import warn


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


def warn_if_never_measured(option: str, name: str, trainer: Trainer) -> None:
    """Warns with the available names if a metric was never measured, because a mistyped one would have no effect."""
    known = [key for key in trainer.callback_metrics if key.startswith("validation/")]
    known += [key for callback in trainer.callbacks for key in getattr(callback, "results", {})]  # type: ignore[attr-defined]
    if name not in known and trainer.is_global_zero:
        warn(f"callbacks.{option}={name} is not measured in this run; available: {', '.join(known)}")
