"""Training of a diffusion model: wiring only, the mathematics is elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, TypeAlias

import torch
from annotated_types import Ge
from lightning.pytorch import LightningModule
from torch import Tensor
from torch.optim import Optimizer

from inkdrop.losses import Loss
from inkdrop.pipeline import Pipeline
from inkdrop.randomness import Generators

Batch: TypeAlias = dict[str, Tensor]


class DiffusionTask(LightningModule):
    """Fits a pipeline's denoiser, and whatever else in it can be trained, to a loss.

    Every random number is keyed by `seed` and by the sample's position in the run. Validation uses the same noise and
    the same evenly spaced times whatever the seed, so that runs compare.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        loss: Loss,
        optimizer: Callable[[Iterable[torch.nn.Parameter]], Optimizer],
        scheduler: Callable[[Optimizer], Any],
        seed: Annotated[int, Ge(0)] = 0,
    ):
        super().__init__()
        loss.check(pipeline.denoiser)  # type: ignore[arg-type]
        self.pipeline, self.loss, self.optimizer, self.scheduler, self.seed = pipeline, loss, optimizer, scheduler, seed
        self.config: dict[str, Any] = {}  # resolved, plain; written into checkpoints so that they are enough alone

    def training_step(self, batch: Batch, batch_index: int) -> dict[str, Tensor]:
        """The mean loss, and per sample the times and the unweighted error."""
        generators = Generators.from_positions(self.seed, batch["position"].tolist()).at("train")
        torch.manual_seed(int(generators.at("dropout").keys[0]))  # dropout inside the network knows no other source
        x_0 = self.pipeline.codec.encode(batch["x"], generators.at("codec"))
        cond = self.pipeline.conditioner(batch, generators.at("condition"))
        terms = self.loss(self.pipeline.denoiser, x_0, cond, generators)
        loss = terms.loss.mean()
        self.log("train/loss", loss.detach(), batch_size=len(x_0))
        return {"loss": loss, "t": terms.t, **{name: part.detach() for name, part in terms.parts.items()}}

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Logs the mean loss over the held-out split."""
        schedule, items = self.pipeline.denoiser.schedule, batch["position"]
        count = len(self.trainer.datamodule.splits["validation"]["x"])  # type: ignore[attr-defined]
        times = schedule.t_min + (1 - schedule.t_min) * (items.cpu().double() + 0.5) / count
        t = torch.tensor([schedule.snap(time) for time in times.tolist()], dtype=torch.float64)
        generators = Generators.from_positions(0, items.tolist()).at("validation")
        x_0, cond = self.pipeline.codec.encode(batch["x"]), self.pipeline.conditioner(batch)
        terms = self.loss(self.pipeline.denoiser, x_0, cond, generators, t)
        self.log("validation/loss", terms.loss.mean(), batch_size=len(t), on_epoch=True, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """The optimizer over all that can be trained, and the learning rate, moved once a step."""
        optimizer = self.optimizer(parameter for parameter in self.parameters() if parameter.requires_grad)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.scheduler(optimizer), "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the configuration and the fingerprint of the data."""
        checkpoint["config"] = self.config
        checkpoint["data_fingerprint"] = self.trainer.datamodule.fingerprint  # type: ignore[attr-defined]
