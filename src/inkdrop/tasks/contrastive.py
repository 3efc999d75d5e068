"""The training task of a contrastive model."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from inkdrop.losses import LossTerms
from inkdrop.randomness import Generators
from inkdrop.schedules import Schedule
from inkdrop.tasks.base import Batch, Task


class ContrastiveTask(Task):
    """Trains the encoders of data and texts of a contrastive model.

    Source: Radford et al. 2021, arXiv 2103.00020, section 2.3.
    """

    @property
    def estimate(self) -> str:  # type: ignore[override]
        """What the network estimates, as a formula."""
        formula: str = self.pipeline.estimate
        return formula

    def advice(self, run: str) -> dict[str, Any]:
        """Returns options of sample.py for samples of another run that this model guides."""
        return {"checkpoint": "RUN", "guidance": "clip_similarity", "guidance.checkpoint": run, "guidance.scale": 1}

    @property
    def schedule(self) -> Schedule:
        """The schedule of the noise on data."""
        schedule: Schedule = self.pipeline.schedule
        return schedule

    def terms(self, batch: Batch, generators: Generators, t: Tensor | None = None) -> LossTerms:
        """Computes the loss of the pairs of a batch."""
        x_0 = self.pipeline.codec.encode(batch, generators.at("codec") if t is None else None)
        terms: LossTerms = self.loss(self.pipeline, self.example(x_0, {}, batch), generators, t)
        return terms
