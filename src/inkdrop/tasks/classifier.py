"""The training task of a classifier of noised data."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from inkdrop.losses import LossTerms
from inkdrop.randomness import Generators
from inkdrop.schedules import Schedule
from inkdrop.tasks.base import Batch, Task


class ClassifierTask(Task):
    """Trains a classifier of noised data on the labels.

    Source: Dhariwal and Nichol 2021, arXiv 2105.05233, section 4.
    """

    estimate = (
        "p(y | x_t) = softmax F(c_in x_t, c_noise), the classes of noised data, where F is the output of the network"
    )

    def advice(self, run: str) -> dict[str, Any]:
        """Returns options of sample.py for samples of another run that this classifier guides."""
        scale = {"guidance.scale": 2} if self.pipeline.guides == "classifier" else {}
        return {"checkpoint": "RUN", "guidance": self.pipeline.guides, "guidance.checkpoint": run, **scale}

    @property
    def schedule(self) -> Schedule:
        """The schedule of the classifier."""
        schedule: Schedule = self.pipeline.schedule
        return schedule

    def terms(self, batch: Batch, generators: Generators, t: Tensor | None = None) -> LossTerms:
        """Computes the cross-entropy of the labels given noised data."""
        x_0 = self.pipeline.codec.encode(batch, generators.at("codec") if t is None else None)
        terms: LossTerms = self.loss(self.pipeline, self.example(x_0, {}, batch), generators, t)
        return terms
