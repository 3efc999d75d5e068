"""Pictures of samples during training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Ge
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from inkdrop.callbacks.cadence import Every
from inkdrop.callbacks.ema import averaged_weights, profile_name
from inkdrop.callbacks.step import AfterStep
from inkdrop.data.loaders import Split
from inkdrop.distributed.ranks import raised_together
from inkdrop.loggers.about import Picture, caption
from inkdrop.loggers.rows import rows
from inkdrop.pictures import save_png
from inkdrop.pipeline import Pipeline


class SamplePictures(AfterStep):
    """Writes sheets of samples of the averaged weights with fixed seeds, in the run folder and to loggers of images.

    A row has ten samples. Classes follow the seeds; conditions without a default are those of held-out items. The last
    picture is drawn when training ends.
    """

    def __init__(self, every: Every, folder: str, num_samples: Annotated[int, Ge(1)] = 100):
        self.every, self.folder, self.num_samples = every, Path(folder), num_samples
        self._drawn_at = -1

    def after_step(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.every.due(trainer):
            self._draw(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._drawn_at != trainer.global_step:
            self._draw(trainer, pl_module)

    def _draw(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._drawn_at = trainer.global_step
        with raised_together():
            if trainer.is_global_zero:
                self._draw_here(trainer, pl_module)

    def _draw_here(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pipeline: Any = pl_module.pipeline
        seeds = range(self.num_samples)
        with averaged_weights(trainer, pl_module):
            held_out = trainer.datamodule.splits["validation"]  # type: ignore[attr-defined]
            batch = conditions(pipeline, seeds, held_out)
            samples = pipeline(batch, seeds)
        if "x" in batch:  # each reconstruction follows the data
            samples = torch.stack([batch["x"], samples.cpu()], 1).flatten(0, 1)
            batch = {name: values.repeat_interleave(2, 0) for name, values in batch.items()}
        picture = pipeline.view.sheet(samples, batch, columns=10)
        save_png(picture, self.folder / f"samples-{trainer.global_step:08d}.png")
        config: Any = pl_module.config
        how = caption(profile_name(trainer), config.get("pipeline") or {}, trainer.global_step)
        rows(trainer).show(trainer, "samples", Picture(picture, how))


def conditions(pipeline: Pipeline, seeds: range, held_out: Split) -> dict[str, Tensor]:
    """Returns the raw batch of conditions for these seeds: the model's default, or else those of held-out items."""
    try:
        return pipeline.request(seeds)
    except ValueError:  # only the user can give the conditions of this model
        items = torch.tensor([seed % len(held_out["x"]) for seed in seeds])
        return {name: column[items] for name, column in held_out.items() if name != "x" or "x" in pipeline.names}
