"""The loss as a function of the noise level."""

from __future__ import annotations

from typing import Annotated, Any

import torch
from annotated_types import Ge
from lightning.pytorch import LightningModule, Trainer

from inkdrop.callbacks.cadence import Every
from inkdrop.callbacks.step import AfterStep
from inkdrop.loggers.rows import record
from inkdrop.randomness import sent


class LossByNoiseLevel(AfterStep):
    """Logs the unweighted error in equal intervals of t, averaged since the last time over this rank's samples."""

    def __init__(self, every: Every, num_bins: Annotated[int, Ge(1)] = 10):
        self.every, self.num_bins = every, num_bins
        self._sum = self._count = torch.zeros(num_bins)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if "t" not in outputs:  # a model without times
            return
        error = outputs["error"].float()
        finite = error.isfinite()  # the others belong to a skipped step
        bins = sent((outputs["t"] * self.num_bins).long().clamp(max=self.num_bins - 1), error.device)
        self._sum = sent(self._sum, error.device).index_add(0, bins, error.where(finite, 0))
        self._count = sent(self._count, error.device).index_add(0, bins, finite.float())
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def state_dict(self) -> dict[str, Any]:
        return {"sum": self._sum, "count": self._count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._sum, self._count = state_dict["sum"], state_dict["count"]

    def after_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.every.due(trainer):
            return
        means = (self._sum / self._count).tolist()
        values = {
            f"loss_by_t/{i / self.num_bins:.2f}-{(i + 1) / self.num_bins:.2f}": mean
            for i, mean in enumerate(means)
            if mean == mean  # the other intervals have no sample
        }
        self._sum, self._count = torch.zeros_like(self._sum), torch.zeros_like(self._count)
        record(trainer, values)
