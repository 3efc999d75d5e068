"""The cadence of callbacks."""

from __future__ import annotations

import time
from fractions import Fraction
from typing import Annotated

from annotated_types import Gt
from lightning.pytorch import Trainer


class Every:
    """A cadence in exactly one unit: optimizer steps, epochs, training samples or minutes.

    All units but minutes depend only on the step, so that a resumed run keeps its cadence. With several devices the
    minutes are those of rank 0, so that all ranks agree. Raises `ValueError` unless exactly one unit is given.
    """

    def __init__(
        self,
        steps: Annotated[int, Gt(0)] | None = None,
        epochs: Annotated[float, Gt(0)] | None = None,
        samples: Annotated[int, Gt(0)] | None = None,
        minutes: Annotated[float, Gt(0)] | None = None,
    ):
        given = {"steps": steps, "epochs": epochs, "samples": samples, "minutes": minutes}
        units = [(unit, amount) for unit, amount in given.items() if amount is not None]
        if len(units) != 1:
            raise ValueError(f"a cadence must have exactly one of steps, epochs, samples and minutes, not {units}")
        self.unit, self.amount = units[0]
        self._start = time.monotonic()
        self._completed = 0

    def due(self, trainer: Trainer) -> bool:
        """Returns whether another interval is complete; it must be called once after each optimizer step."""
        if self.unit == "minutes":
            completed = trainer.strategy.broadcast(int((time.monotonic() - self._start) / 60 / self.amount))
            due, self._completed = completed > self._completed, completed
            return due
        step, per_step = trainer.global_step, self._per_step(trainer)
        # 0.1 means a tenth, which no float equals; an interval that rounds to 0 is due at each step anyway.
        interval = Fraction(self.amount).limit_denominator(10**9) or Fraction(1, 10**9)
        return step * per_step // interval > (step - 1) * per_step // interval

    def _per_step(self, trainer: Trainer) -> Fraction:
        if self.unit == "steps":
            return Fraction(1)
        loader = trainer.train_dataloader
        samples = trainer.accumulate_grad_batches * loader.batch_size  # type: ignore[union-attr]
        return Fraction(samples, 1 if self.unit == "samples" else loader.num_items)  # type: ignore[union-attr]
