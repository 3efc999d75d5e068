"""The training task of a diffusion model."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from inkdrop.losses import LossTerms
from inkdrop.randomness import Generators
from inkdrop.schedules import Schedule
from inkdrop.tasks.base import Batch, Task


class DiffusionTask(Task):
    """Trains the denoiser and the conditioner of a pipeline."""

    estimate = "x_0 = c_skip x_t + c_out F(c_in x_t, c_noise), where F is the output of the network"

    def check(self) -> None:
        """Raises `ValueError` if the loss cannot train this denoiser."""
        self.loss.check(self.pipeline.denoiser)

    def advice(self, run: str) -> dict[str, Any]:
        """Returns options of sample.py for samples and an animation of the denoising trajectory."""
        chosen: dict[str, Any] = {"checkpoint": run, "num_samples": 64, "save_gif": True}
        try:
            self.pipeline.request([0])
        except ValueError:  # only a user can name the conditions, or the held-out items have them
            per_item = (self.config.get("evaluation") or {}).get("per_item", 1)
            chosen |= {"num_samples": per_item * math.ceil(chosen["num_samples"] / per_item), "evaluate": True}
        return chosen

    @property
    def schedule(self) -> Schedule:
        """The schedule of the denoiser."""
        schedule: Schedule = self.pipeline.denoiser.schedule
        return schedule

    def terms(self, batch: Batch, generators: Generators, t: Tensor | None = None) -> LossTerms:
        """Computes the loss of the denoiser under the condition; conditions are dropped only where times are drawn."""
        training = t is None
        x_0 = self.pipeline.codec.encode(batch, generators.at("codec") if training else None)
        cond = self.pipeline.conditioner(batch, generators.at("condition") if training else None)
        terms: LossTerms = self.loss(self.pipeline.denoiser, self.example(x_0, cond, batch), generators, t)
        return terms
