"""The training task of a model without times: an autoencoder, a GAN."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from inkdrop.losses import LossTerms
from inkdrop.randomness import Generators
from inkdrop.tasks.base import Batch, Task


class ModelTask(Task):
    """Trains a model without times by a loss that calls it, such as an autoencoder or a GAN."""

    @property
    def estimate(self) -> str:  # type: ignore[override]
        """What the network estimates, as a formula."""
        formula: str = self.pipeline.estimate
        return formula

    def check(self) -> None:
        """Raises `ValueError` if the loss cannot train this model."""
        self.loss.check(self.pipeline)

    def advice(self, run: str) -> dict[str, Any]:
        """Returns options of sample.py for samples of the model, or for reconstructions of held-out items."""
        try:
            self.pipeline.request([0])
        except ValueError:  # only a user, or held-out items, can say what is reconstructed
            return {"checkpoint": run, "evaluate": True}
        return {"checkpoint": run, "num_samples": 64}

    def terms(self, batch: Batch, generators: Generators, t: Tensor | None = None) -> LossTerms:
        """Computes the loss of a batch, with noise also in validation, where it is that of the items."""
        x_0 = self.pipeline.codec.encode(batch, generators.at("codec"))
        terms: LossTerms = self.loss(self.pipeline, self.example(x_0, {}, batch), generators)
        return terms
